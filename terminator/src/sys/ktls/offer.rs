//! What kTLS of this kernel can do, found by doing it once: on connections of our own, with keys that
//! are no secret.
//!
//! That a socket can be attached proves nothing, as ciphers are modules of their own; so a record goes
//! through each. Finding out loads the modules where the process may (`tls` needs CAP_NET_ADMIN), so it
//! is best done before privileges are given up. It is done once in the life of a process.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::{DATA, Keys, Received, Suite, Way, attach, install, receive};

/// What this kernel can do.
#[derive(Debug)]
pub struct Offer {
    /// What it lacks of what clinch would use, if anything.
    pub lack: Option<Lack>,
    /// Keys can be exchanged on a connection (since Linux 6.14), so that key updates can be followed.
    pub rekeys: bool,
    suites: Vec<Suite>,
}

/// What the kernel lacks.
#[derive(Debug, thiserror::Error)]
pub enum Lack {
    /// kTLS as a whole.
    #[error(
        "this kernel offers no kTLS ({0}), so clinch seals all records itself; have the module `tls` loaded before clinch starts (modules-load.d), or use a kernel with CONFIG_TLS"
    )]
    Kernel(io::Error),
    /// Some ciphers.
    #[error(
        "kTLS of this kernel lacks {}, so clinch seals such connections itself; have the modules `gcm` and `chacha20poly1305` loaded before clinch starts (modules-load.d)",
        listed(.0)
    )]
    Suites(Vec<Suite>),
}

/// What this kernel can do. The first call finds out, in some milliseconds.
pub fn offer() -> &'static Offer {
    OFFER.get_or_init(Offer::find)
}

/// What was found, if anybody has asked.
pub fn known() -> Option<&'static Offer> {
    OFFER.get()
}

impl Offer {
    /// Whether the kernel seals and opens records of this suite.
    pub fn has(&self, suite: Suite) -> bool {
        self.suites.contains(&suite)
    }

    /// What there is, in words for an operator.
    pub fn summary(&self) -> String {
        match (&self.lack, self.rekeys) {
            (Some(Lack::Kernel(error)), _) => format!("not in this kernel ({error})"),
            (_, true) => format!("{}; key updates", listed(&self.suites)),
            (_, false) => format!("{}; no key updates", listed(&self.suites)),
        }
    }

    fn find() -> Self {
        let (mut suites, mut missing, mut rekeys) = (Vec::new(), Vec::new(), true);
        for suite in Suite::ALL {
            match attempt(suite) {
                Ok(changes_keys) => {
                    suites.push(suite);
                    rekeys &= changes_keys;
                }
                Err(Missing::Suite) => missing.push(suite),
                Err(Missing::Ktls(error)) => {
                    return Self {
                        lack: Some(Lack::Kernel(error)),
                        rekeys: false,
                        suites: Vec::new(),
                    };
                }
            }
        }
        Self {
            lack: (!missing.is_empty()).then_some(Lack::Suites(missing)),
            rekeys: rekeys && !suites.is_empty(),
            suites,
        }
    }
}

/// What an attempt found missing.
enum Missing {
    Ktls(io::Error),
    Suite,
}

/// Sends a record through the kernel and back. Says whether keys can be exchanged afterwards.
fn attempt(suite: Suite) -> Result<bool, Missing> {
    let (mut here, there) = pair().map_err(Missing::Ktls)?;
    for end in [&here, &there] {
        attach(end).map_err(Missing::Ktls)?;
    }
    let key = &[1; 32][..match suite {
        Suite::Aes128Gcm => 16,
        Suite::Aes256Gcm | Suite::Chacha20Poly1305 => 32,
    }];
    let keys = Keys::new(suite, 0, key, &[2; 12]);
    let passed = install(&here, Way::Out, &keys)
        .and_then(|()| install(&there, Way::In, &keys))
        .and_then(|()| here.write_all(PROBE))
        .and_then(|()| arrived(&there));
    match passed {
        Ok(true) => Ok(install(&here, Way::Out, &keys).is_ok()),
        Ok(false) | Err(_) => Err(Missing::Suite),
    }
}

fn arrived(there: &TcpStream) -> io::Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    let mut got = [0; PROBE.len() + 1];
    loop {
        match receive(there, &mut got) {
            Ok(Received::Bytes(n, DATA)) => return Ok(&got[..n] == PROBE),
            Ok(_) => return Ok(false),
            // A kernel may decrypt a little later.
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Two ends of a connection on this machine.
pub(super) fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let here = TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE)?;
    // Whoever else connects here first gets nothing, and we no kTLS.
    let (there, from) = listener.accept()?;
    match from == here.local_addr()? {
        true => Ok((here, there)),
        false => Err(io::Error::other("a stranger on the loopback interface")),
    }
}

fn listed(suites: &[Suite]) -> String {
    let words: Vec<&str> = suites.iter().map(|suite| suite.word()).collect();
    words.join(", ")
}

static OFFER: OnceLock<Offer> = OnceLock::new();

const PROBE: &[u8] = b"clinch";

/// How long a loopback connection may take.
const PATIENCE: Duration = Duration::from_secs(1);
