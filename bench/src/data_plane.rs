//! Clinch's data plane without control: workers, and a publisher that can be made to publish 100
//! times a second. Runs as a process of its own, `clinch-bench data-plane`, for the scenario that asks
//! what publishing costs the workers.
//!
//! Nothing is fetched here: the staple is read from the bench's file, and verified as control does.

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

/// What the process is given.
#[derive(Clone, Debug, clap::Args)]
pub struct Setup {
    /// A configuration of clinch; its sites are served, its admin interface is not.
    pub config: PathBuf,
    /// The staple of the first site's certificate, DER.
    pub staple: PathBuf,
    /// While this file exists, the first site's staple is published anew [`PUBLISHES`] times a second.
    pub publish_while: PathBuf,
}

/// Publishes per second.
pub const PUBLISHES: u32 = 100;

/// Serves until the process is ended.
pub fn run(setup: &Setup) -> Result<()> {
    clinch::sys::resources::decline_huge_pages()?;
    let config = Config::parse(&std::fs::read_to_string(&setup.config)?)?;
    let table = table(&config)?;
    let staple = Arc::new(staple(&table, &setup.staple)?);
    let slots = table.certificates.iter().map(|_| Slot {
        since: 0,
        state: SlotState::NotApplicable,
    });
    let snapshot = Snapshot {
        generation: 0,
        slots: slots.collect(),
        table: Arc::new(table),
        tickets: Arc::new(ticket_keys()),
    };
    let workers = config.workers.unwrap_or(1);
    let (mut publisher, subscribers) = Publisher::new(snapshot, workers)?;
    publish(&mut publisher, &staple)?;
    let mut running = Vec::new();
    for (index, subscriber) in subscribers.into_iter().enumerate() {
        let address = config.listeners[0].addresses[0];
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
    let mut due = Instant::now();
    while running.iter().all(|worker| !worker.ended()) {
        due += Duration::from_secs(1) / PUBLISHES;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if setup.publish_while.exists() {
            publish(&mut publisher, &staple)?;
        }
    }
    anyhow::bail!("a worker ended")
}

/// Sets the first certificate's staple again, which is what a refresh of the busiest site does.
fn publish(publisher: &mut Publisher, staple: &Arc<VerifiedStaple>) -> Result<()> {
    let mut taken = false;
    publisher.publish(|snapshot| {
        taken = snapshot.set_slot(0, SlotState::Stapled(Arc::clone(staple)));
    });
    ensure!(taken, "the staple is for another certificate");
    Ok(())
}

fn table(config: &Config) -> Result<Table> {
    let mut sites = Vec::new();
    let mut certificates = Vec::new();
    for (index, site) in config.sites.iter().enumerate() {
        let files = site
            .certificates
            .first()
            .context("a site without a certificate")?;
        certificates.push(Certificate {
            identity: identity(files)?,
            staple_required: false,
            on_revoked: clinch::config::OnRevoked::Refuse,
        });
        let backends = site.backends.iter().map(|backend| match backend {
            clinch::config::Backend::Tcp(address) => Ok(BackendAddress::Tcp(address.parse()?)),
            clinch::config::Backend::Unix(path) => Ok(BackendAddress::Unix(path.clone())),
        });
        let site_of_table = Site {
            name: site.name.clone(),
            certificates: vec![u32::try_from(index)?],
            backends: backends.collect::<Result<_>>()?,
            proxy_protocol: None,
            alpn: Vec::new(),
            confinement: Default::default(),
        };
        sites.push((site_of_table, vec![0], site.names.clone()));
    }
    Ok(Table::new(1, config.listeners.clone(), sites, certificates))
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
