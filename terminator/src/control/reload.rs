//! The configuration and everything it names is read again and put in place of the old, whole or
//! not at all.
//!
//! Reading happens on a thread of its own ([`gather`]); putting it in place happens between two events
//! of control, in one publish. Reloads come one after the other.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use super::book::Book;
use super::gather::{self, Gathered};
use super::lists::Lists;
use super::load::{LoadError, Loaded};
use super::{Control, slots};
use crate::config::{Config, ConfigError, Listener};
use crate::snapshot::SlotState;

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReloadReport {
    /// The generation that carries the new configuration.
    pub generation: u64,
    /// Sites now.
    pub sites: usize,
    /// Certificates now.
    pub certificates: usize,
    /// Staples that were kept because their certificate did not change.
    pub staples_kept: usize,
    /// Changes that take effect only at the next start, in words.
    pub needs_restart: Vec<String>,
    /// What was noticed and does not prevent serving, in words.
    pub warnings: Vec<String>,
}

/// Why a reload changed nothing. `Display` says it for an operator.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file cannot be read.
    #[error("the configuration {} cannot be read: {reason}; it must be readable for the user that clinch runs as", .path.display())]
    File {
        /// The configuration file.
        path: PathBuf,
        /// The system's reason.
        reason: std::io::Error,
    },
    /// The file is not a valid configuration.
    #[error("{}: {reason}", .path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// What is wrong in it.
        reason: Box<ConfigError>,
    },
    /// The certificates, keys or backends cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Listening sockets are bound once, before privileges are dropped.
    #[error(
        "listener {listener}: {change}; listeners are set up only at the start: restart clinch, or undo the change"
    )]
    Listeners {
        /// Its name.
        listener: String,
        /// What differs.
        change: String,
    },
    /// The reading itself broke down.
    #[error("reading the configuration failed in clinch itself: {0}")]
    Fault(String),
    /// Control has ended.
    #[error("clinch is shutting down: nothing is reloaded any more")]
    ShuttingDown,
}

/// What comes of reading the files for a reload.
pub(super) type Read = Result<Gathered, ReloadError>;

/// Where the outcome of a reload goes.
pub(super) type Reply = oneshot::Sender<Result<ReloadReport, ReloadError>>;

/// Reloads under way and to come.
#[derive(Default)]
pub(super) struct Reloads {
    running: Option<(JoinHandle<Read>, Option<Reply>)>,
    waiting: VecDeque<Option<Reply>>,
    pub(super) last_error: Option<String>,
}

impl Control {
    pub(super) fn start_reload(&mut self, reply: Option<Reply>) {
        // A change on disk that a reload to come will see anyway needs none of its own.
        if reply.is_some() || !self.reloads.waiting.iter().any(Option::is_none) {
            self.reloads.waiting.push_back(reply);
        }
        self.next_reload();
    }

    fn next_reload(&mut self) {
        if self.reloads.running.is_some() {
            return;
        }
        let Some(reply) = self.reloads.waiting.pop_front() else {
            return;
        };
        self.watch.refresh();
        let path = self.config_path.clone();
        let table = Arc::clone(&self.publisher.current().table);
        let cache = self.keeper.as_ref().map(|keeper| keeper.cache().clone());
        let reading = tokio::task::spawn_blocking(move || {
            gather::gather(&path, table.epoch + 1, cache.as_ref(), &table)
        });
        self.reloads.running = Some((reading, reply));
    }

    pub(super) fn finish_reload(&mut self, gathered: Read) {
        let reply = self.reloads.running.take().and_then(|(_, reply)| reply);
        let result = gathered.map(|gathered| self.adopt(gathered));
        match &result {
            Ok(report) => {
                self.counters.reloads.one();
                self.reloads.last_error = None;
                tracing::info!(
                    event = "reloaded",
                    generation = report.generation,
                    sites = report.sites,
                    certificates = report.certificates,
                    staples_kept = report.staples_kept,
                    "new configuration in force"
                );
                for note in report.warnings.iter().chain(&report.needs_restart) {
                    tracing::warn!(event = "reload_note", "{note}");
                }
            }
            Err(error) => {
                self.counters.reloads_refused.one();
                self.reloads.last_error = Some(error.to_string());
                tracing::error!(
                    event = "reload_refused",
                    "nothing was changed by the reload: {error}"
                );
            }
        }
        if let Some(reply) = reply {
            // Whoever asked may have gone.
            let _ = reply.send(result);
        }
        self.next_reload();
    }

    /// Puts what a reload has read in place of the old, in one publish.
    fn adopt(&mut self, gathered: Gathered) -> ReloadReport {
        let needs_restart = needs_restart(&self.config, &gathered.config);
        let Loaded {
            table,
            subjects,
            egress,
            mut warnings,
        } = gathered.loaded;
        let known = self.book.known(self.publisher.current());
        // Questions about the old table end here; certificates that stay are asked about again.
        self.questions = JoinSet::new();
        self.asked.clear();
        self.drop_inquiries();
        let turns = gathered.config.egress.turns;
        self.lists = Lists::open(&table, &subjects, turns, Some(&self.lists));
        self.lists.remember(&gathered.cached);
        let ends = self.ends_of_certificates();
        let (book, states) = Book::open(
            &table,
            subjects,
            gathered.cached,
            &known,
            turns,
            &self.counters,
        );
        self.book = book;
        let staples_kept = (0..).zip(&states).filter(|(index, state)| {
            let fingerprint = table.certificates[*index as usize]
                .identity
                .leaf
                .fingerprint;
            matches!(state, SlotState::Stapled(_)) && known.contains_key(&fingerprint)
        });
        let staples_kept = staples_kept.count();
        let (sites, certificates) = (table.sites.len(), table.certificates.len());
        let generation = self.publisher.publish(|snapshot| {
            snapshot.slots = slots(snapshot.generation, states);
            snapshot.table = Arc::new(table);
        });
        self.take_over_ends(&ends);
        self.config = gathered.config;
        let client = self.client.clone();
        tokio::spawn(async move { client.set(egress).await });
        warnings.extend(self.tend());
        ReloadReport {
            generation,
            sites,
            certificates,
            staples_kept,
            needs_restart,
            warnings,
        }
    }
}

impl Reloads {
    /// What the reload under way has read. May be dropped and called again.
    pub(super) async fn gathered(&mut self) -> Read {
        match &mut self.running {
            Some((reading, _)) => match reading.await {
                Ok(gathered) => gathered,
                Err(error) => Err(ReloadError::Fault(error.to_string())),
            },
            None => std::future::pending().await,
        }
    }
}

/// Sockets are bound before privileges are dropped, so a reload cannot change them.
pub(super) fn compare_listeners(old: &[Listener], new: &[Listener]) -> Result<(), ReloadError> {
    let refused = |listener: &Listener, change: String| ReloadError::Listeners {
        listener: listener.name.clone(),
        change,
    };
    for (position, listener) in new.iter().enumerate() {
        match old.get(position) {
            None => return Err(refused(listener, "it is new".to_owned())),
            Some(before) if before.name != listener.name => {
                let change = format!("{} was in its place", before.name);
                return Err(refused(listener, change));
            }
            Some(before) if before.addresses != listener.addresses => {
                let change = format!(
                    "its address was {:?} and is now {:?}",
                    before.addresses, listener.addresses
                );
                return Err(refused(listener, change));
            }
            Some(_) => {}
        }
    }
    match old.get(new.len()) {
        Some(gone) => Err(refused(gone, "it is gone".to_owned())),
        None => Ok(()),
    }
}

/// Settings that differ and that a reload does not change.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let mut changed = Vec::new();
    let mut note = |differs: bool, what: &str| {
        if differs {
            changed.push(format!("{what} takes effect at the next start"));
        }
    };
    note(old.user != new.user, "`user`");
    note(old.workers != new.workers, "`workers`");
    note(old.cache != new.cache, "`cache_dir`");
    note(old.limits != new.limits, "`limits`");
    note(old.timeouts != new.timeouts, "`timeouts`");
    note(old.admin != new.admin, "`admin`");
    note(old.log != new.log, "`log`");
    note(old.egress.user != new.egress.user, "`egress.user`");
    note(
        old.firewall_socket() != new.firewall_socket(),
        "`firewall.socket`",
    );
    note(
        !old.steering.prepared && new.steering.prepared,
        "`steering`, which was not there at the start,",
    );
    let mut pairs = old.listeners.iter().zip(&new.listeners);
    note(
        pairs.any(|(old, new)| old.backlog != new.backlog),
        "`backlog`",
    );
    changed
}
