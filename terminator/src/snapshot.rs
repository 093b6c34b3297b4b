//! What the workers serve from: an immutable value with a generation number, handed from control to
//! every worker by a [`Publisher`] and its [`Subscriber`]s.
//!
//! A publish copies nothing but the path to the slot that changed, whatever the number of sites. A
//! worker takes a new snapshot between handshakes, woken through its ring by an eventfd; inside a
//! handshake it only reads memory that nobody writes. A worker never frees a snapshot: the publisher
//! keeps each one until every worker has moved on, and drops it on the control thread.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use crate::certificate::{Fingerprint, Identity};
use crate::config::{Confinement, Listener, OnRevoked, ProxyVersion, Steering};
use crate::ocsp::VerifiedStaple;

/// Position of a certificate in [`Table::certificates`] and in [`Snapshot::slots`].
pub type CertificateIndex = u32;
/// Position of a site in [`Table::sites`].
pub type SiteIndex = u32;

/// Everything a handshake needs to know, immutable.
#[derive(Clone)]
pub struct Snapshot {
    /// Grows by one with every publish.
    pub generation: u64,
    /// Sites, names, certificates: changes only at a reload.
    pub table: Arc<Table>,
    /// Stapling state, one slot per certificate of the table.
    pub slots: imbl::Vector<Slot>,
    /// Keys that session tickets are sealed with.
    pub tickets: Arc<TicketKeys>,
}

/// What there is to staple for one certificate.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The generation in which this slot was last set; names the value in caches.
    pub since: u64,
    /// The state.
    pub state: SlotState,
}

/// The states of a [`Slot`].
#[derive(Clone, Debug)]
pub enum SlotState {
    /// Nothing will ever be stapled: no responder, or switched off.
    NotApplicable,
    /// A staple is wanted and none is there.
    Missing,
    /// A verified response for exactly this certificate.
    Stapled(Arc<VerifiedStaple>),
    /// The CA said *revoked*: [`Certificate::on_revoked`] says what becomes of it.
    Revoked,
}

/// The part of a snapshot that only a reload changes.
pub struct Table {
    /// Counts reloads; a new value tells a worker to drop what it derived from the old table.
    pub epoch: u64,
    /// Listeners, in the order of the configuration.
    pub listeners: Vec<Listener>,
    /// Sites, in the order of the configuration.
    pub sites: Vec<Site>,
    /// Certificates, each once, however many sites use it.
    pub certificates: Vec<Certificate>,
    /// How connections find their core.
    pub steering: Steering,
    /// For each listener, its names. Listeners with the same sites share one.
    names: Vec<Arc<Names>>,
}

/// A site as the data plane sees it.
#[derive(Clone, Debug)]
pub struct Site {
    /// First name of the site, for logs and status.
    pub name: String,
    /// Its certificates in order of the configuration.
    pub certificates: Vec<CertificateIndex>,
    /// Where the bytes go; never empty.
    pub backends: Vec<BackendAddress>,
    /// PROXY header sent to backends.
    pub proxy_protocol: Option<ProxyVersion>,
    /// ALPN protocols in order of preference.
    pub alpn: Vec<Vec<u8>>,
    /// The cores that its connections may go to.
    pub confinement: Confinement,
}

/// A backend that can be connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// Unix stream socket.
    Unix(PathBuf),
}

impl std::fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A certificate as the data plane sees it.
pub struct Certificate {
    /// Chain and key, matched.
    pub identity: Arc<Identity>,
    /// Without a valid staple, handshakes with this certificate are refused.
    pub staple_required: bool,
    /// What becomes of it once the CA has revoked it.
    pub on_revoked: OnRevoked,
}

/// Names of one listener: exact ones and the parents of wildcards.
#[derive(Debug, Default)]
pub struct Names {
    exact: HashMap<Box<str>, SiteIndex, foldhash::fast::RandomState>,
    wildcard: HashMap<Box<str>, SiteIndex, foldhash::fast::RandomState>,
}

/// Which site a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This one.
    Site(SiteIndex),
    /// No site has the name and there is no default.
    Unknown,
    /// The client named none and there is no default.
    Unnamed,
}

/// A key that seals session tickets.
pub struct TicketKey {
    /// Written in clear in front of each ticket, so that the key is found again.
    pub name: [u8; 16],
    /// AES-256-GCM key.
    pub key: zeroize::Zeroizing<[u8; 32]>,
}

/// The ticket keys in force: tickets are sealed with the current one, and opened with either.
pub struct TicketKeys {
    /// Seals and opens.
    pub current: TicketKey,
    /// Opens only.
    pub previous: Option<TicketKey>,
}

impl Table {
    /// Builds the name tables. `sites[i].1` lists the listeners of site `i` and `sites[i].2` its names
    /// (lower-case A-labels, wildcards as `*.example.com`); both were validated with the configuration.
    pub fn new(
        epoch: u64,
        listeners: Vec<Listener>,
        sites: Vec<(Site, Vec<usize>, Vec<String>)>,
        certificates: Vec<Certificate>,
    ) -> Self {
        let all = sites.iter().all(|(_, on, _)| on.len() == listeners.len());
        let tables = if all {
            listeners.len().min(1)
        } else {
            listeners.len()
        };
        let mut names: Vec<Names> = (0..tables).map(|_| Names::default()).collect();
        let mut kept = Vec::with_capacity(sites.len());
        for (index, (site, on, site_names)) in sites.into_iter().enumerate() {
            let index = SiteIndex::try_from(index).expect("fewer than 2^32 sites");
            for (listener, table) in names.iter_mut().enumerate() {
                if all || on.contains(&listener) {
                    site_names.iter().for_each(|name| table.insert(name, index));
                }
            }
            kept.push(site);
        }
        let shared: Vec<Arc<Names>> = names.into_iter().map(Arc::new).collect();
        let names = (0..listeners.len())
            .map(|i| Arc::clone(&shared[if all { 0 } else { i }]))
            .collect();
        Self {
            epoch,
            listeners,
            sites: kept,
            certificates,
            steering: Steering::default(),
            names,
        }
    }

    /// Every name of every listener with its site, wildcards by their parent and `true`. A name that
    /// several listeners have may come several times.
    pub fn all_names(&self) -> impl Iterator<Item = (&str, bool, SiteIndex)> {
        let mut seen: Vec<*const Names> = Vec::new();
        let tables = self.names.iter().filter(move |names| {
            let new = !seen.contains(&Arc::as_ptr(names));
            seen.push(Arc::as_ptr(names));
            new
        });
        tables.flat_map(|names| {
            let exact = names
                .exact
                .iter()
                .map(|(name, site)| (&**name, false, *site));
            let wildcard = names
                .wildcard
                .iter()
                .map(|(name, site)| (&**name, true, *site));
            exact.chain(wildcard)
        })
    }

    /// The site that has a name on some listener, default sites left aside.
    pub fn site_named(&self, name: &str) -> Option<SiteIndex> {
        self.names.iter().find_map(|names| names.find(name))
    }

    /// Chooses the site for a server name (already lower case): exact, then wildcard, then the
    /// listener's default.
    pub fn choose(&self, listener: usize, name: Option<&str>) -> Choice {
        if let Some(site) = name.and_then(|name| self.names[listener].find(name)) {
            return Choice::Site(site);
        }
        match (self.listeners[listener].default_site, name) {
            (Some(site), _) => Choice::Site(SiteIndex::try_from(site).expect("validated index")),
            (None, Some(_)) => Choice::Unknown,
            (None, None) => Choice::Unnamed,
        }
    }
}

impl Names {
    fn insert(&mut self, name: &str, site: SiteIndex) {
        match name.strip_prefix("*.") {
            Some(parent) => self.wildcard.insert(parent.into(), site),
            None => self.exact.insert(name.into(), site),
        };
    }

    /// A wildcard stands for exactly one label (RFC 9525 section 6.3).
    fn find(&self, name: &str) -> Option<SiteIndex> {
        self.exact.get(name).copied().or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.wildcard.get(parent).copied()
        })
    }
}

/// Control's end: owns the present snapshot and hands every new one to all workers.
pub struct Publisher {
    current: Arc<Snapshot>,
    mailboxes: Vec<Arc<Mailbox>>,
    /// Older snapshots that a worker may still hold, oldest first.
    retained: VecDeque<Arc<Snapshot>>,
}

/// A worker's end.
pub struct Subscriber {
    mailbox: Arc<Mailbox>,
}

struct Mailbox {
    /// Locked by control to put and by the worker's wake-up task to take; never in a handshake.
    next: Mutex<Option<Arc<Snapshot>>>,
    wake: OwnedFd,
    adopted: AtomicU64,
}

impl Publisher {
    /// Starts with a first snapshot and `workers` subscribers, each of which finds it waiting.
    pub fn new(first: Snapshot, workers: usize) -> io::Result<(Self, Vec<Subscriber>)> {
        let current = Arc::new(first);
        let mailboxes = (0..workers)
            .map(|_| {
                Ok(Arc::new(Mailbox {
                    next: Mutex::new(Some(Arc::clone(&current))),
                    wake: eventfd(0, EventfdFlags::CLOEXEC)?,
                    adopted: AtomicU64::new(0),
                }))
            })
            .collect::<io::Result<Vec<_>>>()?;
        let subscribers = mailboxes
            .iter()
            .map(|mailbox| Subscriber {
                mailbox: Arc::clone(mailbox),
            })
            .collect();
        Ok((
            Self {
                current,
                mailboxes,
                retained: VecDeque::new(),
            },
            subscribers,
        ))
    }

    /// The snapshot last published.
    pub fn current(&self) -> &Arc<Snapshot> {
        &self.current
    }

    /// Publishes the current snapshot with `change` applied, under the next generation number,
    /// which is returned.
    pub fn publish(&mut self, change: impl FnOnce(&mut Snapshot)) -> u64 {
        let mut next = Snapshot::clone(&self.current);
        next.generation += 1;
        change(&mut next);
        debug_assert_eq!(next.slots.len(), next.table.certificates.len());
        let next = Arc::new(next);
        let generation = next.generation;
        let old = std::mem::replace(&mut self.current, next);
        self.retained.push_back(old);
        for mailbox in &self.mailboxes {
            mailbox.put(Arc::clone(&self.current));
        }
        self.prune();
        generation
    }

    /// Drops the snapshots that no worker can hold any more. Call it now and then: a publish does
    /// so too, but the last reload's table would otherwise stay until the next publish.
    pub fn prune(&mut self) {
        let oldest_in_use = self.adopted().min().unwrap_or(self.current.generation);
        while self
            .retained
            .front()
            .is_some_and(|old| old.generation < oldest_in_use)
        {
            self.retained.pop_front();
        }
    }

    /// The generation each worker serves from.
    pub fn adopted(&self) -> impl Iterator<Item = u64> + '_ {
        self.mailboxes
            .iter()
            .map(|m| m.adopted.load(Ordering::Acquire))
    }
}

impl Subscriber {
    /// The newest snapshot, if it was not taken before. The caller must drop the one it used
    /// before it calls [`Subscriber::adopted`].
    pub fn take(&self) -> Option<Arc<Snapshot>> {
        self.mailbox
            .next
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Says that only this generation is in use here from now on.
    pub fn adopted(&self, generation: u64) {
        self.mailbox.adopted.store(generation, Ordering::Release);
    }

    /// Becomes readable when a snapshot waits: an eventfd, eight bytes to read.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.mailbox.wake.as_fd()
    }
}

impl Mailbox {
    fn put(&self, snapshot: Arc<Snapshot>) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot);
        // The counter cannot overflow between two reads of a live worker; a dead one needs no wake.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

impl Snapshot {
    /// The fingerprint of a certificate of this snapshot.
    pub fn fingerprint(&self, certificate: CertificateIndex) -> Fingerprint {
        self.table.certificates[certificate as usize]
            .identity
            .leaf
            .fingerprint
    }

    /// Sets the stapling state of one certificate; a staple for another certificate is not taken,
    /// which is returned as `false`.
    pub fn set_slot(&mut self, certificate: CertificateIndex, state: SlotState) -> bool {
        if let SlotState::Stapled(staple) = &state
            && staple.certificate() != self.fingerprint(certificate)
        {
            return false;
        }
        let since = self.generation;
        self.slots.set(certificate as usize, Slot { since, state });
        true
    }
}
