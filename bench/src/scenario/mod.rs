//! The questions that are measured, one module each. A scenario starts its servers, lets them take
//! turns, and gives a [`Report`]; printing and recording is the caller's.

pub mod allocator;
mod bulk;
pub mod compare;
mod headline;
mod idle;
mod limit;
mod peers;
mod publish;
mod staple;
mod workers;

use anyhow::{Context, Result};
use rustls::NamedGroup;

use crate::bench::{Bench, PLAIN, STAPLED};
use crate::client::Suite;
use crate::load::{Load, Pattern};
use crate::machine;
use crate::peers::{Peer, Running};
use crate::report::Report;
use crate::rounds::{Contender, Sample};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Subcommand)]
pub enum Scenario {
    /// Handshake latency with staple, without, and with client-side OCSP: percentiles and plots.
    Headline,
    /// CPU per handshake against nginx, HAProxy and Hitch, with and without a request.
    Peers,
    /// CPU per handshake against the sum of an in-memory handshake and a plain TCP relay.
    Limit,
    /// CPU per handshake with and without a staple.
    Staple,
    /// Memory per idle connection.
    Idle,
    /// CPU per byte to the client.
    Bulk,
    /// CPU per handshake with two workers and with one.
    Workers,
    /// CPU per handshake of the workers while snapshots are published 100 times a second.
    Publish,
}

impl Scenario {
    /// All of them, in the order of `all`.
    pub const ALL: [Self; 8] = [
        Self::Headline,
        Self::Peers,
        Self::Limit,
        Self::Staple,
        Self::Idle,
        Self::Bulk,
        Self::Workers,
        Self::Publish,
    ];

    /// Measures.
    pub fn run(self, bench: &Bench) -> Result<Report> {
        let mut report = match self {
            Self::Headline => headline::run(bench),
            Self::Peers => peers::run(bench),
            Self::Limit => limit::run(bench),
            Self::Staple => staple::run(bench),
            Self::Idle => idle::run(bench),
            Self::Bulk => bulk::run(bench),
            Self::Workers => workers::run(bench),
            Self::Publish => publish::run(bench),
        }
        .with_context(|| format!("{self:?}"))?;
        let version = machine::output(&bench.clinch, &["--version"]);
        let staple = bench.sites[STAPLED].staple.len();
        let versions = &mut report.environment.versions;
        versions.push(format!("clinch: {version}"));
        versions.push(format!("staple: {staple} bytes"));
        Ok(report)
    }
}

/// Peers that this machine has; the others are named in the report.
fn installed(among: &[Peer], report: &mut Report) -> Vec<Peer> {
    let mut found = Vec::new();
    for &peer in among {
        match peer.program() {
            Ok(_) => {
                report.environment.versions.push(peer.version());
                found.push(peer);
            }
            Err(missing) => report.notes.push(missing),
        }
    }
    found
}

/// A load of the ordinary size on a site.
fn tls(bench: &Bench, at: &Running, site: usize, staple: bool, pattern: Pattern) -> Result<Load> {
    let client = bench.client(site, staple, Suite::Aes128Gcm, NamedGroup::X25519)?;
    Ok(bench.ordinary(at.address, Some(client), pattern))
}

/// A contender measured by CPU time per connection of its whole process tree, warmed up once.
fn per_connection<'a>(
    bench: &'a Bench,
    name: impl Into<String>,
    at: &'a Running,
    load: Load,
) -> Result<Contender<'a>> {
    warm_up(bench, at, &load)?;
    Ok(Contender::new(name, move || -> Result<Sample> {
        bench.cpu_per_connection(&at.server, &load, |_| true)
    }))
}

/// An eighth of a load, so that the first measurement is like the others.
fn warm_up(bench: &Bench, at: &Running, load: &Load) -> Result<()> {
    let mut load = load.clone();
    load.count = load.count.div_ceil(8);
    bench.load(&at.server, &load)?;
    Ok(())
}

/// The site of clinch that does, or does not, staple.
fn site(staple: bool) -> usize {
    if staple { STAPLED } else { PLAIN }
}
