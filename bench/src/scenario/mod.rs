//! The questions that are measured, one module each. A scenario starts its servers, lets them take
//! turns, and gives a [`Report`]; printing and recording is the caller's.

pub mod allocator;
mod bulk;
mod certificates;
pub mod compare;
mod headline;
mod idle;
mod latency;
mod limit;
mod older;
mod peers;
mod publish;
mod resumed;
mod scale;
mod staple;
mod steering;
mod syscalls;
mod workers;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use clinch_load::{Arrivals, Check, Pace, Plan, Revocation, Version, Work};
use rustls::NamedGroup;
use rustls::pki_types::ServerName;

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
    /// CPU per resumed handshake.
    Resumed,
    /// CPU per handshake with TLS 1.2 and RSA.
    Older,
    /// Latency at fixed rates.
    Latency,
    /// Memory, start and reload with 10,000 certificates.
    Certificates,
    /// System calls per connection.
    Syscalls,
    /// CPU and latency per handshake with steering in the kernel and without.
    Steering,
    /// What the steering program takes for each class of packets.
    SteeringProgram,
    /// What a site waits while another saturates its core, steered and not.
    SteeringIsolation,
    /// Memory and CPU with 10,000 sites, steered and not.
    SteeringSites,
    /// CPU per handshake, memory and time to publish with up to 1,000,000 sites.
    ScaleNames,
    /// CPU per handshake and memory with up to 50,000 connections held.
    ScaleConnections,
    /// CPU per handshake with up to 10,000 publishes a second.
    ScalePublishes,
    /// CPU per handshake with up to 200 staples refreshed a second.
    ScaleRefreshes,
    /// CPU per handshake of the workers while snapshots are published 100 times a second.
    Publish,
}

impl Scenario {
    /// All of them, in the order of `all`.
    pub const ALL: [Self; 21] = [
        Self::Headline,
        Self::Peers,
        Self::Limit,
        Self::Staple,
        Self::Idle,
        Self::Bulk,
        Self::Workers,
        Self::Publish,
        Self::Resumed,
        Self::Older,
        Self::Latency,
        Self::Certificates,
        Self::Syscalls,
        Self::Steering,
        Self::SteeringProgram,
        Self::SteeringIsolation,
        Self::SteeringSites,
        Self::ScaleNames,
        Self::ScaleConnections,
        Self::ScalePublishes,
        Self::ScaleRefreshes,
    ];

    /// Those that say how cost grows, in the order of `make bench-scale`.
    pub const SCALE: [Self; 5] = [
        Self::ScaleNames,
        Self::ScaleConnections,
        Self::Workers,
        Self::ScaleRefreshes,
        Self::ScalePublishes,
    ];

    /// Those that compare with peers, in the order of `make bench-peers`.
    pub const WITH_PEERS: [Self; 8] = [
        Self::Peers,
        Self::Resumed,
        Self::Older,
        Self::Latency,
        Self::Idle,
        Self::Bulk,
        Self::Certificates,
        Self::Syscalls,
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
            Self::Resumed => resumed::run(bench),
            Self::Older => older::run(bench),
            Self::Latency => latency::run(bench),
            Self::Certificates => certificates::run(bench),
            Self::Syscalls => syscalls::run(bench),
            Self::Steering => steering::cost(bench),
            Self::SteeringProgram => steering::program(bench),
            Self::SteeringIsolation => steering::isolation(bench),
            Self::SteeringSites => steering::sites(bench),
            Self::ScaleNames => scale::names(bench),
            Self::ScaleConnections => scale::connections(bench),
            Self::ScalePublishes => scale::publishes(bench),
            Self::ScaleRefreshes => scale::refreshes(bench),
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
        match peer.command() {
            Ok(_) => {
                report.environment.versions.push(peer.version());
                found.push(peer);
            }
            Err(missing) => report.notes.push(missing),
        }
    }
    found
}

/// Visitors who come when they are due, at random, so many a second.
fn open_loop(rate: f64) -> Pace {
    Pace::Open {
        rate,
        arrivals: Arrivals::Poisson,
        most: 2000,
    }
}

/// A plan of the load generator for the site with a staple: full TLS 1.3 handshakes, X25519, on the
/// client's core.
fn plan_for(bench: &Bench, address: SocketAddr, pace: Pace) -> Result<Plan> {
    Ok(Plan {
        address,
        names: vec![ServerName::try_from(bench.sites[STAPLED].name.clone())?],
        revocation: Revocation::Staple,
        roots: Vec::new(),
        check: Check::Distinct,
        version: Version::Tls13,
        group: Some(NamedGroup::X25519),
        suite: Some(clinch_load::Suite::Aes128),
        resume: false,
        work: Work::Handshake,
        pace,
        duration: bench.effort.turn,
        warm_up: Duration::ZERO,
        count: None,
        deadline: Duration::from_secs(10),
        threads: vec![Some(machine::CLIENT_CORE)],
        sources: Vec::new(),
    })
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
