//! Bytes from clients and operators: a ClientHello walked, a PROXY header read, a certificate with its
//! key loaded from PEM.

use std::hint::black_box;

use clinch::certificate::Identity;
use clinch::cli::demo::authority::KeyAlgorithm;
use clinch::data::fuzzing;
use clinch_bench::client::{Client, Suite};
use clinch_hello::Reading;
use criterion::{BenchmarkId, Criterion, Throughput};

use super::handshake::GROUPS;
use super::{NAME, made};

/// Reading a ClientHello.
pub(super) fn hello(c: &mut Criterion) {
    let (_directory, site) = made(KeyAlgorithm::P256);
    let mut group = c.benchmark_group("hello");
    for kx in GROUPS {
        let client = Client::new(NAME, &site.chain[0], None, Suite::Aes128Gcm, kx);
        let mut connection = client.and_then(|c| Ok(c.connection()?)).expect("a client");
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).expect("a hello");
        let mut scratch = vec![0; 64 * 1024];
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{kx:?}")), |b| {
            b.iter(|| {
                let reading = clinch_hello::read(black_box(&bytes), &mut scratch);
                assert!(matches!(reading, Reading::Complete(_)));
            });
        });
    }
}

/// Reading a PROXY header of either version.
pub(super) fn proxy_header(c: &mut Criterion) {
    let mut second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    second.extend([192, 0, 2, 1, 198, 51, 100, 1, 0xc0, 0x00, 0x01, 0xbb]);
    let headers = [
        (
            "v1",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 49152 443\r\n".to_vec(),
        ),
        ("v2", second),
    ];
    let mut group = c.benchmark_group("proxy header");
    for (version, bytes) in headers {
        group.bench_function(version, |b| {
            b.iter(|| {
                let length = fuzzing::proxy_header_length(black_box(&bytes));
                assert_eq!(length, Some(bytes.len()));
            });
        });
    }
}

/// Loading a certificate: PEM to a chain in order, facts of the leaf, and a key that is the leaf's.
pub(super) fn certificate(c: &mut Criterion) {
    let mut group = c.benchmark_group("certificate load");
    for key in [KeyAlgorithm::P256, KeyAlgorithm::Rsa2048] {
        let (_directory, site) = made(key);
        let chain = std::fs::read(&site.cert).expect("a chain");
        let private = std::fs::read(&site.key).expect("a key");
        group.bench_function(BenchmarkId::from_parameter(format!("{key:?}")), |b| {
            b.iter(|| Identity::from_pem(black_box(&chain), &private).expect("an identity"));
        });
    }
}
