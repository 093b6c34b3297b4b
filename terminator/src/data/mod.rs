//! The data plane: one thread per core that accepts, handshakes and relays.
//!
//! [`start`] takes a worker's sockets, its [`Subscriber`] and its counters and runs until it is told
//! to drain. The data plane reads snapshots and never asks control for anything; it does not load
//! certificates, fetch responses or decide policy.

mod accept;
mod backend;
mod buffers;
mod connection;
mod core;
mod course;
mod driven;
#[doc(hidden)]
pub mod fuzzing;
pub mod handover;
mod handshake;
mod io;
mod ktls;
mod pipes;
mod proxy;
mod ready;
mod relay;
mod session;
mod tickets;
mod watch;
mod worker;

use std::net::TcpListener;
use std::sync::Arc;

use crate::limits::{Limits, Timeouts};
use crate::observability::counters::Counters;
use crate::snapshot::Subscriber;

pub use worker::{Worker, start};

/// What one worker is given.
pub struct WorkerSetup {
    /// Position among the workers; names the thread `worker-N`.
    pub index: usize,
    /// The core it is pinned to; `None` leaves it to the scheduler.
    pub core: Option<usize>,
    /// Listening sockets, each with the index of its listener in the snapshot's table.
    pub sockets: Vec<(usize, TcpListener)>,
    /// Where snapshots come from. The first must be waiting already.
    pub subscriber: Subscriber,
    /// Written by this worker alone.
    pub counters: Arc<Counters>,
    /// Bounds.
    pub limits: Limits,
    /// Client connections this worker may hold (the resolved `connections_per_worker`).
    pub capacity: usize,
    /// Time-outs.
    pub timeouts: Timeouts,
    /// Landing listeners to accept from (see [`crate::steering`]), each with the index of its
    /// listener.
    pub landings: Vec<(usize, TcpListener)>,
    /// Where connections of other workers go, and ours come from; `None`: each keeps what it gets.
    pub desk: Option<handover::Desk>,
}
