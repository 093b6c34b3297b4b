//! The parts that a handshake, a reload and a refresh are made of, each by itself.
//!
//! `cargo bench -p clinch-bench --bench parts`, with a word to choose among them.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clinch::certificate::{Identity, Leaf};
use clinch::config::Listener;
use clinch::ocsp::{Policy, verify};
use clinch::snapshot::{
    BackendAddress, Certificate, Publisher, Site, Slot, SlotState, Snapshot, Table,
};
use clinch_bench::client::{Client, Suite};
use clinch_bench::data_plane::ticket_keys;
use clinch_bench::{limit, pki};
use clinch_hello::Reading;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rustls::NamedGroup;
use rustls::pki_types::CertificateDer;

const GROUPS: [NamedGroup; 2] = [NamedGroup::X25519, NamedGroup::X25519MLKEM768];
const NAME: &str = "a.bench.test";

fn site() -> (tempfile::TempDir, pki::Site) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut sites = pki::make(directory.path(), "127.0.0.1:9", &[NAME]).expect("certificates");
    (directory, sites.remove(0))
}

/// The server's side of a full handshake between two buffers, CPU time.
fn handshake(c: &mut Criterion) {
    let (_directory, site) = site();
    let mut group = c.benchmark_group("handshake");
    for kx in GROUPS {
        for staple in [true, false] {
            let server = limit::server(&site, staple, kx).expect("a server");
            let expected = staple.then_some(site.staple.as_slice());
            let client = Client::new(NAME, &site.chain[0], expected, Suite::Aes128Gcm, kx);
            let client = client.expect("a client");
            let what = if staple { "stapled" } else { "unstapled" };
            group.bench_function(BenchmarkId::new(format!("{kx:?}"), what), |b| {
                b.iter_custom(|count| {
                    let count = u32::try_from(count).expect("few handshakes");
                    limit::server_time(&server, &client, count).expect("handshakes complete")
                });
            });
        }
    }
}

/// Choosing the site for a server name, among as many names.
fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup");
    for names in SIZES {
        let table = Table::new(
            1,
            vec![listener()],
            vec![(one_site("a"), vec![0], (0..names).map(name).collect())],
            Vec::new(),
        );
        // Spread over the table, so that the caches do not hold all of what is asked for.
        let asked: Vec<String> = (0..4096).map(|i| name(i * 7919 % names)).collect();
        let mut next = asked.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(names), |b| {
            b.iter(|| table.choose(0, next.next().map(String::as_str)));
        });
    }
}

/// Publishing one changed slot, among as many certificates, to two workers who take it.
fn publish(c: &mut Criterion) {
    let (_directory, site) = site();
    let mut group = c.benchmark_group("publish");
    for certificates in SIZES {
        let table = large_table(&site, certificates);
        let slots = (0..certificates).map(|_| Slot {
            since: 0,
            state: SlotState::Missing,
        });
        let snapshot = Snapshot {
            generation: 0,
            slots: slots.collect(),
            table: Arc::new(table),
            tickets: Arc::new(ticket_keys()),
        };
        let staple = Arc::new(verified(&site));
        let (mut publisher, subscribers) = Publisher::new(snapshot, 2).expect("eventfds");
        let mut next = 0;
        group.bench_function(BenchmarkId::from_parameter(certificates), |b| {
            b.iter(|| {
                next = (next + 7919) % certificates;
                let generation = publisher.publish(|snapshot| {
                    let state = SlotState::Stapled(Arc::clone(&staple));
                    assert!(snapshot.set_slot(next as u32, state));
                });
                for subscriber in &subscribers {
                    drop(subscriber.take());
                    subscriber.adopted(generation);
                }
            });
        });
    }
}

/// Reading a ClientHello.
fn hello(c: &mut Criterion) {
    let (_directory, site) = site();
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

/// Verifying a response in full.
fn ocsp(c: &mut Criterion) {
    let (_directory, site) = site();
    c.bench_function("ocsp/verify", |b| {
        b.iter_batched(|| (), |()| verified(&site), BatchSize::SmallInput);
    });
}

fn verified(site: &pki::Site) -> clinch::ocsp::VerifiedStaple {
    let [leaf, issuer] = site.chain.as_slice() else {
        panic!("a chain of two");
    };
    let now = SystemTime::now();
    verify(&site.staple, leaf, issuer, &Policy::default(), now).expect("a good response")
}

/// A table of as many sites and certificates. The certificates are alike and share their DER, since
/// only their number counts here.
fn large_table(site: &pki::Site, certificates: usize) -> Table {
    let chain: Vec<CertificateDer<'static>> = site
        .chain
        .iter()
        .map(|der| CertificateDer::from(&*der.to_vec().leak()))
        .collect();
    let leaf = Leaf::parse(&chain[0]).expect("a leaf");
    let key = site.private_key().expect("a key");
    let identity = || Identity {
        chain: chain.clone(),
        leaf: leaf.clone(),
        key: key.clone_key(),
    };
    let all = (0..certificates).map(|_| Certificate {
        identity: identity(),
        staple_required: false,
        on_revoked: clinch::config::OnRevoked::Refuse,
    });
    let sites = (0..certificates).map(|index| {
        let name = name(index);
        (one_site(&name), vec![0], vec![name])
    });
    Table::new(1, vec![listener()], sites.collect(), all.collect())
}

fn one_site(name: &str) -> Site {
    Site {
        name: name.to_owned(),
        certificates: vec![0],
        backends: vec![BackendAddress::Tcp(([127, 0, 0, 1], 9).into())],
        proxy_protocol: None,
        alpn: Vec::new(),
        confinement: Default::default(),
    }
}

fn name(index: usize) -> String {
    format!("site-{index}.bench.test")
}

/// The listener of a small configuration.
fn listener() -> Listener {
    let text = "[listen.bench]\naddress = [\"127.0.0.1:9\"]\n\
                [[site]]\nnames = [\"a.test\"]\ncert = \"/a\"\nkey = \"/a\"\nbackend = [\"127.0.0.1:9\"]\n";
    let config = clinch::config::Config::parse(text).expect("a configuration");
    config.listeners.into_iter().next().expect("one listener")
}

const SIZES: [usize; 3] = [1, 1_000, 1_000_000];

criterion_group! {
    name = parts;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = handshake, lookup, publish, hello, ocsp
}
criterion_main!(parts);
