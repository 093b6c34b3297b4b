//! The keeper of the egress pin: `clinch firewall apply`, run where `clinch.toml` has `[firewall]`.
//!
//! It opens the responders of the certificates for the egress process before clinch connects to them,
//! and closes them again; nobody needs to list addresses then. Without that table the egress process
//! is pinned to the addresses of `machine.toml` ([`crate::firewall`]).

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::run::Children;
use crate::say;
use crate::supervise::{self, BackOff};

/// Starts it, and again whenever it ends. Returns once it can be asked, which it says; `false` after a
/// few seconds in which it cannot.
pub fn start(children: &Children) -> bool {
    let _ = fs::create_dir_all(FOLDER);
    let children = children.clone();
    std::thread::spawn(move || {
        let mut back_off = BackOff::default();
        loop {
            let started = Instant::now();
            match run(&children) {
                Ok(status) => say!("the keeper of the egress pin ended ({status})"),
                Err(error) => say!("the keeper of the egress pin cannot be started: {error}"),
            }
            std::thread::sleep(back_off.after(started.elapsed()));
        }
    });
    let deadline = Instant::now() + READY_WITHIN;
    while !Path::new(SOCKET).exists() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    true
}

fn run(children: &Children) -> std::io::Result<std::process::ExitStatus> {
    let mut child = children.start(
        Command::new("/bin/clinch")
            .args(["firewall", "apply", "-c"])
            .arg(format!("{}/clinch.toml", supervise::CONFIG))
            .env_clear()
            .env("PATH", "/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped()),
    )?;
    if let Some(lines) = child.stderr.take() {
        std::thread::spawn(move || supervise::pass_lines(lines));
    }
    let status = child.wait();
    children.ended(child.id());
    status
}

const FOLDER: &str = "/run/clinch-firewall";
const SOCKET: &str = "/run/clinch-firewall/socket";
const READY_WITHIN: Duration = Duration::from_secs(10);
