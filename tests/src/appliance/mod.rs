//! The appliance image in QEMU: disks, a running machine, and what it says on its serial line.
//!
//! The machine is emulated (TCG), so nothing here is a measure of speed. It reaches the host at
//! [`HOST`]; one port of its own is forwarded. The image must have been built (`make image`); the
//! folder is `$CLINCH_IMAGE`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::eventually;
use crate::peers::{self, Said};

/// The host, seen from the machine.
pub const HOST: &str = "10.0.2.2";
/// The machine's own address.
pub const GUEST: &str = "10.0.2.15";
/// How long a boot may take: emulated, on a machine that does other things as well.
pub const BOOT: Duration = Duration::from_secs(420);

/// The built image.
pub fn image() -> PathBuf {
    let folder = std::env::var_os("CLINCH_IMAGE").map(PathBuf::from);
    folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/image"))
}

/// How a machine starts.
#[derive(Clone, Debug, Default)]
pub enum Firmware {
    /// QEMU loads kernel and initrd itself.
    #[default]
    Direct,
    /// SeaBIOS.
    Bios,
    /// OVMF with variables in this file.
    Uefi(PathBuf),
    /// OVMF that can enforce signatures, with variables in this file.
    SecureUefi(PathBuf),
}

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// How it starts.
    pub firmware: Firmware,
    /// Disks in order.
    pub disks: Vec<PathBuf>,
    /// QEMU's name of the network card.
    pub card: &'static str,
    /// MiB of memory.
    pub memory: u32,
    /// Ports forwarded to the machine: on the host's loopback, and there.
    pub forwards: Vec<(u16, u16)>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            firmware: Firmware::Direct,
            disks: Vec::new(),
            card: "virtio-net-pci",
            memory: 256,
            forwards: Vec::new(),
        }
    }
}

/// A running machine; it is killed when this is dropped.
#[derive(Debug)]
pub struct Machine {
    process: Child,
    serial: PathBuf,
    monitor: PathBuf,
    started: Instant,
    _dir: tempfile::TempDir,
}

impl Machine {
    /// Starts it.
    pub fn start(parts: &Parts) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("clinch-machine-")
            .tempdir()
            .expect("a temporary directory");
        let (serial, monitor) = (dir.path().join("serial"), dir.path().join("monitor"));
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-nodefaults",
        ])
        .args([
            "-display",
            "none",
            "-no-user-config",
            "-m",
            &parts.memory.to_string(),
        ])
        .args([
            "-machine",
            "q35,smm=on",
            "-global",
            "driver=cfi.pflash01,property=secure,value=on",
        ])
        .args([
            "-device",
            "virtio-rng-pci",
            "-device",
            "i6300esb",
            "-action",
            "watchdog=reset",
        ])
        .args(["-serial", &format!("file:{}", serial.display())])
        .args([
            "-qmp",
            &format!("unix:{},server=on,wait=off", monitor.display()),
        ]);
        let mut net = String::from("user,id=net0");
        for (host, guest) in &parts.forwards {
            net += &format!(",hostfwd=tcp:127.0.0.1:{host}-{GUEST}:{guest}");
        }
        qemu.args([
            "-netdev",
            &net,
            "-device",
            &format!("{},netdev=net0,romfile=", parts.card),
        ]);
        for disk in &parts.disks {
            qemu.args([
                "-drive",
                &format!(
                    "file={},format=raw,if=virtio,cache=writethrough",
                    disk.display()
                ),
            ]);
        }
        firmware(&mut qemu, &parts.firmware);
        let process = qemu
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("qemu-system-x86_64: {error}"));
        Self {
            process,
            serial,
            monitor,
            started: Instant::now(),
            _dir: dir,
        }
    }

    /// Waits until a line of the serial console has `part`, and returns how long that took from the
    /// start.
    #[track_caller]
    pub fn says(&mut self, part: &str) -> Duration {
        self.says_times(part, 1)
    }

    /// Likewise, until `times` lines have it.
    #[track_caller]
    pub fn says_times(&mut self, part: &str, times: usize) -> Duration {
        let deadline = Instant::now() + BOOT;
        loop {
            let said = self.said();
            if said.matches(part).count() >= times {
                return self.started.elapsed();
            }
            let ended = self.process.try_wait().ok().flatten();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "the machine does not say {part:?} {times} times (ended: {ended:?}):\n{said}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Everything that the serial console has said.
    pub fn said(&self) -> String {
        let bytes = fs::read(&self.serial).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Presses the power button, and waits for the machine to be off.
    pub fn press_power(&mut self) {
        self.command("system_powerdown");
        eventually("the machine switches off", BOOT, || {
            self.process.try_wait().ok().flatten()
        });
    }

    /// Pulls the plug.
    pub fn cut_power(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn command(&self, command: &str) {
        let stream = UnixStream::connect(&self.monitor).expect("QEMU's monitor");
        let mut lines = BufReader::new(&stream);
        let mut line = String::new();
        lines.read_line(&mut line).expect("a greeting");
        for execute in ["qmp_capabilities", command] {
            writeln!(&stream, "{{\"execute\":\"{execute}\"}}").expect("QEMU listens");
            lines.read_line(&mut line).expect("an answer");
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.cut_power();
    }
}

fn firmware(qemu: &mut Command, firmware: &Firmware) {
    let image = image();
    match firmware {
        Firmware::Direct => {
            let words = fs::read_to_string(image.join("pxe/cmdline")).expect("make image was run");
            qemu.arg("-kernel").arg(image.join("pxe/vmlinuz"));
            qemu.arg("-initrd").arg(image.join("pxe/initrd"));
            qemu.args(["-append", &words]);
        }
        Firmware::Bios => {}
        Firmware::Uefi(variables) => pflash(qemu, "/usr/share/OVMF/OVMF_CODE_4M.fd", variables),
        Firmware::SecureUefi(variables) => {
            pflash(qemu, "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", variables);
        }
    }
}

fn pflash(qemu: &mut Command, code: &str, variables: &Path) {
    qemu.args([
        "-drive",
        &format!("if=pflash,format=raw,unit=0,readonly=on,file={code}"),
    ]);
    qemu.args([
        "-drive",
        &format!("if=pflash,format=raw,unit=1,file={}", variables.display()),
    ]);
}

/// Fresh variables of the firmware: no keys, so the machine is in setup mode.
pub fn variables(dir: &Path) -> PathBuf {
    let path = dir.join("vars.fd");
    fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &path).expect("the package ovmf");
    path
}

/// A volume labelled CLINCH with the files of a folder.
pub fn volume(folder: &Path, to: &Path) -> PathBuf {
    build("disk.sh", &["volume", &path(folder), &path(to)]);
    to.to_owned()
}

/// An empty state partition, as a disk of its own.
pub fn state(to: &Path) -> PathBuf {
    let made = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-L", "clinch-state"])
        .arg(to)
        .arg("64M")
        .status();
    assert!(made.is_ok_and(|status| status.success()), "mke2fs");
    to.to_owned()
}

/// A copy of a built disk image, to be written to.
pub fn copy(name: &str, dir: &Path) -> PathBuf {
    let to = dir.join(name);
    let done = Command::new("cp")
        .arg("--sparse=always")
        .arg(image().join(name))
        .arg(&to)
        .status();
    assert!(
        done.is_ok_and(|status| status.success()),
        "make image was run"
    );
    to
}

/// A system that the firmware must not start.
#[derive(Clone, Copy, Debug)]
pub enum Refused {
    /// Without a signature.
    Unsigned,
    /// With one that does not fit any more.
    Tampered,
}

/// Makes such a system.
pub fn bad_system(kind: Refused, dir: &Path) -> PathBuf {
    let to = dir.join("bad.efi");
    let source = match kind {
        Refused::Unsigned => "clinch.efi.unsigned",
        Refused::Tampered => "clinch.efi",
    };
    let mut bytes = fs::read(image().join(source)).expect("make image was run");
    if matches!(kind, Refused::Tampered) {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    }
    fs::write(&to, bytes).expect("in our own directory");
    to
}

/// Puts a system in place of the one in the first slot of a disk.
pub fn put_system(disk: &Path, system: &Path) {
    let name = format!("::EFI/Linux/clinch-a_{}.efi", version());
    mtools(disk, system, &name);
}

/// Has systemd-boot enrol the keys of the build at the next start.
pub fn enrol_keys_at_boot(disk: &Path) {
    let settings = disk.with_extension("loader.conf");
    fs::write(
        &settings,
        "timeout 0\neditor no\nsecure-boot-enroll force\n",
    )
    .expect("beside the disk");
    mtools(disk, &settings, "::loader/loader.conf");
}

fn mtools(disk: &Path, from: &Path, to: &str) {
    // The boot partition begins at 1 MiB.
    let image = format!("{}@@1M", disk.display());
    let done = Command::new("mcopy")
        .args(["-o", "-i", &image])
        .arg(from)
        .arg(to)
        .status();
    assert!(done.is_ok_and(|status| status.success()), "mcopy");
}

fn version() -> String {
    let text = fs::read_to_string(image().join("os-release")).expect("make image was run");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("IMAGE_VERSION="));
    line.expect("every image has a version").to_owned()
}

/// What the init of an update does.
#[derive(Clone, Copy, Debug)]
pub enum Init {
    /// What it should.
    Good,
    /// Nothing: it cannot be executed.
    Broken,
}

/// Builds an update from the root of the image, with another version, and without the largest
/// drivers, so that it is packed quickly.
pub fn update(dir: &Path, version: &str, init: Init) -> String {
    let (work, to) = (dir.join("work"), dir.join(format!("{version}.update")));
    let root = work.join("root");
    let script = format!(
        "rm -rf {work} && mkdir -p {work} && cp -r {image}/root {image}/keys {work}/ && ln -s {image}/kernel {work}/kernel && \
         rm -rf {root}/lib/modules/*/kernel/drivers/net/ethernet && \
         sed 's/VERSION_ID=.*/VERSION_ID={version}/; s/IMAGE_VERSION=.*/IMAGE_VERSION={version}/' {image}/os-release > {work}/os-release && \
         cp {work}/os-release {root}/etc/os-release",
        work = work.display(),
        root = root.display(),
        image = image().display(),
    );
    let made = Command::new("sh").args(["-c", &script]).status();
    assert!(made.is_ok_and(|status| status.success()), "{script}");
    if matches!(init, Init::Broken) {
        fs::write(root.join("init"), "this is no program").expect("our own copy");
    }
    let system = work.join("clinch.efi");
    build("uki.sh", &[&path(&work), &path(&root), &path(&system)]);
    build(
        "update.sh",
        &[&path(&work), &path(&system), version, &path(&to)],
    );
    path(&to)
}

/// An operator's key, made for the test.
pub fn operator_key(dir: &Path) -> PathBuf {
    let key = dir.join("operator.key");
    let made = Command::new("openssl")
        .args(["genpkey", "-algorithm", "ed25519", "-out"])
        .arg(&key)
        .status();
    assert!(made.is_ok_and(|status| status.success()), "openssl");
    key
}

/// Runs `clinch-appliance`.
#[track_caller]
pub fn tool(arguments: &[&str]) -> Said {
    let program = std::env::var("CLINCH_APPLIANCE").expect("appliance-image/test.sh sets it");
    peers::run(&program, arguments)
}

/// Sends a command to the machine whose admin interface is forwarded to this port.
#[track_caller]
pub fn command(port: u16, key: &Path, words: &[&str]) -> Said {
    let (to, key) = (format!("127.0.0.1:{port}"), path(key));
    let mut arguments = vec!["--to", &to, "--key", &key];
    arguments.extend(words);
    tool(&arguments)
}

/// Runs a script of `appliance-image/build`.
pub fn build(script: &str, arguments: &[&str]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../appliance-image/build");
    let done = Command::new(folder.join(script))
        .args(arguments)
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .env("CLINCH_INITRD_LEVEL", "3")
        .output();
    let done = done.unwrap_or_else(|error| panic!("{script}: {error}"));
    assert!(
        done.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// A port of the host's loopback that is free now.
pub fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    listener.local_addr().expect("bound").port()
}

/// A loopback address for a server that the machine is to reach at [`HOST`].
pub fn place() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port()))
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
