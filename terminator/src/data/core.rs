//! What the connections of one worker share. It never leaves the worker's thread, so nothing in it is
//! locked or counted atomically.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use super::backend::Backends;
use super::buffers::Buffers;
use super::handover::Peer;
use super::pipes::Pipes;
use super::ready::Ready;
use super::tickets;
use super::watch::{Ticks, Watch, Watched, Watches, ticks};
use crate::limits::{Limits, Timeouts};
use crate::observability::counters::Counters;
use crate::snapshot::Snapshot;
use crate::sys::uring::Socket;

/// A worker's state.
pub(super) struct Core {
    /// The worker's index.
    pub(super) index: usize,
    /// The snapshot in use. Borrowed between two awaits, never cloned: the count of its references is
    /// memory that other cores write.
    pub(super) snapshot: RefCell<Arc<Snapshot>>,
    /// What this worker counts.
    pub(super) counters: Arc<Counters>,
    /// Time-outs in ticks, and sizes.
    pub(super) bounds: Bounds,
    /// Buffers to lend.
    pub(super) buffers: Buffers,
    /// Pipes to lend.
    pub(super) pipes: Rc<Pipes>,
    /// Every connection.
    pub(super) watches: Rc<Watches>,
    /// Certificates, configurations and sites ready to serve.
    pub(super) ready: RefCell<Ready>,
    /// Backends and what is known of them.
    pub(super) backends: Backends,
    /// Where a ClientHello in several records is put together.
    pub(super) scratch: RefCell<Vec<u8>>,
    /// Accept loops that wait for a connection to end wait here.
    pub(super) room: Notify,
    /// Set when the worker is told to drain.
    pub(super) draining: Cell<bool>,
    /// Workers that connections can be handed over to, in order of their index.
    pub(super) peers: Vec<Peer>,
    capacity: usize,
    /// Accept operations in flight, each of which may become a connection.
    accepting: Cell<usize>,
    clients: RefCell<HashMap<IpAddr, u32, foldhash::fast::RandomState>>,
    turn: Cell<usize>,
}

/// Bounds of a connection, times in ticks.
pub(super) struct Bounds {
    pub(super) handshake: Ticks,
    pub(super) connect: Ticks,
    pub(super) idle: Ticks,
    pub(super) linger: Ticks,
    pub(super) handshake_bytes: usize,
    pub(super) connections_per_client: u32,
}

/// A place among a worker's connections, held until dropped.
pub(super) struct Place {
    core: Rc<Core>,
    watch: Watched,
    client: Cell<Option<IpAddr>>,
    handshaking: Cell<bool>,
}

impl Core {
    pub(super) fn new(
        index: usize,
        snapshot: Arc<Snapshot>,
        counters: Arc<Counters>,
        limits: &Limits,
        timeouts: &Timeouts,
        capacity: usize,
    ) -> Self {
        tickets::adopt(&snapshot.tickets);
        counters.generation.set(snapshot.generation);
        Self {
            index,
            snapshot: RefCell::new(snapshot),
            counters,
            bounds: Bounds {
                handshake: ticks(timeouts.handshake),
                connect: ticks(timeouts.connect),
                idle: ticks(timeouts.idle),
                linger: ticks(timeouts.linger),
                handshake_bytes: limits.handshake_bytes,
                connections_per_client: limits.connections_per_client,
            },
            buffers: Buffers::new(limits.read_buffer),
            pipes: Rc::default(),
            watches: Rc::default(),
            ready: RefCell::new(Ready::new(limits.ready_certificates_per_core)),
            backends: Backends::default(),
            scratch: RefCell::new(vec![0; limits.handshake_bytes]),
            room: Notify::new(),
            draining: Cell::new(false),
            peers: Vec::new(),
            capacity,
            accepting: Cell::new(0),
            clients: RefCell::default(),
            turn: Cell::new(index),
        }
    }

    /// Serves from `snapshot` from now on; drops the one before.
    pub(super) fn adopt(&self, snapshot: Arc<Snapshot>) {
        tickets::adopt(&snapshot.tickets);
        self.counters.generation.set(snapshot.generation);
        let before = self.snapshot.replace(snapshot);
        if before.table.epoch != self.snapshot.borrow().table.epoch {
            self.backends.prune();
        }
    }

    /// Reserves a place for a connection about to be accepted; `false` if all are taken.
    pub(super) fn reserve(&self) -> bool {
        let free = self.watches.len() + self.accepting.get() < self.capacity;
        if free {
            self.accepting.set(self.accepting.get() + 1);
        } else if self.watches.len() >= self.capacity {
            self.counters.full.one();
        }
        free
    }

    /// Gives a reservation back, as the accept is over.
    pub(super) fn accepted(&self) {
        self.accepting.set(self.accepting.get() - 1);
    }

    /// A number that goes round, to decide between equals.
    pub(super) fn turn(&self) -> usize {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        turn
    }
}

impl Place {
    /// Takes a place for a connection just accepted.
    pub(super) fn take(core: &Rc<Core>, client: Socket) -> Self {
        let watch = core.watches.take_up(client, core.bounds.handshake);
        core.counters.accepted.one();
        core.counters.active.set(core.watches.len() as u64);
        core.counters
            .handshaking
            .set(core.counters.handshaking.value() + 1);
        Self {
            core: Rc::clone(core),
            watch,
            client: Cell::new(None),
            handshaking: Cell::new(true),
        }
    }

    /// The connection, as the sweep sees it.
    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// The worker.
    pub(super) fn core(&self) -> &Rc<Core> {
        &self.core
    }

    /// Counts the connection to a client; `false` if that client holds its share already.
    pub(super) fn belongs_to(&self, client: IpAddr) -> bool {
        let bound = self.core.bounds.connections_per_client;
        if bound == 0 {
            return true;
        }
        let mut clients = self.core.clients.borrow_mut();
        let held = clients.entry(client).or_default();
        if *held >= bound {
            return false;
        }
        *held += 1;
        self.client.set(Some(client));
        true
    }

    /// The handshake is over, well or badly.
    pub(super) fn handshake_over(&self) {
        if self.handshaking.replace(false) {
            let gauge = &self.core.counters.handshaking;
            gauge.set(gauge.value().saturating_sub(1));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.handshake_over();
        if let Some(client) = self.client.get() {
            let mut clients = self.core.clients.borrow_mut();
            if let Some(held) = clients.get_mut(&client) {
                *held -= 1;
                if *held == 0 {
                    clients.remove(&client);
                }
            }
        }
        // The watch itself leaves the table right after this.
        self.core
            .counters
            .active
            .set(self.core.watches.len() as u64 - 1);
        self.core.room.notify_one();
    }
}
