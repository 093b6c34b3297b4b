//! Clinch's data plane without control: workers, and a publisher that can be made to publish so many
//! times a second and to say how soon every worker had what it published. Runs as a process of its own,
//! `clinch-bench data-plane`, for the scenarios that ask what publishing and very many sites cost the
//! workers.
//!
//! Nothing is fetched here: the staple is read from the bench's file, and verified as control does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use clinch::certificate::Identity;
use clinch::config::{CertificateFiles, Config};
use clinch::data::{self, WorkerSetup};
use clinch::ocsp::{Policy, VerifiedStaple, verify};
use clinch::snapshot::{
    BackendAddress, Certificate, Publisher, Site, Slot, SlotState, Snapshot, Table, TicketKey,
    TicketKeys,
};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::crowd;

/// What the process is given.
#[derive(Clone, Debug, clap::Args)]
pub struct Setup {
    /// A configuration of clinch; its sites are served, its admin interface is not.
    pub config: PathBuf,
    /// The staple of the first site's certificate, DER.
    pub staple: PathBuf,
    /// While this file exists, a staple is published anew as often a second as [`Order`] in it says.
    pub publish_while: PathBuf,
    /// Sites beside those of the configuration, each with a certificate and a staple of its own.
    #[arg(long, default_value_t = 0)]
    pub crowd: u32,
}

/// What the publisher is to do, as the file says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Publishes a second, each of the next certificate's staple.
    pub per_second: u32,
    /// Watch every worker take each snapshot up, and write [`Adoption`] beside the file at the end. The
    /// watching takes processor time, so that the CPU of workers must not be measured meanwhile.
    pub watched: bool,
}

/// How long after a publish began workers served from it, µs. They are looked at about every 80 µs, so
/// that much may be too much.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Adoption {
    /// Publishes watched.
    pub count: u64,
    /// Until the first worker did, which has connections.
    pub serving: Times,
    /// Until every worker did.
    pub all: Times,
    /// The publish itself, before any worker is looked at.
    pub publish: Times,
}

/// Of some publishes, µs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Times {
    /// Median.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// The slowest.
    pub most: f64,
}

impl Times {
    fn of(nanos: &Histogram<u64>) -> Self {
        let us = |q: f64| nanos.value_at_quantile(q) as f64 / 1000.0;
        Self {
            p50: us(0.5),
            p99: us(0.99),
            most: us(1.0),
        }
    }
}

impl Adoption {
    /// Where it is written.
    pub fn path(publish_while: &Path) -> PathBuf {
        publish_while.with_extension("adoption")
    }
}

/// Serves until the process is ended.
pub fn run(setup: &Setup) -> Result<()> {
    clinch::sys::resources::decline_huge_pages()?;
    let config = Config::parse(&std::fs::read_to_string(&setup.config)?)?;
    let (table, staples) = table(&config, setup.crowd)?;
    let first = Arc::new(staple(&table, &setup.staple)?);
    let own = table.certificates.len() - staples.len();
    let states = (0..own).map(|index| match index {
        0 => SlotState::Stapled(Arc::clone(&first)),
        _ => SlotState::NotApplicable,
    });
    let states = states.chain(staples.into_iter().map(SlotState::Stapled));
    let snapshot = Snapshot {
        generation: 0,
        slots: states.map(|state| Slot { since: 0, state }).collect(),
        table: Arc::new(table),
        tickets: Arc::new(ticket_keys()),
    };
    let workers = config.workers.unwrap_or(1);
    let (mut publisher, subscribers) = Publisher::new(snapshot, workers)?;
    let mut running = Vec::new();
    for (index, subscriber) in subscribers.into_iter().enumerate() {
        // Further workers take snapshots and no connections: they have a port that nobody knows.
        let address = match index {
            0 => config.listeners[0].addresses[0],
            _ => SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        running.push(data::start(WorkerSetup {
            index,
            core: Some(index),
            sockets: vec![(0, crate::bench::listener_at(address)?)],
            subscriber,
            counters: Arc::default(),
            limits: config.limits.clone(),
            capacity: 8000,
            timeouts: config.timeouts.clone(),
            landings: Vec::new(),
            desk: None,
        })?);
    }
    while running.iter().all(|worker| !worker.ended()) {
        // So seldom that the process counts as at rest meanwhile.
        std::thread::sleep(Duration::from_millis(25));
        if let Some(order) = order(&setup.publish_while) {
            obey(&mut publisher, order, &setup.publish_while)?;
        }
    }
    anyhow::bail!("a worker ended")
}

/// The file may have been made and not yet written.
fn order(publish_while: &Path) -> Option<Order> {
    serde_json::from_slice(&std::fs::read(publish_while).ok()?).ok()
}

/// Publishes until the file is gone.
fn obey(publisher: &mut Publisher, order: Order, publish_while: &Path) -> Result<()> {
    let mut took = Histogram::<u64>::new(3)?;
    let mut serving = Histogram::<u64>::new(3)?;
    let mut adopted = Histogram::<u64>::new(3)?;
    let mut due = Instant::now();
    let mut certificate = 0;
    while publish_while.exists() {
        due += Duration::from_secs(1) / order.per_second;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        certificate = next_stapled(publisher.current(), certificate);
        let begun = Instant::now();
        let generation = publish(publisher, certificate)?;
        took.record(begun.elapsed().as_nanos() as u64)?;
        if order.watched {
            let mut first = None;
            while publisher.adopted().any(|at| at < generation) {
                if publisher
                    .adopted()
                    .next()
                    .is_some_and(|at| at >= generation)
                {
                    first = first.or_else(|| Some(begun.elapsed()));
                }
                ensure!(begun.elapsed() < STUCK, "a worker takes no snapshot");
                std::thread::sleep(GLANCE);
            }
            let first = first.unwrap_or_else(|| begun.elapsed());
            serving.record(first.as_nanos() as u64)?;
            adopted.record(begun.elapsed().as_nanos() as u64)?;
        }
    }
    if order.watched {
        let adoption = Adoption {
            count: adopted.len(),
            serving: Times::of(&serving),
            all: Times::of(&adopted),
            publish: Times::of(&took),
        };
        // As a whole, since somebody waits for it.
        let path = Adoption::path(publish_while);
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(&adoption)?)?;
        std::fs::rename(&new, &path)?;
    }
    Ok(())
}

/// The next certificate with a staple, far away from the last, so that no cache has it by chance.
fn next_stapled(snapshot: &Snapshot, last: usize) -> usize {
    let count = snapshot.slots.len();
    let mut next = last;
    loop {
        next = (next + STRIDE) % count;
        if matches!(snapshot.slots[next].state, SlotState::Stapled(_)) {
            return next;
        }
    }
}

/// Sets a certificate's staple again, which is what a refresh does.
fn publish(publisher: &mut Publisher, certificate: usize) -> Result<u64> {
    let mut taken = false;
    let generation = publisher.publish(|snapshot| {
        let state = snapshot.slots[certificate].state.clone();
        taken = snapshot.set_slot(certificate as u32, state);
    });
    ensure!(taken, "the staple is for another certificate");
    Ok(generation)
}

/// The sites of the configuration, then the crowd; and the crowd's staples.
fn table(config: &Config, crowd: u32) -> Result<(Table, Vec<Arc<VerifiedStaple>>)> {
    let mut sites = Vec::new();
    let mut certificates = Vec::new();
    for (index, site) in config.sites.iter().enumerate() {
        let files = site
            .certificates
            .first()
            .context("a site without a certificate")?;
        certificates.push(Certificate {
            identity: Arc::new(identity(files)?),
            staple_required: false,
            on_revoked: clinch::config::OnRevoked::Refuse,
        });
        let backends = site.backends.iter().map(|backend| match backend {
            clinch::config::Backend::Tcp(address) => Ok(BackendAddress::Tcp(address.parse()?)),
            clinch::config::Backend::Unix(path) => Ok(BackendAddress::Unix(path.clone())),
        });
        let backends = backends.collect::<Result<_>>()?;
        let site_of_table = site_at(&site.name, u32::try_from(index)?, backends);
        sites.push((site_of_table, vec![0], site.names.clone()));
    }
    let mut staples = Vec::with_capacity(crowd as usize);
    let backends = sites[0].0.backends.clone();
    for member in crowd::make(crowd)? {
        let index = u32::try_from(certificates.len())?;
        let site = site_at(&member.name, index, backends.clone());
        sites.push((site, vec![0], vec![member.name]));
        certificates.push(Certificate {
            identity: Arc::new(member.identity),
            staple_required: false,
            on_revoked: clinch::config::OnRevoked::Refuse,
        });
        staples.push(member.staple);
    }
    let listeners = config.listeners.clone();
    Ok((Table::new(1, listeners, sites, certificates), staples))
}

fn site_at(name: &str, certificate: u32, backends: Vec<BackendAddress>) -> Site {
    Site {
        name: name.to_owned(),
        certificates: vec![certificate],
        backends,
        proxy_protocol: None,
        alpn: Vec::new(),
        confinement: Default::default(),
    }
}

fn identity(files: &CertificateFiles) -> Result<Identity> {
    let chain = std::fs::read(&files.cert)?;
    let key = std::fs::read(&files.key)?;
    Ok(Identity::from_pem(&chain, &key)?)
}

fn staple(table: &Table, path: &Path) -> Result<VerifiedStaple> {
    let identity = &table.certificates[0].identity;
    let issuer = identity.issuer().context("a chain without an issuer")?;
    let response = std::fs::read(path)?;
    let now = SystemTime::now();
    Ok(verify(
        &response,
        &identity.chain[0],
        issuer,
        &Policy::default(),
        now,
    )?)
}

/// Keys that seal nothing, since the bench's listeners send no tickets.
pub fn ticket_keys() -> TicketKeys {
    TicketKeys {
        current: TicketKey {
            name: [1; 16],
            key: [1; 32].into(),
        },
        previous: None,
    }
}

/// Between two looks at the workers.
const GLANCE: Duration = Duration::from_micros(20);
/// A worker that takes no snapshot for so long never will.
const STUCK: Duration = Duration::from_secs(10);
/// From one certificate published to the next; a prime.
const STRIDE: usize = 104_729;
