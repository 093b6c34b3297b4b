//! The server's side of a TLS 1.3 handshake between two buffers, CPU time: the limit of what a
//! terminator can reach, by key, group, staple, and whether the session is resumed.

use std::sync::Arc;
use std::time::Duration;

use clinch::cli::demo::authority::KeyAlgorithm;
use clinch_bench::client::{Client, Suite};
use clinch_bench::{limit, pki};
use criterion::{BenchmarkId, Criterion};
use rustls::server::ServerConfig;
use rustls::{HandshakeKind, NamedGroup};

use super::{NAME, made};

/// Full handshakes.
pub(super) fn full(c: &mut Criterion) {
    let mut group = c.benchmark_group("handshake");
    for key in KEYS {
        let (_directory, site) = made(key);
        for kx in GROUPS {
            for staple in [true, false] {
                let server = limit::server(&site, staple, kx).expect("a server");
                let client = client(&site, staple, kx);
                let what = if staple { "stapled" } else { "unstapled" };
                group.bench_function(BenchmarkId::new(format!("{key:?} {kx:?}"), what), |b| {
                    b.iter_custom(|count| time(&server, &client, count, HandshakeKind::Full));
                });
            }
        }
    }
}

/// Resumed ones (psk_dhe_ke): no certificate, no signature, no staple; one new ticket each.
pub(super) fn resumed(c: &mut Criterion) {
    let (_directory, site) = made(KeyAlgorithm::P256);
    let mut group = c.benchmark_group("handshake resumed");
    for kx in GROUPS {
        let server = limit::with_tickets(&site, kx).expect("a server");
        let client = client(&site, true, kx).resuming();
        limit::stock_with_tickets(&server, &client).expect("full handshakes");
        group.bench_function(BenchmarkId::from_parameter(format!("{kx:?}")), |b| {
            b.iter_custom(|count| time(&server, &client, count, HandshakeKind::Resumed));
        });
    }
}

fn client(site: &pki::Site, staple: bool, kx: NamedGroup) -> Client {
    let expected = staple.then_some(site.staple.as_slice());
    let client = Client::new(NAME, &site.chain[0], expected, Suite::Aes128Gcm, kx);
    client.expect("a client")
}

fn time(server: &Arc<ServerConfig>, client: &Client, count: u64, kind: HandshakeKind) -> Duration {
    let count = u32::try_from(count).expect("few handshakes");
    limit::server_time(server, client, count, kind).expect("handshakes complete")
}

const KEYS: [KeyAlgorithm; 2] = [KeyAlgorithm::P256, KeyAlgorithm::Rsa2048];
pub(super) const GROUPS: [NamedGroup; 2] = [NamedGroup::X25519, NamedGroup::X25519MLKEM768];
