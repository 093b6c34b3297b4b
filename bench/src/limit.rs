//! The least a full handshake can cost: the server's side of a rustls handshake between two buffers.
//!
//! Many handshakes go through each step together, so that the clock is read twice per step and not
//! twice per handshake, and the client's share stays out of the sum.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::time::ClockId;
use rustls::server::{ServerConfig, ServerConnection};
use rustls::{HandshakeKind, NamedGroup};

use crate::client::{Client, Suite, provider};
use crate::pki::Site;

/// A server configuration of one site for in-memory handshakes, without tickets.
pub fn server(site: &Site, staple: bool, group: NamedGroup) -> Result<Arc<ServerConfig>> {
    let response = if staple {
        site.staple.clone()
    } else {
        Vec::new()
    };
    let provider = Arc::new(provider(Suite::Aes128Gcm, group)?);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert_with_ocsp(site.chain.clone(), site.private_key()?, response)?;
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The same with a ticket for each handshake, with which it can be resumed.
pub fn with_tickets(site: &Site, group: NamedGroup) -> Result<Arc<ServerConfig>> {
    let mut config = server(site, true, group)?;
    let own = Arc::make_mut(&mut config);
    own.send_tls13_tickets = 1;
    own.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

/// Full handshakes that give a client as many tickets as it takes to resume from then on.
pub fn stock_with_tickets(config: &Arc<ServerConfig>, client: &Client) -> Result<()> {
    batch_time(config, client, BATCH, HandshakeKind::Full)?;
    Ok(())
}

/// CPU time of the calling thread on the server's side of `count` handshakes, all of this kind.
pub fn server_time(
    config: &Arc<ServerConfig>,
    client: &Client,
    count: u32,
    kind: HandshakeKind,
) -> Result<Duration> {
    let mut spent = Duration::ZERO;
    let mut left = count;
    while left > 0 {
        let batch = left.min(BATCH);
        spent += batch_time(config, client, batch, kind)?;
        left -= batch;
    }
    Ok(spent)
}

fn batch_time(
    config: &Arc<ServerConfig>,
    client: &Client,
    count: u32,
    kind: HandshakeKind,
) -> Result<Duration> {
    let mut clients = Vec::new();
    let mut hellos = Vec::new();
    for _ in 0..count {
        let mut connection = client.connection()?;
        let mut hello = Vec::with_capacity(4096);
        connection.write_tls(&mut hello)?;
        clients.push(connection);
        hellos.push(hello);
    }

    let started = thread_cpu();
    let mut servers = Vec::with_capacity(hellos.len());
    for hello in &hellos {
        let mut connection = ServerConnection::new(Arc::clone(config))?;
        let mut flight = Vec::with_capacity(4096);
        feed(&mut connection, hello)?;
        while connection.wants_write() {
            connection.write_tls(&mut flight)?;
        }
        servers.push((connection, flight));
    }
    let mut spent = thread_cpu() - started;

    let mut finished = Vec::new();
    for (client, (_, flight)) in clients.iter_mut().zip(&servers) {
        let mut rest = flight.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest)?;
            client.process_new_packets()?;
        }
        let mut bytes = Vec::with_capacity(256);
        client.write_tls(&mut bytes)?;
        finished.push(bytes);
    }

    let started = thread_cpu();
    let mut tickets = Vec::new();
    for ((server, _), bytes) in servers.iter_mut().zip(&finished) {
        feed(server, bytes)?;
        let mut out = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut out)?;
        }
        tickets.push(out);
    }
    let done = |server: &ServerConnection| {
        !server.is_handshaking() && server.handshake_kind() == Some(kind)
    };
    let done = servers.iter().all(|(server, _)| done(server));
    drop(servers);
    spent += thread_cpu() - started;
    ensure!(done, "a handshake in memory did not complete as {kind:?}");
    for (client, bytes) in clients.iter_mut().zip(&tickets) {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest)?;
            client.process_new_packets()?;
        }
    }
    Ok(spent)
}

fn feed(server: &mut ServerConnection, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        server.read_tls(&mut bytes)?;
        server.process_new_packets()?;
    }
    Ok(())
}

fn thread_cpu() -> Duration {
    let now = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// Handshakes that go through each step together: so few that their state stays in the cache, since
/// a limit should not be too easy.
const BATCH: u32 = 8;
