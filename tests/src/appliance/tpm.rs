//! A TPM 2.0 for a machine: swtpm, whose state lasts as long as its folder.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::path;
use crate::{PROMPT, eventually};

/// A running swtpm; it ends when the machine that uses it does, or when this is dropped.
#[derive(Debug)]
pub struct Tpm {
    process: Child,
    socket: PathBuf,
}

impl Tpm {
    /// Starts one with the state of a folder, which is made where there is none: a new TPM.
    pub fn start(state: &Path) -> Self {
        std::fs::create_dir_all(state).expect("in our own directory");
        let socket = state.join("socket");
        let _ = std::fs::remove_file(&socket);
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--tpmstate"])
            .arg(format!("dir={}", state.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("swtpm: {error}"));
        eventually("swtpm listens", PROMPT, || socket.exists().then_some(()));
        Self { process, socket }
    }

    /// QEMU's arguments for a machine that has it, behind this interface (`tpm-tis`, `tpm-crb`).
    pub fn devices(&self, interface: &str) -> Vec<String> {
        let socket = path(&self.socket);
        [
            "-chardev",
            &format!("socket,id=tpm-socket,path={socket}"),
            "-tpmdev",
            "emulator,id=tpm0,chardev=tpm-socket",
            "-device",
            &format!("{interface},tpmdev=tpm0"),
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
