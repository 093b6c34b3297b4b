//! The real programs that clinch is tested with: `openssl`, `gnutls-cli` and `curl`, run as a user
//! would run them.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::PROMPT;

/// What a program said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Exit code; `None`: ended by a signal.
    pub code: Option<i32>,
    /// Standard output and standard error.
    pub text: String,
}

impl Said {
    /// Asserts that `part` is in the text.
    #[track_caller]
    pub fn has(&self, part: &str) -> &Self {
        assert!(self.text.contains(part), "no {part:?} in:\n{}", self.text);
        self
    }

    /// Asserts that `part` is not in the text.
    #[track_caller]
    pub fn lacks(&self, part: &str) -> &Self {
        assert!(!self.text.contains(part), "{part:?} in:\n{}", self.text);
        self
    }
}

/// Whether the machine has a program.
pub fn present(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Runs a program with nothing on its standard input, to its end.
///
/// # Panics
/// When it is not there, or does not end in time.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> Said {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut out = child.stdout.take().expect("piped");
    let mut err = child.stderr.take().expect("piped");
    let errors = std::thread::spawn(move || read_all(&mut err));
    let output = std::thread::spawn(move || read_all(&mut out));
    let code = wait(&mut child, program);
    let mut text = output.join().expect("a reader");
    text.push_str(&errors.join().expect("a reader"));
    Said { code, text }
}

/// `openssl s_client` to an address for a server name, with further arguments (`-status`, …).
#[track_caller]
pub fn openssl_client(address: SocketAddr, name: &str, ca: &Path, more: &[&str]) -> Said {
    let (address, ca) = (address.to_string(), ca.display().to_string());
    let mut arguments = vec!["s_client", "-connect", &address, "-CAfile", &ca];
    arguments.extend(["-servername", name]);
    arguments.extend(more);
    run("openssl", &arguments)
}

/// `gnutls-cli` to an address for a server name. It asks for a staple by itself, and refuses one that
/// does not verify; `-V` shows it.
#[track_caller]
pub fn gnutls_client(address: SocketAddr, name: &str, ca: &Path, more: &[&str]) -> Said {
    let (port, ca) = (address.port().to_string(), ca.display().to_string());
    let (sni, host) = (format!("--sni-hostname={name}"), address.ip().to_string());
    let verify = format!("--verify-hostname={name}");
    let ca = format!("--x509cafile={ca}");
    let mut arguments = vec![&sni[..], &verify, &ca, "--port", &port];
    arguments.extend(more);
    arguments.push(&host);
    run("gnutls-cli", &arguments)
}

/// `curl --cert-status` for a path on a server, the name resolved to the address.
#[track_caller]
pub fn curl(address: SocketAddr, name: &str, ca: &Path, more: &[&str]) -> Said {
    let url = format!("https://{name}:{}/", address.port());
    let resolve = format!("{name}:{}:{}", address.port(), address.ip());
    let ca = ca.display().to_string();
    let mut arguments = vec![
        "-sS",
        "-v",
        "--cert-status",
        "--cacert",
        &ca,
        "--resolve",
        &resolve,
    ];
    arguments.extend(more);
    arguments.push(&url);
    run("curl", &arguments)
}

fn read_all(from: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    // What was read before an error still tells what happened.
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[track_caller]
fn wait(child: &mut Child, program: &str) -> Option<i32> {
    let deadline = Instant::now() + PROMPT;
    loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            return status.code();
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{program} did not end within {PROMPT:?}");
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
