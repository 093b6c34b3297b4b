//! One connection from its arrival to its end, with the times of its steps.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rustls::client::{ClientConfig, Resumption};
use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use crate::Failure;
use crate::failure::Stage;
use crate::judge::Judge;
use crate::plan::{Plan, Revocation, Version, Work};
use crate::record::{Live, Phase};
use crate::responder::Asker;
use crate::session::Session;
use crate::tickets::Tickets;

/// What the connections of one thread share.
pub(crate) struct Visitor {
    pub(crate) plan: Plan,
    config: Arc<ClientConfig>,
    pub(crate) judge: Arc<Judge>,
    pub(crate) tickets: Arc<Tickets>,
    asker: Option<Asker>,
    next: Cell<usize>,
    /// Idle connections are opened a few at a time: a server's queue of new ones is short.
    opening: Semaphore,
}

/// What one connection brought to light.
#[derive(Default)]
pub(crate) struct Visit {
    pub(crate) phases: Vec<(Phase, Duration)>,
    pub(crate) resumed: bool,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    /// How far it came.
    pub(crate) stage: Option<Stage>,
}

impl Visitor {
    pub(crate) fn new(plan: &Plan) -> anyhow::Result<Self> {
        let provider = plan.provider();
        let judge = Arc::new(Judge::new(plan, Arc::clone(&provider))?);
        let versions = match plan.version {
            Version::Tls12 => [&rustls::version::TLS12],
            Version::Tls13 => [&rustls::version::TLS13],
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&judge) as _)
            .with_no_client_auth();
        let tickets = Arc::new(Tickets::default());
        config.resumption = if plan.resume {
            Resumption::store(Arc::clone(&tickets) as _)
        } else {
            Resumption::disabled()
        };
        Ok(Self {
            asker: match plan.revocation {
                Revocation::Client(resolver) => Some(Asker::new(resolver, plan.check)),
                _ => None,
            },
            plan: plan.clone(),
            config: Arc::new(config),
            judge,
            tickets,
            next: Cell::new(0),
            opening: Semaphore::new(OPENING),
        })
    }

    /// Makes full handshakes until there are enough tickets for `connections` at once.
    pub(crate) async fn stock_up(&self, connections: usize) -> Result<(), Failure> {
        self.tickets.stocking(true);
        let stocked = self.collect(connections).await;
        self.tickets.stocking(false);
        stocked
    }

    async fn collect(&self, connections: usize) -> Result<(), Failure> {
        let names = self.plan.names.len();
        for _ in 0..(connections + 2) * names {
            if self.tickets.stock() > connections {
                return Ok(());
            }
            let mut buffer = vec![0; BUFFER];
            let (name, source) = self.turn();
            let stream = self.connect(source).await?;
            let mut session = Session::new(stream, &self.config, name, None)?;
            session.handshake(&mut buffer).await?;
            session.close(&mut buffer).await;
        }
        match self.tickets.stock() {
            0 => Err(Failure::NotResumed),
            _ => Ok(()),
        }
    }

    /// One connection that was due at `due`. What it measured before it failed is in `visit`.
    pub(crate) async fn visit(
        &self,
        due: Instant,
        visit: &mut Visit,
        buffer: &mut [u8],
        live: &Live,
    ) -> Result<(), Failure> {
        let idle = self.plan.work == Work::Idle;
        let place = if idle {
            self.opening.acquire().await.ok()
        } else {
            None
        };
        let started = Instant::now();
        let due = if idle { started } else { due };
        visit.phases.push((Phase::Late, started - due));
        let (name, source) = self.turn();
        visit.stage = Some(Stage::Connect);
        let stream = self.connect(source).await?;
        let connected = Instant::now();
        visit.phases.push((Phase::Connect, connected - started));

        visit.stage = Some(Stage::Handshake);
        let trickle = match self.plan.work {
            Work::Slow { piece, pause } => Some((piece, pause)),
            _ => None,
        };
        let host = name.to_str().into_owned();
        let mut session = Session::new(stream, &self.config, name, trickle)?;
        session.handshake(buffer).await?;
        let established = Instant::now();
        visit.resumed = session.is_resumed();
        if self.plan.resume && !visit.resumed {
            session.close(buffer).await;
            return Err(Failure::NotResumed);
        }
        visit
            .phases
            .push((Phase::Handshake, established - connected));
        if let Some(asker) = self.asker.as_ref().filter(|_| !visit.resumed) {
            visit.stage = Some(Stage::Responder);
            asker.ask(session.chain()).await?;
            visit
                .phases
                .push((Phase::Revocation, established.elapsed()));
        }
        visit.phases.push((Phase::Ready, due.elapsed()));
        live.ready.fetch_add(1, Relaxed);
        drop(place);

        match &self.plan.work {
            Work::Handshake => {}
            Work::Idle => return self.idle(session, visit, buffer, live).await,
            Work::Slow { .. } => {
                self.request(&mut session, &host, "/", 0, visit, buffer)
                    .await?
            }
            Work::Request { path, upload } => {
                self.request(&mut session, &host, path, *upload, visit, buffer)
                    .await?;
            }
        }
        visit.phases.push((Phase::Whole, due.elapsed()));
        session.close(buffer).await;
        Ok(())
    }

    /// Name and local address of the next connection.
    fn turn(&self) -> (ServerName<'static>, Option<IpAddr>) {
        let turn = self.next.get();
        self.next.set(turn.wrapping_add(1));
        let (names, sources) = (&self.plan.names, &self.plan.sources);
        let source = sources.get(turn % sources.len().max(1)).copied();
        (names[turn % names.len()].clone(), source)
    }

    async fn connect(&self, source: Option<IpAddr>) -> Result<TcpStream, Failure> {
        let failed = |error: std::io::Error| Failure::Connect(error.kind());
        let address = self.plan.address;
        let stream = match source {
            None => TcpStream::connect(address).await,
            Some(source) => {
                let socket = match address {
                    SocketAddr::V4(_) => TcpSocket::new_v4(),
                    SocketAddr::V6(_) => TcpSocket::new_v6(),
                };
                let socket = socket.map_err(failed)?;
                // Free ports may be on their way out; the kernel sorts it out per connection.
                socket.set_reuseaddr(true).map_err(failed)?;
                socket.bind((source, 0).into()).map_err(failed)?;
                socket.connect(address).await
            }
        }
        .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(stream)
    }

    async fn request(
        &self,
        session: &mut Session,
        host: &str,
        path: &str,
        upload: u64,
        visit: &mut Visit,
        buffer: &mut [u8],
    ) -> Result<(), Failure> {
        visit.stage = Some(Stage::Request);
        let asked = Instant::now();
        let (method, body) = match upload {
            0 => ("GET", String::new()),
            n => ("POST", format!("Content-Length: {n}\r\n")),
        };
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{body}\r\n");
        session.send(head.as_bytes()).await?;
        let part = [b'x'; BUFFER];
        let mut left = upload;
        while left > 0 {
            let n = left.min(part.len() as u64);
            session.send(&part[..n as usize]).await?;
            visit.bytes_up += n;
            left -= n;
        }
        let mut answer = Answer::default();
        let mut plain = Vec::new();
        while !answer.is_whole() {
            plain.clear();
            let read = session.read(buffer, &mut plain, Stage::Request).await?;
            if read.bytes > 0 && !answer.begun {
                answer.begun = true;
                visit.phases.push((Phase::FirstByte, asked.elapsed()));
            }
            visit.bytes_down += answer.take(&plain)?;
            if read.ended {
                answer.end()?;
                break;
            }
        }
        Ok(())
    }

    /// Stays until the run is over.
    async fn idle(
        &self,
        mut session: Session,
        visit: &mut Visit,
        buffer: &mut [u8],
        live: &Live,
    ) -> Result<(), Failure> {
        visit.stage = Some(Stage::Idle);
        let mut plain = Vec::new();
        loop {
            tokio::select! {
                () = live.over() => break,
                read = session.read(buffer, &mut plain, Stage::Idle) => {
                    if read?.ended {
                        return Err(Failure::Closed(Stage::Idle));
                    }
                    plain.clear();
                }
            }
        }
        session.close(buffer).await;
        Ok(())
    }
}

/// How much of an answer is there.
#[derive(Default)]
struct Answer {
    begun: bool,
    head: Vec<u8>,
    /// Bytes of the body to come; `None` until the head is read, or where the end ends it.
    left: Option<u64>,
    read_head: bool,
}

impl Answer {
    fn is_whole(&self) -> bool {
        self.left == Some(0)
    }

    /// Takes plaintext, says how much of it was body.
    fn take(&mut self, plain: &[u8]) -> Result<u64, Failure> {
        let mut body = plain.len() as u64;
        if !self.read_head {
            self.head.extend_from_slice(plain);
            let Some(at) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else {
                return match self.head.len() > MOST_HEAD {
                    true => Err(Failure::Answer("a head without an end".to_owned())),
                    false => Ok(0),
                };
            };
            self.read_head = true;
            body = (self.head.len() - at - 4) as u64;
            let head = String::from_utf8_lossy(&self.head[..at]).to_ascii_lowercase();
            self.left = length(&head)?;
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(body);
        }
        Ok(body)
    }

    fn end(&self) -> Result<(), Failure> {
        match self.left {
            Some(0) => Ok(()),
            None if self.read_head => Ok(()),
            _ => Err(Failure::Closed(Stage::Request)),
        }
    }
}

/// Length of the body that a head announces; `None`: up to the end.
fn length(head: &str) -> Result<Option<u64>, Failure> {
    let status = head
        .split(' ')
        .nth(1)
        .filter(|_| head.starts_with("http/1."));
    match status.and_then(|status| status.parse::<u16>().ok()) {
        Some(200..300) => {}
        Some(status) => return Err(Failure::Answer(format!("status {status}"))),
        None => return Err(Failure::Answer("not HTTP/1".to_owned())),
    }
    let value = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    Ok(value.and_then(|value| value.trim().parse().ok()))
}

/// Bytes read at once; bulk wants many, idle connections few.
pub(crate) const BUFFER: usize = 16 * 1024;

/// Idle connections being opened at once, by each thread.
const OPENING: usize = 64;

/// Longest head of an answer, bytes.
const MOST_HEAD: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_at_its_length_or_at_the_end() {
        let mut known = Answer::default();
        assert_eq!(
            known.take(b"HTTP/1.1 200 OK\r\nContent-Le").expect("200"),
            0
        );
        assert_eq!(known.take(b"ngth: 5\r\n\r\nab").expect("200"), 2);
        assert!(!known.is_whole() && known.end().is_err());
        assert_eq!(known.take(b"cde").expect("200"), 3);
        assert!(known.is_whole());

        let mut open = Answer::default();
        open.take(b"HTTP/1.0 200 OK\r\n\r\nabc").expect("200");
        assert!(!open.is_whole() && open.end().is_ok());
    }

    #[test]
    fn an_answer_that_is_not_200_fails_under_its_status() {
        let refused = Answer::default().take(b"HTTP/1.1 502 Bad Gateway\r\n\r\n");
        assert_eq!(refused.expect_err("502").to_string(), "answer: status 502");
        assert!(Answer::default().take(b"SSH-2.0-x\r\n\r\n").is_err());
    }
}
