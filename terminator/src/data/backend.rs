//! Backends as one worker sees them: which is least busy, which is set aside, and how to reach one.
//!
//! Each worker judges for itself from its own connections, so no core writes what another reads.
//! After [`FAILURES`] failed attempts in a row a backend is set aside, for longer each time; it is
//! tried again when its time is over, or when no other is left.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use smallvec::SmallVec;
use socket2::SockAddr;

use super::core::Core;
use super::ready::ReadySite;
use super::watch::{Ticks, Watch};
use crate::observability::counters::BackendFailure;
use crate::snapshot::BackendAddress;
use crate::sys::sockets;
use crate::sys::uring::Socket;

/// One backend address.
pub(super) struct Backend {
    address: BackendAddress,
    connections: Cell<u32>,
    /// Failed attempts since the last success.
    failures: Cell<u32>,
    set_aside_until: Cell<Ticks>,
}

/// All backends of a worker, by address: two sites with one backend share what is known of it.
#[derive(Default)]
pub(super) struct Backends(RefCell<HashMap<BackendAddress, Rc<Backend>>>);

/// A connection to a backend, counted until dropped.
pub(super) struct Connected {
    /// The socket.
    pub(super) socket: Socket,
    backend: Rc<Backend>,
}

impl Backends {
    /// The backend at an address.
    pub(super) fn at(&self, address: &BackendAddress) -> Rc<Backend> {
        let mut backends = self.0.borrow_mut();
        if let Some(backend) = backends.get(address) {
            return Rc::clone(backend);
        }
        let backend = Rc::new(Backend {
            address: address.clone(),
            connections: Cell::new(0),
            failures: Cell::new(0),
            set_aside_until: Cell::new(0),
        });
        backends.insert(address.clone(), Rc::clone(&backend));
        backend
    }

    /// Forgets backends that no site and no connection uses any more.
    pub(super) fn prune(&self) {
        self.0
            .borrow_mut()
            .retain(|_, backend| Rc::strong_count(backend) > 1);
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.backend
            .connections
            .set(self.backend.connections.get() - 1);
    }
}

/// Connects to one of the site's backends: the least busy first, then the next, each once, until one
/// takes the connection. Nothing has been sent when it returns; where bytes are `waiting` to go, they
/// must go at once then.
pub(super) async fn connect(
    core: &Core,
    watch: &Watch,
    site: &ReadySite,
    waiting: bool,
) -> Option<Connected> {
    let mut tried: SmallVec<[usize; 4]> = SmallVec::new();
    while let Some(index) = choose(&site.backends, &tried, core.watches.now(), core.turn()) {
        tried.push(index);
        let backend = &site.backends[index];
        match attempt(core, watch, backend, waiting).await {
            Ok(socket) => {
                backend.failures.set(0);
                core.counters.backend_connects.one();
                return Some(Connected {
                    socket,
                    backend: Rc::clone(backend),
                });
            }
            Err(error) => {
                backend.connections.set(backend.connections.get() - 1);
                if watch.ended().is_some() {
                    return None;
                }
                failed(core, backend, &error);
            }
        }
    }
    None
}

/// The backend with the fewest connections among those not tried, set-aside ones last; `turn` decides
/// between equals.
fn choose(backends: &[Rc<Backend>], tried: &[usize], now: Ticks, turn: usize) -> Option<usize> {
    let count = backends.len();
    (0..count)
        .map(|i| (i + turn) % count)
        .filter(|i| !tried.contains(i))
        .min_by_key(|&i| {
            let backend = &backends[i];
            (
                backend.set_aside_until.get() > now,
                backend.connections.get(),
            )
        })
}

async fn attempt(
    core: &Core,
    watch: &Watch,
    backend: &Rc<Backend>,
    waiting: bool,
) -> io::Result<Socket> {
    backend.connections.set(backend.connections.get() + 1);
    let address = match &backend.address {
        BackendAddress::Tcp(address) => SockAddr::from(*address),
        BackendAddress::Unix(path) => SockAddr::unix(path)?,
    };
    let socket = Socket::from(sockets::stream_to(&address, waiting)?);
    watch.await_connect(socket.clone(), core.bounds.connect);
    socket.connect(address).await?;
    Ok(socket)
}

fn failed(core: &Core, backend: &Backend, error: &io::Error) {
    let failure = failure(error);
    core.counters.backend_failures.one(failure);
    tracing::debug!(backend = %backend.address, %error, "backend attempt failed");
    if failure == BackendFailure::Local {
        return;
    }
    let now = core.watches.now();
    if backend.set_aside_until.get() > now {
        // Tried for want of another, or begun before: one absence, however many attempts fail.
        return;
    }
    let failures = backend.failures.get().saturating_add(1);
    backend.failures.set(failures);
    if failures >= FAILURES {
        let doublings = (failures - FAILURES).min(MOST_DOUBLINGS);
        core.counters.backend_ejections.one();
        tracing::warn!(backend = %backend.address, failures, %error, "backend set aside");
        backend
            .set_aside_until
            .set(now + (FIRST_ABSENCE << doublings));
    }
}

fn failure(error: &io::Error) -> BackendFailure {
    match error.raw_os_error() {
        Some(libc::ECANCELED | libc::ETIMEDOUT) => BackendFailure::TimedOut,
        Some(libc::ECONNREFUSED | libc::ENOENT | libc::ECONNRESET | libc::EACCES) => {
            BackendFailure::Refused
        }
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS | libc::EADDRNOTAVAIL) => {
            BackendFailure::Local
        }
        _ => BackendFailure::Unreachable,
    }
}

/// Failed attempts in a row after which a backend is set aside.
const FAILURES: u32 = 3;

/// Ticks that a backend is set aside the first time: 1 s.
const FIRST_ABSENCE: Ticks = 4;

/// Times that this may double: 64 s.
const MOST_DOUBLINGS: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(connections: &[u32]) -> Vec<Rc<Backend>> {
        let all = Backends::default();
        connections
            .iter()
            .enumerate()
            .map(|(i, &n)| {
                let address = BackendAddress::Tcp(([127, 0, 0, 1], i as u16).into());
                let backend = all.at(&address);
                backend.connections.set(n);
                backend
            })
            .collect()
    }

    #[test]
    fn the_least_busy_backend_is_chosen_and_equals_take_turns() {
        let some = backends(&[3, 1, 2]);
        assert_eq!(choose(&some, &[], 0, 0), Some(1));
        assert_eq!(choose(&some, &[1], 0, 0), Some(2));
        assert_eq!(choose(&some, &[0, 1, 2], 0, 0), None);
        let equal = backends(&[0, 0]);
        assert_eq!(choose(&equal, &[], 0, 0), Some(0));
        assert_eq!(choose(&equal, &[], 0, 1), Some(1));
    }

    #[test]
    fn a_backend_set_aside_is_chosen_only_when_no_other_is_left() {
        let some = backends(&[0, 9]);
        some[0].set_aside_until.set(10);
        assert_eq!(choose(&some, &[], 9, 0), Some(1));
        assert_eq!(choose(&some, &[1], 9, 0), Some(0));
        assert_eq!(choose(&some, &[], 10, 0), Some(0));
    }
}
