//! The appliance image in QEMU: [`machine`] runs it, [`disks`] gives it something to start from,
//! [`place`] has the servers on the host and its configuration, [`operator`] commands it, [`vlan`] and
//! [`ntp`] are its surroundings, [`tpm`] is a TPM beside it.
//!
//! Machines are emulated (TCG), so nothing here is a measure of speed. They reach the host at [`HOST`];
//! ports of theirs are forwarded. The image is that of `make image` ($CLINCH_IMAGE), or one that
//! [`quick`] put together from binaries that are there.

pub mod disks;
pub mod http;
pub mod machine;
pub mod ntp;
pub mod operator;
pub mod place;
pub mod quick;
pub mod tpm;
pub mod vlan;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

pub use machine::{Firmware, Machine, Parts};
pub use place::Place;

/// The host, seen from the machine.
pub const HOST: &str = "10.0.2.2";
/// The host over IPv6, seen from the machine.
pub const HOST6: &str = "fec0::2";
/// The machine's own address.
pub const GUEST: &str = "10.0.2.15";
/// How long a boot may take: emulated, on a machine that does other things as well.
pub const BOOT: Duration = Duration::from_secs(240);

static IMAGE: OnceLock<PathBuf> = OnceLock::new();

/// The built image.
pub fn image() -> &'static Path {
    IMAGE.get_or_init(|| {
        let folder = std::env::var_os("CLINCH_IMAGE").map(PathBuf::from);
        folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/image"))
    })
}

/// Runs a script of `appliance-image/build`.
pub fn build(script: &str, arguments: &[&str]) {
    let done = Command::new(scripts().join("build").join(script))
        .args(arguments)
        .env("SOURCE_DATE_EPOCH", "1700000000")
        // Quick, and yet small enough for the bound of a system.
        .env("CLINCH_INITRD_LEVEL", "9")
        .output();
    let done = done.unwrap_or_else(|error| panic!("{script}: {error}"));
    assert!(
        done.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// The folder `appliance-image`.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../appliance-image")
}

/// A port of the host's loopback that is free now.
pub fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    listener.local_addr().expect("bound").port()
}

/// A loopback address for a server that the machine is to reach at [`HOST`].
pub fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port()))
}

/// Adds a boot time to the file that `make image-test` shows.
pub fn record(how: &str, took: Duration) {
    let took = took.as_secs_f64();
    write_down(
        "boot-times.txt",
        &format!("{how} {took:.1} s to the first stapled handshake, emulated\n"),
    );
}

/// Adds a figure to the file of costs that `make image-test` shows.
pub fn record_cost(cost: &str) {
    write_down("costs.txt", &format!("{cost}\n"));
}

fn write_down(name: &str, line: &str) {
    use std::io::Write;
    let file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(image().join(name));
    eprint!("{line}");
    let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[track_caller]
fn must(command: &mut Command) {
    let done = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        done.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}
