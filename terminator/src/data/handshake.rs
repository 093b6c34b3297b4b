//! From the first byte of a client to an established TLS connection, or to a counted refusal.
//!
//! The ClientHello is read once by clinch itself ([`clinch_hello`]), which chooses the site before
//! rustls sees a byte; what is not TLS never gets that far. A handshake borrows the snapshot between
//! two awaits and takes no lock.

use std::rc::Rc;

use clinch_hello::{Reading, Stranger};
use rustls::{AlertDescription, Error, PeerIncompatible};

use super::buffers::Chunk;
use super::core::Core;
use super::driven::Driven;
use super::io::{Pace, receive, send, send_last};
use super::ready::ReadySite;
use super::session::{Broken, Session};
use super::watch::{Ended, Watch};
use crate::clock;
use crate::observability::counters::{Completed, HandshakeFailure, Stapling};
use crate::snapshot::Choice;

/// An established connection. Handed on in a box: a future keeps room for every argument of every
/// future that it awaits, and this would be there four times as long as a connection lives.
pub(super) struct Established {
    /// The TLS session.
    pub(super) session: Session,
    /// The site that the client gets.
    pub(super) site: Rc<ReadySite>,
    /// Bytes received and not yet worked through.
    pub(super) input: Chunk,
    /// Plaintext that came along with the end of the handshake.
    pub(super) early: Chunk,
    /// The server name, where the backend wants to know it.
    pub(super) name: Option<Box<str>>,
}

/// What the ClientHello asked for and the site it leads to.
struct Chosen {
    site: Rc<ReadySite>,
    name: Option<Box<str>>,
    driven: Driven,
    asked: bool,
}

/// Drives a handshake on `listener`. `input` holds what was received already.
///
/// On failure the client has been sent what the protocol has for it: an alert, or an HTTP response.
pub(super) async fn handshake(
    core: &Core,
    watch: &Watch,
    listener: usize,
    mut input: Chunk,
) -> Result<Box<Established>, HandshakeFailure> {
    let mut received = input.len();
    // A steered connection exists only once its ClientHello is there, and on a busy worker the others
    // have theirs as well when their turn comes.
    let mut pace = Pace::Prompt;
    let chosen = loop {
        match choose(core, listener, &input) {
            Some(Ok(chosen)) => break chosen,
            Some(Err(refusal)) => {
                input.release(&core.buffers);
                return Err(refuse(core, watch, refusal).await);
            }
            None => more(core, watch, &mut input, &mut received, &mut pace).await?,
        }
    };
    establish(core, watch, chosen, input, received).await
}

async fn establish(
    core: &Core,
    watch: &Watch,
    chosen: Chosen,
    mut input: Chunk,
    mut received: usize,
) -> Result<Box<Established>, HandshakeFailure> {
    let Chosen {
        site,
        name,
        mut driven,
        asked,
    } = chosen;
    let mut session = Session::new(site.config.clone()).map_err(|_| HandshakeFailure::Internal)?;
    let (mut early, mut out) = (Chunk::default(), Chunk::default());
    loop {
        let pumped =
            driven.during(|| session.pump(&mut input, &mut early, &mut out, &core.buffers));
        if let Err(broken) = pumped {
            early.release(&core.buffers);
            input.release(&core.buffers);
            let refusal = match driven.refused {
                // rustls says access_denied for every certificate that is not there.
                Some(why) => {
                    out.release(&core.buffers);
                    Refusal {
                        why,
                        say: Say::Alert(alert_for(why)),
                    }
                }
                None => Refusal {
                    why: failure(&broken),
                    say: Say::Bytes(out),
                },
            };
            return Err(refuse(core, watch, refusal).await);
        }
        if !out.is_empty() {
            let sent = send(core, watch.client(), &mut out).await;
            if sent.is_err() {
                input.release(&core.buffers);
                early.release(&core.buffers);
                return Err(vanished(watch));
            }
        }
        if !session.is_handshaking() {
            count(core, &session, &driven, asked);
            return Ok(Box::new(Established {
                session,
                site,
                input,
                early,
                name,
            }));
        }
        let pace = &mut Pace::Single;
        more(core, watch, &mut input, &mut received, pace).await?;
    }
}

/// Receives more of the handshake, within its bounds.
async fn more(
    core: &Core,
    watch: &Watch,
    input: &mut Chunk,
    received: &mut usize,
    pace: &mut Pace,
) -> Result<(), HandshakeFailure> {
    let result = receive(core, watch.client(), input, pace).await;
    let failure = match result {
        Ok(0) | Err(_) => vanished(watch),
        Ok(n) => {
            *received += n;
            if *received <= core.bounds.handshake_bytes {
                return Ok(());
            }
            let refusal = Refusal {
                why: HandshakeFailure::TooLarge,
                say: Say::Alert(AlertDescription::RecordOverflow),
            };
            refuse(core, watch, refusal).await
        }
    };
    input.release(&core.buffers);
    Err(failure)
}

/// Why and how a client is turned away.
struct Refusal {
    why: HandshakeFailure,
    say: Say,
}

enum Say {
    /// A fatal alert in plain text, as no keys are agreed yet.
    Alert(AlertDescription),
    /// These bytes.
    Bytes(Chunk),
    /// An HTTP response to a client that speaks HTTP.
    Http,
    /// Nothing: the client would not understand.
    Nothing,
}

/// Chooses the site once the ClientHello is whole; `None`: receive more.
fn choose(core: &Core, listener: usize, input: &Chunk) -> Option<Result<Chosen, Refusal>> {
    let refuse = |why, say| Some(Err(Refusal { why, say }));
    let mut scratch = core.scratch.borrow_mut();
    let hello = match clinch_hello::read(input.bytes(), &mut scratch) {
        Reading::Incomplete => return None,
        Reading::Complete(hello) => hello,
        Reading::NotTls(Stranger::Http) => return refuse(HandshakeFailure::PlainHttp, Say::Http),
        Reading::NotTls(_) if super::proxy::looks_like_header(input.bytes()) => {
            return refuse(HandshakeFailure::ProxyHeader, Say::Nothing);
        }
        Reading::NotTls(Stranger::Other) => return refuse(HandshakeFailure::NotTls, Say::Nothing),
        Reading::NotTls(Stranger::Sslv2) | Reading::TooOld { .. } => {
            let alert = Say::Alert(AlertDescription::ProtocolVersion);
            return refuse(HandshakeFailure::OldVersion, alert);
        }
        Reading::Malformed(_) => {
            let alert = Say::Alert(AlertDescription::DecodeError);
            return refuse(HandshakeFailure::Malformed, alert);
        }
        Reading::TooLarge(_) => {
            let alert = Say::Alert(AlertDescription::RecordOverflow);
            return refuse(HandshakeFailure::TooLarge, alert);
        }
    };
    let mut lower = [0; 255];
    let raw = hello
        .server_name()
        .filter(|raw| !clinch_hello::is_address(raw));
    let name = raw.map(|raw| clinch_hello::normalise_name(raw, &mut lower));
    let snapshot = core.snapshot.borrow();
    let table = &snapshot.table;
    let choice = match name {
        // Bytes that are no name are the name of no site.
        Some(None) => table.choose(listener, Some("")),
        Some(Some(name)) => table.choose(listener, Some(name)),
        None => table.choose(listener, None),
    };
    let site = match choice {
        Choice::Site(site) => site,
        Choice::Unknown => {
            let alert = Say::Alert(AlertDescription::UnrecognisedName);
            return refuse(HandshakeFailure::UnknownServerName, alert);
        }
        Choice::Unnamed => {
            let alert = Say::Alert(AlertDescription::UnrecognisedName);
            return refuse(HandshakeFailure::NoServerName, alert);
        }
    };
    let asked = hello.asks_for_staple();
    let mut driven = Driven::default();
    let mut ready = core.ready.borrow_mut();
    let site = ready
        .site(&snapshot, listener, site, &core.backends)
        .and_then(|site| {
            ready.candidates(&snapshot, &site, clock::now(), &mut driven.candidates)?;
            Ok(site)
        });
    core.counters
        .ready_certificates
        .set(ready.certificates() as u64);
    match site {
        Ok(site) => {
            let name = name.flatten().filter(|_| site.proxy_protocol.is_some());
            Some(Ok(Chosen {
                name: name.map(Into::into),
                site,
                driven,
                asked,
            }))
        }
        Err(error) => {
            tracing::error!(%error, "a certificate that was checked at load cannot be used");
            refuse(
                HandshakeFailure::Internal,
                Say::Alert(AlertDescription::InternalError),
            )
        }
    }
}

/// Tells the client, as far as it listens, and returns the reason to count.
async fn refuse(core: &Core, watch: &Watch, refusal: Refusal) -> HandshakeFailure {
    let mut out = Chunk::default();
    match refusal.say {
        Say::Alert(alert) => {
            // RFC 8446 section 5.1 and 6: a record of type alert, level fatal.
            out.append(&[21, 3, 3, 0, 2, 2, alert.into()], &core.buffers);
        }
        Say::Bytes(bytes) => out = bytes,
        Say::Http => out.append(HTTP_REFUSAL, &core.buffers),
        Say::Nothing => {}
    }
    if !out.is_empty() && send_last(core, watch.client(), &mut out).await.is_ok() {
        see_off(core, watch).await;
    }
    out.release(&core.buffers);
    refusal.why
}

/// Waits for the client to leave, whose stream was ended, within the time of a handshake: closing a socket with bytes unread
/// would reset the connection, and the refusal might never be read.
async fn see_off(core: &Core, watch: &Watch) {
    let (mut dropped, mut total) = (Chunk::default(), 0);
    while let Ok(n @ 1..) = receive(core, watch.client(), &mut dropped, &mut Pace::Single).await {
        dropped.consume(n);
        total += n;
        if total > core.bounds.handshake_bytes {
            break;
        }
    }
    dropped.release(&core.buffers);
}

/// The client is gone, or was ended.
fn vanished(watch: &Watch) -> HandshakeFailure {
    match watch.ended() {
        Some(Ended::TimedOut | Ended::Drained) => HandshakeFailure::TimedOut,
        None => HandshakeFailure::PeerClosed,
    }
}

fn count(core: &Core, session: &Session, driven: &Driven, asked: bool) {
    let negotiated = session.negotiated();
    let tls13 = negotiated.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
    let resumed = negotiated.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    core.counters.completed.one(match (tls13, resumed) {
        (true, false) => Completed::Tls13Full,
        (true, true) => Completed::Tls13Resumed,
        (false, false) => Completed::Tls12Full,
        (false, true) => Completed::Tls12Resumed,
    });
    if !resumed && let Some((_, stapling)) = driven.served {
        core.counters
            .stapling
            .one(if asked { stapling } else { Stapling::NotAsked });
    }
}

fn alert_for(why: HandshakeFailure) -> AlertDescription {
    match why {
        HandshakeFailure::NothingInCommon => AlertDescription::HandshakeFailure,
        HandshakeFailure::Revoked => AlertDescription::CertificateRevoked,
        // The server cannot do what the certificate promises: its own failing, and not for ever.
        _ => AlertDescription::InternalError,
    }
}

fn failure(broken: &Broken) -> HandshakeFailure {
    let Broken::Tls(error) = broken else {
        return HandshakeFailure::Malformed;
    };
    match error {
        Error::AlertReceived(_) => HandshakeFailure::PeerAlert,
        Error::NoApplicationProtocol => HandshakeFailure::NoApplicationProtocol,
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => HandshakeFailure::OldVersion,
        Error::PeerIncompatible(_) => HandshakeFailure::NothingInCommon,
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::DecryptError
        | Error::PeerSentOversizedRecord => HandshakeFailure::Malformed,
        _ => HandshakeFailure::Internal,
    }
}

/// What a client that speaks HTTP to the TLS port is told.
const HTTP_REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
Content-Type: text/plain\r\n\
Content-Length: 59\r\n\
Connection: close\r\n\
\r\n\
This port speaks TLS. Use https:// instead of http:// here\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_http_refusal_is_as_long_as_it_says() {
        let text = std::str::from_utf8(HTTP_REFUSAL).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
    }
}
