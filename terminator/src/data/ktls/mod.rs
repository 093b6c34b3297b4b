//! Connections whose records the kernel seals and opens: handing an established connection over to
//! kTLS, and relaying it from then on.
//!
//! A connection is offloaded between two records, once its backend is connected, or not at all: what the
//! kernel cannot take is relayed as every other connection, without a byte lost, and counted by
//! reason. rustls keeps the secrets from which the keys after a key update are made.

mod record;
mod relay;

use rustls::ProtocolVersion;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;

use super::buffers::Chunk;
use super::core::Core;
use super::handshake::Established;
use super::io::send;
use super::session::missing;
use super::watch::Watch;
use crate::observability::counters::Offload;
use crate::sys::ktls::{self, Keys, Suite, Way};
use record::Budget;

pub(super) use relay::relay;

/// A connection whose records the kernel seals.
pub(super) struct Offloaded {
    /// Makes the keys after a key update.
    secrets: KernelConnection<ServerConnectionData>,
    /// Plaintext for the backend that was opened before.
    early: Chunk,
    /// How much the present keys may seal yet.
    budget: Budget,
}

/// A connection that the kernel did not take.
pub(super) enum Kept {
    /// Clinch goes on with it.
    Ours(Box<Established>),
    /// It is over: its keys have left rustls, and the kernel took none.
    Lost,
}

/// Hands a connection over to the kernel, if it takes it. Its backend must be connected.
pub(super) async fn offload(
    core: &Core,
    watch: &Watch,
    mut established: Box<Established>,
) -> Result<Box<Offloaded>, Kept> {
    if let Err(why) = prepare(core, watch, &mut established).await {
        core.counters.offloads.one(why);
        return Err(Kept::Ours(established));
    }
    let Established {
        session,
        mut input,
        mut early,
        ..
    } = *established;
    input.release(&core.buffers);
    let Some((secrets, budget)) = hand_over(watch, session) else {
        early.release(&core.buffers);
        core.counters.offloads.one(Offload::Failed);
        return Err(Kept::Lost);
    };
    core.counters.offloads.one(Offload::Offloaded);
    Ok(Box::new(Offloaded {
        secrets,
        early,
        budget,
    }))
}

/// Brings a connection to where the kernel can take over, and makes its socket ready.
async fn prepare(core: &Core, watch: &Watch, established: &mut Established) -> Result<(), Offload> {
    let negotiated = established.session.negotiated();
    if negotiated.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Err(Offload::Tls12);
    }
    let offer = ktls::offer();
    if let Some(ktls::Lack::Kernel(_)) = offer.lack {
        return Err(Offload::NoKernel);
    }
    let suite = negotiated.negotiated_cipher_suite().map(|s| s.suite());
    if !suite.and_then(Suite::of).is_some_and(|s| offer.has(s)) {
        return Err(Offload::NoCipher);
    }
    reach_boundary(core, watch, established).await?;
    if established.session.is_closed() {
        return Err(Offload::Leaving);
    }
    match ktls::attach(watch.client()) {
        Ok(()) => Ok(()),
        // What a kernel says of a connection that the peer has begun to close.
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => Err(Offload::Leaving),
        Err(_) => Err(Offload::NoKernel),
    }
}

/// Opens what was received of the record that the input ends in the midst of, if the rest is there.
async fn reach_boundary(
    core: &Core,
    watch: &Watch,
    established: &mut Established,
) -> Result<(), Offload> {
    let Established {
        session,
        input,
        early,
        ..
    } = established;
    let mut wanted = missing(input.bytes());
    while !input.is_empty() {
        // Not a byte more, or the next record would be begun.
        let room = &mut input.room(wanted, &core.buffers)[..wanted];
        let n = match watch.client().recv_now(room) {
            Ok(0) => return Err(Offload::Leaving),
            Ok(n) => n,
            Err(_) => return Err(Offload::MidRecord),
        };
        input.filled(n);
        wanted = missing(input.bytes());
        if wanted > 0 {
            continue;
        }
        let mut out = Chunk::default();
        let pumped = session.pump(input, early, &mut out, &core.buffers);
        if !out.is_empty() {
            // A client that is gone will be noticed by whoever has data for it.
            let _ = send(core, watch.client(), &mut out).await;
        }
        if pumped.is_err() {
            return Err(Offload::Leaving);
        }
        break;
    }
    Ok(())
}

/// Moves the keys from rustls into the kernel.
fn hand_over(
    watch: &Watch,
    session: super::session::Session,
) -> Option<(KernelConnection<ServerConnectionData>, Budget)> {
    let (extracted, secrets) = session.into_keys().ok()?;
    let installed = [(Way::Out, &extracted.tx), (Way::In, &extracted.rx)]
        .into_iter()
        .all(|(way, told)| {
            let taken = Keys::of(told).map(|keys| ktls::install(watch.client(), way, &keys));
            if let Some(Err(error)) = &taken {
                tracing::warn!(?way, %error, "the kernel took a connection, but not its keys");
            }
            matches!(taken, Some(Ok(())))
        });
    let suite = secrets.negotiated_cipher_suite();
    let limit = suite.tls13()?.common.confidentiality_limit;
    installed.then(|| (secrets, Budget::new(limit, extracted.tx.0)))
}
