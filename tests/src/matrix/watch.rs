//! What clients see of a server, from its first handshake to the first right staple after the fault.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use clinch::cli::demo::authority::{Authority, Issued};
use clinch::ocsp::{self, Policy, Refusal, RefusalKind};
use serde::{Deserialize, Serialize};

use super::servers::Running;
use crate::client::Client;

/// What a client saw in one handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// The staple verifies for this certificate now.
    Right,
    /// No staple.
    None,
    /// A staple that no client can use, with the reason in a word or two.
    Wrong(String),
    /// No handshake.
    Refused,
}

/// What was seen under one fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// In the order in which they were first seen, while the fault was on.
    pub seen: Vec<Seen>,
    /// The longest handshake while the fault was on, if it was longer than [`STALL`].
    pub stall: Option<Duration>,
    /// From the end of the fault to the first right staple; `None`: not within the bound.
    pub recovery: Option<Duration>,
}

/// Visits one server.
pub struct Watch<'a> {
    address: SocketAddr,
    site: &'a str,
    authority: &'a Authority,
    issued: &'a Issued,
    cell: Cell,
}

impl<'a> Watch<'a> {
    /// Of a server at an address.
    pub fn new(
        address: SocketAddr,
        site: &'a str,
        authority: &'a Authority,
        issued: &'a Issued,
    ) -> Self {
        let cell = Cell {
            seen: Vec::new(),
            stall: None,
            recovery: None,
        };
        Self {
            address,
            site,
            authority,
            issued,
            cell,
        }
    }

    /// Waits until it takes connections.
    ///
    /// # Panics
    /// When it ends, or does not listen for a long time; its log is in the message.
    pub fn until_listening(&self, running: &mut Running) {
        let deadline = Instant::now() + START;
        while TcpStream::connect(self.address).is_err() {
            running.assert_alive();
            assert!(
                Instant::now() < deadline,
                "it does not listen:\n{}",
                running.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Visits it while the fault is on.
    pub fn fault(&mut self, length: Duration) {
        let end = Instant::now() + length;
        while Instant::now() < end {
            let begun = Instant::now();
            let seen = self.visit();
            let took = begun.elapsed();
            if took > STALL && self.cell.stall.is_none_or(|longest| took > longest) {
                self.cell.stall = Some(took);
            }
            if !self.cell.seen.contains(&seen) {
                self.cell.seen.push(seen);
            }
            rest(begun);
        }
    }

    /// Visits it until the staple is right.
    pub fn recovery(&mut self, bound: Duration) {
        let good = Instant::now();
        while good.elapsed() < bound {
            let begun = Instant::now();
            if self.visit() == Seen::Right {
                self.cell.recovery = Some(good.elapsed());
                return;
            }
            rest(begun);
        }
    }

    /// What was seen.
    pub fn cell(self) -> Cell {
        self.cell
    }

    /// A handshake by a client that was never here.
    fn visit(&self) -> Seen {
        let client = Client::new(self.authority.root());
        match client.connect(self.address, self.site) {
            Ok(session) => session
                .staple
                .map_or(Seen::None, |staple| self.judge(&staple)),
            Err(error) => {
                let late = matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                );
                // The time that it took tells the rest.
                if late { Seen::None } else { Seen::Refused }
            }
        }
    }

    fn judge(&self, staple: &[u8]) -> Seen {
        let Issued { leaf, issuer, .. } = self.issued;
        let verdict = ocsp::verify(staple, leaf, issuer, &Policy::default(), SystemTime::now());
        match verdict {
            Ok(_) => Seen::Right,
            Err(refusal) => Seen::Wrong(reason(&refusal).to_owned()),
        }
    }
}

fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Revoked { .. } => "revoked",
        Refusal::Unknown => "unknown",
        Refusal::NotYetValid { .. } => "not yet valid",
        Refusal::Expired { .. } => "expired",
        Refusal::TooOld { .. } => "too old",
        Refusal::Reversed { .. } => "nextUpdate before thisUpdate",
        Refusal::ImplausibleProducedAt { .. } => "from the future",
        Refusal::Signature(_) => "bad signature",
        Refusal::CriticalExtension { .. } => "unknown critical extension",
        Refusal::NoAnswer { .. } => "another certificate's",
        Refusal::Unsuccessful(_) => "an error as staple",
        other => match other.kind() {
            RefusalKind::Authority => "signer not authorised",
            _ => "unreadable",
        },
    }
}

fn rest(begun: Instant) {
    std::thread::sleep(PERIOD.saturating_sub(begun.elapsed()));
}

/// From one visit to the next.
const PERIOD: Duration = Duration::from_millis(700);

/// A handshake that takes longer was stalled. They take milliseconds; the machine may be busy.
pub const STALL: Duration = Duration::from_secs(2);

/// For a server to listen.
const START: Duration = Duration::from_secs(30);
