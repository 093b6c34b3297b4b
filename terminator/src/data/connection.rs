//! One client connection from accept to its end.

#![expect(
    clippy::manual_async_fn,
    reason = "an async fn holds what it is given twice"
)]

use std::net::SocketAddr;
use std::time::Instant;

use super::backend;
use super::buffers::Chunk;
use super::core::{Core, Place};
use super::handover;
use super::handshake::{Established, handshake};
use super::io::{Pace, receive};
use super::ktls::{self, Kept};
use super::proxy::{self, Facts, Reading};
use super::relay::{relay, turn_away};
use super::watch::Watch;
use crate::observability::counters::{AcceptFailure, HandshakeFailure, RelayEnd};

/// Who is connected to whom.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    client: SocketAddr,
    /// The address the client connected to, where a proxy before us told it.
    local: Option<SocketAddr>,
}

/// Serves one connection accepted on `listener` from `peer`.
pub(super) fn serve(place: Place, listener: usize, peer: SocketAddr) -> impl Future<Output = ()> {
    async move {
        // Boxed, so that a connection does not carry the room for its way in until its end.
        if let Some(established) = Box::pin(enter(&place, listener, peer)).await {
            let core = place.core();
            let end = pass_on(core, place.watch(), established).await;
            core.counters.relay_ends.one(end);
        }
    }
}

/// Serves a connection that another worker has handed over, with the bytes that it read.
pub(super) fn serve_handed(
    place: Place,
    accepted: Instant,
    listener: usize,
    ends: Ends,
    input: Chunk,
) -> impl Future<Output = ()> {
    async move {
        let entered = Box::pin(establish(&place, accepted, listener, ends, input));
        if let Some(established) = entered.await {
            let core = place.core();
            let end = pass_on(core, place.watch(), established).await;
            core.counters.relay_ends.one(end);
        }
    }
}

/// From the accept to an established connection, unless it ends or goes to another worker before.
async fn enter(place: &Place, listener: usize, peer: SocketAddr) -> Option<Box<Established>> {
    let accepted = Instant::now();
    let (core, watch) = (&**place.core(), place.watch());
    let mut input = Chunk::default();
    let ends = match introduce(core, watch, listener, peer, &mut input).await {
        Ok(ends) => ends,
        Err(why) => {
            input.release(&core.buffers);
            core.counters.handshake_failures.one(why);
            return None;
        }
    };
    if !handover::keep(core, watch, listener, &ends, accepted, &mut input).await {
        return None;
    }
    establish(place, accepted, listener, ends, input).await
}

/// The handshake of a connection that this worker keeps, or has taken over.
async fn establish(
    place: &Place,
    accepted: Instant,
    listener: usize,
    ends: Ends,
    mut input: Chunk,
) -> Option<Box<Established>> {
    let (core, watch) = (&**place.core(), place.watch());
    if !place.belongs_to(ends.client.ip().to_canonical()) {
        input.release(&core.buffers);
        core.counters
            .accept_failures
            .one(AcceptFailure::ClientLimit);
        return None;
    }
    match handshake(core, watch, listener, input).await {
        Ok(mut established) => {
            place.handshake_over();
            core.counters.handshake_time.record(accepted.elapsed());
            introduce_to_backend(core, watch, &mut established, &ends);
            Some(established)
        }
        Err(why) => {
            tracing::debug!(client = %ends.client, reason = ?why, "handshake failed");
            core.counters.handshake_failures.one(why);
            None
        }
    }
}

/// Reads the PROXY header of a source that must send one.
async fn introduce(
    core: &Core,
    watch: &Watch,
    listener: usize,
    peer: SocketAddr,
    input: &mut Chunk,
) -> Result<Ends, HandshakeFailure> {
    let direct = Ends {
        client: peer,
        local: None,
    };
    if !is_trusted(core, listener, peer) {
        return Ok(direct);
    }
    loop {
        match proxy::read(input.bytes()) {
            Reading::Header { len, addresses } => {
                input.consume(len);
                return Ok(addresses.map_or(direct, |(client, local)| Ends {
                    client,
                    local: Some(local),
                }));
            }
            Reading::Bad => return Err(HandshakeFailure::ProxyHeader),
            Reading::Incomplete if input.len() > core.bounds.handshake_bytes => {
                return Err(HandshakeFailure::TooLarge);
            }
            Reading::Incomplete => {}
        }
        match receive(core, watch.client(), input, &mut Pace::Single).await {
            Ok(1..) => {}
            Ok(0) | Err(_) if watch.ended().is_some() => return Err(HandshakeFailure::TimedOut),
            Ok(0) | Err(_) => return Err(HandshakeFailure::PeerClosed),
        }
    }
}

fn is_trusted(core: &Core, listener: usize, peer: SocketAddr) -> bool {
    let snapshot = core.snapshot.borrow();
    let trusted = &snapshot.table.listeners[listener].proxy_from;
    !trusted.is_empty() && {
        let peer = peer.ip().to_canonical();
        trusted.iter().any(|net| net.contains(&peer))
    }
}

/// Puts the PROXY header before what goes to the backend, if the site's backends want one.
fn introduce_to_backend(core: &Core, watch: &Watch, established: &mut Established, ends: &Ends) {
    let Some(header) = header(core, watch, established, ends) else {
        return;
    };
    let mut behind = std::mem::take(&mut established.early);
    established.early.append(&header, &core.buffers);
    established.early.append(behind.bytes(), &core.buffers);
    behind.release(&core.buffers);
}

/// Connects to a backend and relays.
fn pass_on(
    core: &Core,
    watch: &Watch,
    mut established: Box<Established>,
) -> impl Future<Output = RelayEnd> {
    async move {
        let waiting = !established.early.is_empty();
        let Some(backend) = backend::connect(core, watch, &established.site, waiting).await else {
            established.input.release(&core.buffers);
            established.early.release(&core.buffers);
            return Box::pin(turn_away(core, watch, established.session)).await;
        };
        // Boxed: only connections that the kernel seals have room for that.
        if established.site.config.enable_secret_extraction {
            match Box::pin(ktls::offload(core, watch, established)).await {
                Ok(offloaded) => {
                    return Box::pin(ktls::relay(core, watch, offloaded, &backend.socket)).await;
                }
                Err(Kept::Ours(ours)) => established = ours,
                Err(Kept::Lost) => return RelayEnd::Ktls,
            }
        }
        relay(core, watch, &mut established, &backend.socket).await
    }
}

/// The PROXY header that the site's backends want, if they want one.
fn header(core: &Core, watch: &Watch, established: &Established, ends: &Ends) -> Option<Vec<u8>> {
    let version = established.site.proxy_protocol?;
    let local = ends.local.or_else(|| watch.client().local_address().ok());
    let negotiated = established.session.negotiated();
    let tls13 = negotiated.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
    let cipher = negotiated
        .negotiated_cipher_suite()
        .map_or("", |suite| suite.suite().as_str().unwrap_or(""));
    let id = format!("{}-{:x}", core.index, core.counters.accepted.value());
    Some(proxy::header(
        version,
        &Facts {
            client: ends.client,
            local: local.unwrap_or(ends.client),
            name: established.name.as_deref(),
            alpn: negotiated.alpn_protocol(),
            version: if tls13 { "TLSv1.3" } else { "TLSv1.2" },
            cipher,
            id: id.as_bytes(),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every open connection holds for its task. With what tokio puts around it, it fills a block of
    /// 1,024 bytes; the allocator's next size is 1,280.
    #[test]
    fn the_task_of_a_connection_is_small() {
        fn size<F>(_: impl Fn(Place, usize, SocketAddr) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(serve) <= 896, "{} bytes", size(serve));
    }
}
