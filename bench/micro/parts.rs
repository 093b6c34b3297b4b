//! The parts that a handshake, a reload and a refresh are made of, each by itself.
//!
//! `cargo bench -p clinch-bench --bench parts`, with a word to choose among them.

mod handshake;
mod outside;
mod revocation;
mod snapshot;

use std::time::{Duration, SystemTime};

use clinch::cli::demo::authority::KeyAlgorithm;
use clinch::ocsp::{Policy, VerifiedStaple, verify};
use clinch_bench::pki;
use criterion::{Criterion, criterion_group, criterion_main};

/// The site of all of them.
const NAME: &str = "a.bench.test";

/// A site with a key of this kind; its files live as long as the directory.
fn made(key: KeyAlgorithm) -> (tempfile::TempDir, pki::Site) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let sites = pki::make_with(directory.path(), "127.0.0.1:9", &[NAME], key);
    let site = sites.expect("certificates").remove(0);
    (directory, site)
}

fn verified(site: &pki::Site) -> VerifiedStaple {
    let [leaf, issuer] = site.chain.as_slice() else {
        panic!("a chain of two");
    };
    let now = SystemTime::now();
    verify(&site.staple, leaf, issuer, &Policy::default(), now).expect("a good response")
}

criterion_group! {
    name = parts;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = handshake::full, handshake::resumed, snapshot::lookup, snapshot::publish,
        outside::hello, outside::proxy_header, outside::certificate,
        revocation::ocsp, revocation::crl
}
criterion_main!(parts);
