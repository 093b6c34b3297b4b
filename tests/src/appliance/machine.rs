//! A machine in QEMU: what it is made of, how it is run, and what it says on its serial line.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{BOOT, GUEST, image, path};
use crate::eventually;

/// How a machine starts.
#[derive(Clone, Debug, Default)]
pub enum Firmware {
    /// QEMU loads kernel and initrd itself.
    #[default]
    Direct,
    /// Likewise, with another initrd.
    DirectWith(PathBuf),
    /// SeaBIOS.
    Bios,
    /// SeaBIOS and the card's own iPXE, which take this file of a folder over TFTP.
    Network(PathBuf, &'static str),
    /// OVMF with variables in this file.
    Uefi(PathBuf),
    /// OVMF that can enforce signatures, with variables in this file.
    SecureUefi(PathBuf),
    /// Likewise, from the network: this file of a folder over TFTP.
    SecureNetwork(PathBuf, PathBuf, &'static str),
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
    /// Its watchdog, in QEMU's words.
    pub watchdog: [&'static str; 2],
    /// One processor on which each instruction takes a nanosecond: a time is a count of instructions.
    pub counting: bool,
    /// Ports forwarded to the machine: on the host's loopback, and there.
    pub forwards: Vec<(u16, u16)>,
    /// Further arguments for QEMU.
    pub more: Vec<String>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            firmware: Firmware::Direct,
            disks: Vec::new(),
            card: "virtio-net-pci",
            memory: 256,
            watchdog: ["-device", "i6300esb"],
            counting: false,
            forwards: Vec::new(),
            more: Vec::new(),
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
        qemu.args(ALWAYS).args(["-m", &parts.memory.to_string()]);
        qemu.args(if parts.counting { COUNTING } else { PLAIN });
        qemu.args(parts.watchdog);
        qemu.args(["-serial", &format!("file:{}", path(&serial))]);
        let monitor_socket = format!("unix:{},server=on,wait=off", path(&monitor));
        qemu.args(["-qmp", &monitor_socket]);
        network(&mut qemu, parts);
        for disk in &parts.disks {
            // What the machine has flushed is on the host's disk, and what it has not is in its memory.
            let drive = format!(
                "file={},format=raw,if=virtio,cache=writethrough",
                path(disk)
            );
            qemu.args(["-drive", &drive]);
        }
        firmware(&mut qemu, &parts.firmware);
        qemu.args(&parts.more);
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
        let what = format!("{part:?} {times} times");
        self.says_until(&what, |said| said.matches(part).count() >= times)
    }

    /// Likewise, until everything that it has said is `enough`.
    #[track_caller]
    pub fn says_until(&mut self, what: &str, enough: impl Fn(&str) -> bool) -> Duration {
        let deadline = Instant::now() + BOOT;
        loop {
            let said = self.said();
            if enough(&said) {
                return self.started.elapsed();
            }
            let ended = self.process.try_wait().ok().flatten();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "the machine does not say {what} (ended: {ended:?}):\n{said}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Everything that the serial console has said.
    pub fn said(&self) -> String {
        let bytes = fs::read(&self.serial).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Asserts that nothing has broken down.
    #[track_caller]
    pub fn assert_sound(&self) {
        for bad in ["Kernel panic", "panicked at", "BUG:", "Oops"] {
            assert!(!self.said().contains(bad), "{}", self.said());
        }
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

    /// Plugs a stick with this medium, one of its drives, into a controller that it has.
    pub fn plug(&self, drive: &str) {
        self.execute(&format!(
            r#"{{"execute":"device_add","arguments":{{"driver":"usb-storage","id":"usb-{drive}","drive":"{drive}"}}}}"#
        ));
    }

    /// Pulls it out again.
    pub fn unplug(&self, drive: &str) {
        self.execute(&format!(
            r#"{{"execute":"device_del","arguments":{{"id":"usb-{drive}"}}}}"#
        ));
    }

    fn command(&self, command: &str) {
        self.execute(&format!(r#"{{"execute":"{command}"}}"#));
    }

    fn execute(&self, command: &str) {
        let stream = UnixStream::connect(&self.monitor).expect("QEMU's monitor");
        let mut lines = BufReader::new(&stream);
        let mut line = String::new();
        lines.read_line(&mut line).expect("a greeting");
        for command in [r#"{"execute":"qmp_capabilities"}"#, command] {
            line.clear();
            writeln!(&stream, "{command}").expect("QEMU listens");
            lines.read_line(&mut line).expect("an answer");
            assert!(!line.contains("\"error\""), "{command}: {line}");
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.cut_power();
    }
}

const PLAIN: &[&str] = &["-accel", "tcg,thread=multi", "-smp", "2"];

#[rustfmt::skip]
const COUNTING: &[&str] = &["-accel", "tcg,thread=single", "-smp", "1", "-icount", "shift=0,sleep=on"];

#[rustfmt::skip]
const ALWAYS: [&str; 12] = [
    "-cpu", "max",
    "-nodefaults", "-no-user-config", "-display", "none",
    "-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on",
    "-device", "virtio-rng-pci",
];

fn network(qemu: &mut Command, parts: &Parts) {
    let mut net = String::from("user,id=net0");
    for (host, guest) in &parts.forwards {
        net += &format!(",hostfwd=tcp:127.0.0.1:{host}-{GUEST}:{guest}");
    }
    // The card's own program starts from the network, and only then is wanted.
    let mut card = format!("{},netdev=net0,romfile=", parts.card);
    match &parts.firmware {
        Firmware::Network(folder, file) => {
            net += &format!(",tftp={},bootfile={file}", path(folder));
            card = format!("{},netdev=net0,bootindex=0", parts.card);
        }
        Firmware::SecureNetwork(_, folder, file) => {
            net += &format!(",tftp={},bootfile={file}", path(folder));
            card += ",bootindex=0";
        }
        _ => {}
    }
    qemu.args(["-netdev", &net, "-device", &card]);
}

fn firmware(qemu: &mut Command, firmware: &Firmware) {
    let direct = |qemu: &mut Command, initrd: &Path| {
        let image = image();
        let words = fs::read_to_string(image.join("pxe/cmdline")).expect("make image was run");
        qemu.arg("-kernel").arg(image.join("pxe/vmlinuz"));
        qemu.arg("-initrd").arg(initrd).args(["-append", &words]);
    };
    match firmware {
        Firmware::Direct => direct(qemu, &image().join("pxe/initrd")),
        Firmware::DirectWith(initrd) => direct(qemu, initrd),
        Firmware::Bios | Firmware::Network(..) => {}
        Firmware::Uefi(variables) => pflash(qemu, "/usr/share/OVMF/OVMF_CODE_4M.fd", variables),
        Firmware::SecureUefi(variables) | Firmware::SecureNetwork(variables, ..) => {
            pflash(qemu, "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", variables);
        }
    }
}

fn pflash(qemu: &mut Command, code: &str, variables: &Path) {
    let code = format!("if=pflash,format=raw,unit=0,readonly=on,file={code}");
    let variables = format!("if=pflash,format=raw,unit=1,file={}", path(variables));
    qemu.args(["-drive", &code, "-drive", &variables]);
}
