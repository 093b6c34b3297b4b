//! What workers serve from: a name looked up, a staple published.

use std::sync::Arc;

use clinch::certificate::{Identity, Leaf};
use clinch::cli::demo::authority::KeyAlgorithm;
use clinch::config::Listener;
use clinch::snapshot::{
    BackendAddress, Certificate, Publisher, Site, Slot, SlotState, Snapshot, Table,
};
use clinch_bench::data_plane::ticket_keys;
use clinch_bench::pki;
use criterion::{BenchmarkId, Criterion};
use rustls::pki_types::CertificateDer;

use super::{made, verified};

/// Choosing the site for a server name, among as many names.
pub(super) fn lookup(c: &mut Criterion) {
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
pub(super) fn publish(c: &mut Criterion) {
    let (_directory, site) = made(KeyAlgorithm::P256);
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
        identity: Arc::new(identity()),
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
