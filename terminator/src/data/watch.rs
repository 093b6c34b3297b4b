//! Time in the data plane: one coarse tick for all connections, no timer for any.
//!
//! Every connection has a [`Watch`] in the worker's [`Watches`]. A connection notes what it waits for
//! and when bytes moved; [`Watches::sweep`], called once a tick, ends what waited too long, by
//! shutting its sockets down. The connection's own task does everything else: a sweep never frees
//! anything.

use std::cell::{Cell, RefCell};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use slab::Slab;

use crate::sys::uring::Socket;

/// Length of a tick: the precision of every time-out of the data plane.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// A count of ticks since the worker started.
pub(super) type Ticks = u32;

/// `duration` in ticks, rounded up, so that nothing ends early.
pub(super) fn ticks(duration: Duration) -> Ticks {
    let ticks = duration.as_millis().div_ceil(TICK.as_millis());
    Ticks::try_from(ticks)
        .unwrap_or(Ticks::MAX / 2)
        .min(Ticks::MAX / 2)
        + 1
}

/// What ends a connection from outside its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// A deadline passed, or nothing moved for too long.
    TimedOut,
    /// The worker's drain time ran out.
    Drained,
}

/// What a sweep looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// For the handshake, until this tick.
    Handshake(Ticks),
    /// For a backend to take the connection, until this tick.
    Connect(Ticks),
    /// For bytes, at most this many ticks after the last.
    Bytes(Ticks),
    /// For the last bytes to leave, until this tick.
    Farewell(Ticks),
}

/// One connection, as a sweep sees it.
pub(super) struct Watch {
    clock: Rc<Cell<Ticks>>,
    wait: Cell<Wait>,
    moved: Cell<Ticks>,
    ended: Cell<Option<Ended>>,
    client: Socket,
    backend: RefCell<Option<Socket>>,
}

impl Watch {
    /// The client's side.
    pub(super) fn client(&self) -> &Socket {
        &self.client
    }

    /// From now on the backend behind `socket` must take the connection within `bound`.
    pub(super) fn await_connect(&self, socket: Socket, bound: Ticks) {
        *self.backend.borrow_mut() = Some(socket);
        self.wait.set(Wait::Connect(self.clock.get() + bound));
    }

    /// From now on bytes must move at least once in `bound`.
    pub(super) fn await_bytes(&self, bound: Ticks) {
        self.moved();
        self.wait.set(Wait::Bytes(bound));
    }

    /// Bytes moved just now.
    pub(super) fn moved(&self) {
        self.moved.set(self.clock.get());
    }

    /// What ended the connection, if a sweep did.
    pub(super) fn ended(&self) -> Option<Ended> {
        self.ended.get()
    }

    /// Ends both streams towards clinch, so that the task says farewell to the client and ends; what
    /// the client does not take within `FAREWELL` is lost.
    fn end_politely(&self, why: Ended) {
        self.ended.set(Some(self.ended.get().unwrap_or(why)));
        self.wait.set(Wait::Farewell(self.clock.get() + FAREWELL));
        self.client.shutdown(Shutdown::Read);
        self.end_backend();
    }

    /// Ends the connection at once: whatever its task waits for completes.
    pub(super) fn end(&self, why: Ended) {
        self.ended.set(Some(self.ended.get().unwrap_or(why)));
        self.client.shutdown(Shutdown::Both);
        self.end_backend();
    }

    fn end_backend(&self) {
        if let Some(backend) = &*self.backend.borrow() {
            if matches!(self.wait.get(), Wait::Connect(_)) {
                // A connect in flight is not ended by a shutdown, only by a cancel.
                backend.cancel();
            }
            backend.shutdown(Shutdown::Both);
        }
    }

    fn sweep(&self) {
        let now = self.clock.get();
        match self.wait.get() {
            Wait::Handshake(until) if now >= until => self.end(Ended::TimedOut),
            Wait::Connect(until) if now >= until => {
                if let Some(backend) = &*self.backend.borrow() {
                    backend.cancel();
                }
            }
            Wait::Bytes(bound) => {
                let still = now.saturating_sub(self.moved.get());
                if still >= bound {
                    self.end_politely(Ended::TimedOut);
                }
            }
            Wait::Farewell(until) if now >= until => self.end(Ended::TimedOut),
            Wait::Handshake(_) | Wait::Connect(_) | Wait::Farewell(_) => {}
        }
    }
}

/// All connections of a worker.
#[derive(Default)]
pub(super) struct Watches {
    clock: Rc<Cell<Ticks>>,
    watches: RefCell<Slab<Rc<Watch>>>,
}

/// Keeps a [`Watch`] in its worker's table until dropped.
pub(super) struct Watched {
    all: Rc<Watches>,
    key: usize,
    watch: Rc<Watch>,
}

impl Watches {
    /// Takes up a client that must complete its handshake within `bound`.
    pub(super) fn take_up(self: &Rc<Self>, client: Socket, bound: Ticks) -> Watched {
        let watch = Rc::new(Watch {
            clock: Rc::clone(&self.clock),
            wait: Cell::new(Wait::Handshake(self.clock.get() + bound)),
            moved: Cell::new(self.clock.get()),
            ended: Cell::new(None),
            client,
            backend: RefCell::new(None),
        });
        let key = self.watches.borrow_mut().insert(Rc::clone(&watch));
        Watched {
            all: Rc::clone(self),
            key,
            watch,
        }
    }

    /// The present tick.
    pub(super) fn now(&self) -> Ticks {
        self.clock.get()
    }

    /// How many connections there are.
    pub(super) fn len(&self) -> usize {
        self.watches.borrow().len()
    }

    /// Advances the clock to `now` and looks at every connection.
    pub(super) fn sweep(&self, now: Ticks) {
        self.clock.set(now);
        self.watches
            .borrow()
            .iter()
            .for_each(|(_, watch)| watch.sweep());
    }

    /// Ends every connection; those that relay get to say farewell.
    pub(super) fn end_all(&self, why: Ended) {
        for (_, watch) in &*self.watches.borrow() {
            match watch.wait.get() {
                Wait::Bytes(_) => watch.end_politely(why),
                Wait::Handshake(_) | Wait::Connect(_) | Wait::Farewell(_) => watch.end(why),
            }
        }
    }
}

impl std::ops::Deref for Watched {
    type Target = Watch;

    fn deref(&self) -> &Watch {
        &self.watch
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.all.watches.borrow_mut().remove(self.key);
    }
}

/// Ticks that a connection ended by a time-out has to send its close_notify.
const FAREWELL: Ticks = 8;
