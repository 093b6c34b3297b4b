//! The running process as its observers see it: which workers and listeners there are, and what it
//! is doing. Read by metrics, health and status; written by `run` alone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::counters::{Counters, FetchCounters};
use crate::steering::View;

/// The parts whose figures are reported.
#[derive(Debug)]
pub struct Instance {
    /// When the process started.
    pub started: SystemTime,
    /// In order of their index.
    pub workers: Vec<WorkerView>,
    /// What control counts.
    pub fetches: Arc<FetchCounters>,
    /// Every address in configuration order.
    pub listeners: Vec<ListenerView>,
    /// How connections find their worker.
    pub steering: Arc<View>,
    clock: Instant,
    phase: AtomicU8,
}

/// A worker as seen from outside.
#[derive(Debug)]
pub struct WorkerView {
    /// The core it is pinned to.
    pub core: Option<usize>,
    /// Connections it may hold.
    pub capacity: usize,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// Whether its thread runs.
    pub alive: AtomicBool,
}

/// An address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerView {
    /// Name of the listener in the configuration.
    pub name: String,
    /// The address in force.
    pub address: SocketAddr,
    /// The service manager passed the socket.
    pub passed: bool,
}

/// What the process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not listening yet.
    Starting,
    /// Taking connections.
    Serving,
    /// Taking no new connections, finishing those it has.
    Draining,
}

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Instance {
    /// An instance that has just started.
    pub fn new(
        workers: Vec<WorkerView>,
        listeners: Vec<ListenerView>,
        fetches: Arc<FetchCounters>,
    ) -> Self {
        Self {
            started: SystemTime::now(),
            workers,
            fetches,
            listeners,
            steering: Arc::default(),
            clock: Instant::now(),
            phase: AtomicU8::new(Phase::Starting as u8),
        }
    }

    /// What the process is doing.
    pub fn phase(&self) -> Phase {
        let phase = self.phase.load(Relaxed);
        [Phase::Starting, Phase::Serving, Phase::Draining]
            .into_iter()
            .find(|known| *known as u8 == phase)
            .unwrap_or(Phase::Starting)
    }

    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// How long the process has run.
    pub fn uptime(&self) -> Duration {
        self.clock.elapsed()
    }
}

impl WorkerView {
    /// A worker that is about to start.
    pub fn new(core: Option<usize>, capacity: usize, counters: Arc<Counters>) -> Self {
        Self {
            core,
            capacity,
            counters,
            alive: AtomicBool::new(true),
        }
    }

    /// Whether its thread runs.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Relaxed)
    }
}
