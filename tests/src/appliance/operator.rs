//! Commanding a machine: `clinch-appliance`, run as an operator runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{must, path};
use crate::peers::{self, Said};
use crate::process::binary;

/// An operator's key, made for the test.
pub fn key(dir: &Path) -> PathBuf {
    let key = dir.join("operator.key");
    must(
        Command::new("openssl")
            .args(["genpkey", "-algorithm", "ed25519", "-out"])
            .arg(&key),
    );
    key
}

/// Runs `clinch-appliance`.
#[track_caller]
pub fn tool(arguments: &[&str]) -> Said {
    let program = std::env::var("CLINCH_APPLIANCE").unwrap_or_else(|_| {
        let beside = binary().with_file_name("clinch-appliance");
        path(&beside)
    });
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
