//! Sessions kept for resumption, by one thread: enough tickets for many connections at once, and none
//! used twice (RFC 8446 appendix C.4). The store that rustls brings keeps eight for a name.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// Sessions of one thread.
#[derive(Default)]
pub(crate) struct Tickets {
    /// Nothing is given out: what comes now is kept, also where each handshake brings only one.
    stocking: AtomicBool,
    names: Mutex<HashMap<ServerName<'static>, Kept>>,
}

#[derive(Default)]
struct Kept {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    tls13: VecDeque<Tls13ClientSessionValue>,
}

impl Tickets {
    fn names(&self) -> MutexGuard<'_, HashMap<ServerName<'static>, Kept>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on sessions are given out, or are not.
    pub(crate) fn stocking(&self, on: bool) {
        self.stocking.store(on, Relaxed);
    }

    /// Connections that could resume now.
    pub(crate) fn stock(&self) -> usize {
        let names = self.names();
        let of = |kept: &Kept| match kept.tls12 {
            // A session of TLS 1.2 may be resumed any number of times.
            Some(_) => usize::MAX / 2,
            None => kept.tls13.len(),
        };
        names.values().map(of).min().unwrap_or(0)
    }
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tickets({})", self.stock())
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.names().entry(name).or_default().group = Some(group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.names().get(&name.to_owned())?.group
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.names().entry(name).or_default().tls12 = Some(value);
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        if self.stocking.load(Relaxed) {
            return None;
        }
        self.names().get(&name.to_owned())?.tls12.clone()
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        if let Some(kept) = self.names().get_mut(name) {
            kept.tls12 = None;
        }
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut names = self.names();
        let tickets = &mut names.entry(name).or_default().tls13;
        if tickets.len() >= MOST {
            tickets.pop_front();
        }
        tickets.push_back(value);
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        if self.stocking.load(Relaxed) {
            return None;
        }
        self.names().get_mut(name)?.tls13.pop_front()
    }
}

/// Tickets kept for a name.
const MOST: usize = 4096;
