//! The proof that the machine serves: a handshake with itself, with a valid staple.
//!
//! It is made by `clinch probe`, so the verifier that judges is clinch's own.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::machine::Machine;
use crate::run::Children;
use crate::supervise::{Clinch, Served};

/// Tries until a handshake brings a staple that verifies as good. The error is what the last attempt
/// said.
pub fn prove(
    children: &Children,
    clinch: &Clinch,
    machine: &Machine,
    served: &Served,
) -> Result<(), String> {
    let deadline = Instant::now() + machine.health.within;
    let address = served.first.unwrap_or(machine.health.address).to_string();
    let name = machine
        .health
        .server_name
        .clone()
        .or_else(|| served.name.clone());
    let mut last = "clinch was never ready".to_owned();
    while Instant::now() < deadline {
        if clinch.is_ready() {
            let mut probe = Command::new("/bin/clinch");
            probe.args(["probe", &address]);
            if let Some(name) = &name {
                probe.args(["--name", name]);
            }
            match children.succeed(&mut probe) {
                Ok(_) => return Ok(()),
                Err(said) => last = said,
            }
        }
        std::thread::sleep(BETWEEN_TRIES);
    }
    Err(last)
}

const BETWEEN_TRIES: Duration = Duration::from_millis(500);
