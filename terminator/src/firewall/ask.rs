//! How control asks the keeper of the rules to open addresses, before egress connects to them.
//!
//! One line of JSON each way over a unix socket, one question a connection. Whoever listens must not
//! believe the question (see [`super::Book`]); [`Gate`] is control's end, and [`attend`] what control
//! does with it. A keeper that is being restarted is waited for.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};

use crate::egress::Pending;
use crate::limits::{FIREWALL_ASK_TIME, FIREWALL_CONNECTIONS, FIREWALL_LINE_BYTES};

/// Please open these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    /// The host, as the URL names it.
    pub(super) host: String,
    /// TCP port.
    pub(super) port: u16,
    /// What the host was found to be.
    pub(super) addresses: Vec<IpAddr>,
    /// How long that holds, seconds.
    pub(super) ttl: u64,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    /// These are open.
    Open(Vec<IpAddr>),
    /// None is, and why.
    Refused(String),
}

/// Asks the keeper of the rules.
#[derive(Clone, Debug)]
pub struct Gate {
    path: PathBuf,
}

/// Why nothing was opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// The keeper decided so.
    #[error("the firewall does not open {host}: {reason}")]
    Refused {
        /// Host and port.
        host: String,
        /// Its sentence.
        reason: String,
    },
    /// Nobody is there, or no answer came.
    #[error(
        "`clinch firewall apply` cannot be asked at {} ({reason}); is clinch-firewall.service running?", .path.display()
    )]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
}

impl Gate {
    /// Over this socket.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Has addresses of a host opened, which hold for `ttl`. Gives those that may be connected to.
    /// Ends within [`FIREWALL_ASK_TIME`].
    pub async fn open(
        &self,
        host: &str,
        port: u16,
        addresses: &[IpAddr],
        ttl: Duration,
    ) -> Result<Vec<IpAddr>, GateError> {
        let question = Question {
            host: host.to_owned(),
            port,
            addresses: addresses.to_vec(),
            ttl: ttl.as_secs(),
        };
        let talk = async {
            let mut stream = self.connect().await?;
            send(&mut stream, &question).await?;
            receive::<Reply>(&mut stream).await
        };
        let unreachable = |reason: String| GateError::Unreachable {
            path: self.path.clone(),
            reason,
        };
        match timeout(FIREWALL_ASK_TIME, talk).await {
            Ok(Ok(Reply::Open(addresses))) => Ok(addresses),
            Ok(Ok(Reply::Refused(reason))) => Err(GateError::Refused {
                host: format!("{host}:{port}"),
                reason,
            }),
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Err(_) => Err(unreachable(format!("no answer in {FIREWALL_ASK_TIME:?}"))),
        }
    }

    /// Where nobody listens, somebody may soon: the keeper is restarted when it dies.
    async fn connect(&self) -> io::Result<UnixStream> {
        let patience = Instant::now() + FIREWALL_ASK_TIME / 2;
        loop {
            match UnixStream::connect(&self.path).await {
                Err(error) if is_absence(&error) && Instant::now() < patience => {
                    sleep(RETRY).await;
                }
                ended => return ended,
            }
        }
    }
}

/// Has every address opened that egress wants to connect to, and lets it connect when that is done.
/// Returns when egress asks no more.
pub async fn attend(gate: Gate, mut pending: mpsc::Receiver<Pending>) {
    let room = Arc::new(Semaphore::new(FIREWALL_CONNECTIONS));
    while let Some(pending) = pending.recv().await {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let gate = gate.clone();
        tokio::spawn(async move {
            let to = &pending.destination;
            // Where DNS does not say how long it holds, the hold alone is what a fetch has.
            let ttl = to.ttl.unwrap_or_default();
            match gate.open(&to.host, to.port, &to.addresses, ttl).await {
                // Of several, those that stay shut fail, and the next one is tried beside them.
                Ok(_) => pending.admit(),
                Err(error) => pending.refuse(error.to_string()),
            }
            drop(place);
        });
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// Writes one line.
pub(super) async fn send<T: Serialize>(stream: &mut UnixStream, message: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

/// Reads one line, of a bounded length.
pub(super) async fn receive<T: for<'de> Deserialize<'de>>(
    stream: &mut UnixStream,
) -> io::Result<T> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream.take(FIREWALL_LINE_BYTES));
    reader.read_until(b'\n', &mut line).await?;
    if !line.ends_with(b"\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}

/// Between two attempts to reach a keeper that is not there.
const RETRY: Duration = Duration::from_millis(50);
