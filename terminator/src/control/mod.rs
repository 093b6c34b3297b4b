//! Control: loads, fetches, verifies, caches, refreshes, reloads and publishes. All I/O and time of the slow path.
//!
//! Control runs on the main thread in a tokio current-thread runtime and owns the snapshot's
//! publisher. Its start is taken in steps so that `run` can bind sockets and drop privileges in
//! between:
//!
//! 1. [`Control::prepare`]: certificates, egress process, cached staples, first snapshot.
//! 2. sockets are bound and privileges dropped (not here).
//! 3. [`Control::first_fetch`]: asks responders, with a bounded wait.
//! 4. workers start to listen (not here).
//! 5. [`Control::run`]: refresh, reload, rotate, until [`Handle::shutdown`].

mod files;
pub mod load;
mod resolve;
pub mod status;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::egress;
use crate::observability::counters::FetchCounters;
use crate::snapshot::Subscriber;

pub use load::{LoadError, Loaded};
pub use status::Status;

/// What control starts from.
pub struct Setup {
    /// The configuration file, read again at a reload.
    pub config_path: PathBuf,
    /// What it said.
    pub config: Config,
    /// Number of workers, each of which gets a subscriber.
    pub workers: usize,
    /// The program that is started as `PROGRAM egress`: [`egress::SELF`], this one, except in tests.
    pub egress_program: PathBuf,
    /// What control counts.
    pub counters: Arc<FetchCounters>,
}

/// The slow path: one value, driven by the main thread.
pub struct Control {}

/// Talks to a [`Control`] from other tasks. Its answers come only while [`Control::first_fetch`]
/// or [`Control::run`] is polled.
#[derive(Clone)]
pub struct Handle {}

/// Why control cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificates, keys or backends cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The egress process cannot be started.
    #[error(transparent)]
    Egress(#[from] egress::LaunchError),
    /// The kernel refused an eventfd or similar.
    #[error("cannot set up the snapshot: {0}")]
    Kernel(#[from] std::io::Error),
}

/// How far the first fetch came within its wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstFetch {
    /// Certificates for which a staple is wanted.
    pub wanted: usize,
    /// Of these, the ones that have one (from the cache or fetched).
    pub stapled: usize,
}

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
    /// The certificates, keys or backends cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Control has ended.
    #[error("clinch is shutting down: nothing is reloaded any more")]
    ShuttingDown,
}

impl Control {
    /// Loads certificates and keys, starts the egress process, takes staples from the cache and
    /// builds the first snapshot. Call it with the privileges to read keys and to change users.
    /// The subscribers are for the workers, one each.
    pub async fn prepare(setup: Setup) -> Result<(Self, Vec<Subscriber>), StartError> {
        let _ = setup;
        todo!()
    }

    /// Asks responders for what the cache did not have; returns when all answered, or after `wait`.
    /// What is still under way then goes on in [`Control::run`].
    pub async fn first_fetch(&mut self, wait: Duration) -> FirstFetch {
        let _ = wait;
        todo!()
    }

    /// A way to talk to this value from other tasks.
    pub fn handle(&self) -> Handle {
        todo!()
    }

    /// Works until [`Handle::shutdown`].
    pub async fn run(self) {
        todo!()
    }
}

impl Handle {
    /// The present state of everything control knows. `None` when control has ended.
    pub async fn status(&self) -> Option<Status> {
        todo!()
    }

    /// Reads configuration and files again. Concurrent calls are served one after the other.
    pub async fn reload(&self) -> Result<ReloadReport, ReloadError> {
        todo!()
    }

    /// Ends [`Control::run`]; returns when it has ended. The egress process ends with it.
    pub async fn shutdown(&self) {
        todo!()
    }
}
