//! Hand-over: a connection that came to one worker and belongs to another goes there, descriptor
//! and bytes read, over a bounded queue without locks.
//!
//! The server name decides, once the ClientHello is whole; which worker owns it is for
//! [`steering`](crate::steering) to say. Where the owner's queue is full or gone, the connection
//! is served where it is: nothing is ever lost here.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use clinch_hello::Reading;
use rustix::event::{EventfdFlags, eventfd};

use super::buffers::Chunk;
use super::connection::{Ends, serve_handed};
use super::core::{Core, Place};
use super::io::{Pace, receive};
use super::watch::Watch;
use crate::limits::HANDED_OVER_WAITING;
use crate::snapshot::Choice;
use crate::steering;
use crate::sys::uring::{self, Socket};

/// A worker's end: its own queue, and the way to everybody else's.
pub struct Desk {
    pub(super) peers: Vec<Peer>,
    inbox: Receiver<Handed>,
    wake: Arc<OwnedFd>,
}

/// The way to one worker.
#[derive(Clone)]
pub(super) struct Peer {
    /// The standard library's bounded channel: an array with atomic positions; `try_send` takes no
    /// lock unless a receiver sleeps in it, which none here ever does.
    queue: SyncSender<Handed>,
    wake: Arc<OwnedFd>,
}

/// A connection on its way.
pub(super) struct Handed {
    client: OwnedFd,
    listener: usize,
    ends: Ends,
    accepted: Instant,
    bytes: Vec<u8>,
}

/// Makes a desk for each worker.
pub fn desks(workers: usize) -> io::Result<Vec<Desk>> {
    let mut peers = Vec::with_capacity(workers);
    let mut inboxes = Vec::with_capacity(workers);
    for _ in 0..workers {
        let (queue, inbox) = sync_channel(HANDED_OVER_WAITING);
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        peers.push(Peer {
            queue,
            wake: Arc::clone(&wake),
        });
        inboxes.push((inbox, wake));
    }
    let desk = |(inbox, wake)| Desk {
        peers: peers.clone(),
        inbox,
        wake,
    };
    Ok(inboxes.into_iter().map(desk).collect())
}

/// Where a connection belongs.
enum Owner {
    Here,
    At(usize),
    /// The ClientHello is not whole yet.
    Unknown,
}

/// Hands a connection over if it belongs to another worker; else says that it is to be served here.
pub(super) async fn keep(
    core: &Core,
    watch: &Watch,
    listener: usize,
    ends: &Ends,
    accepted: Instant,
    input: &mut Chunk,
) -> bool {
    if core.peers.len() < 2 || !core.snapshot.borrow().table.steering.hands_over() {
        return true;
    }
    loop {
        match owner(core, listener, input) {
            Owner::Here => return true,
            Owner::At(worker) => {
                if pass(core, watch, worker, listener, ends, accepted, input).is_err() {
                    core.counters.kept_misplaced.one();
                    return true;
                }
                core.counters.handed_over.one();
                input.release(&core.buffers);
                return false;
            }
            Owner::Unknown => {}
        }
        // What ends the stream is met again, and counted, by whoever serves.
        match receive(core, watch.client(), input, &mut Pace::Single).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return true,
        }
    }
}

fn owner(core: &Core, listener: usize, input: &Chunk) -> Owner {
    let mut scratch = core.scratch.borrow_mut();
    let hello = match clinch_hello::read(input.bytes(), &mut scratch) {
        Reading::Incomplete => return Owner::Unknown,
        Reading::Complete(hello) => hello,
        // Whatever it is, it is refused where it is.
        _ => return Owner::Here,
    };
    let mut lower = [0; 255];
    let name = hello.server_name();
    let name = name.and_then(|raw| clinch_hello::normalise_name(raw, &mut lower));
    let snapshot = core.snapshot.borrow();
    let Choice::Site(site) = snapshot.table.choose(listener, name) else {
        return Owner::Here;
    };
    let site = &snapshot.table.sites[site as usize];
    let placement = steering::place(&site.name, &site.confinement, core.peers.len());
    match steering::owner(&placement, core.index, core.turn()) {
        Some(worker) => Owner::At(worker),
        None => Owner::Here,
    }
}

fn pass(
    core: &Core,
    watch: &Watch,
    worker: usize,
    listener: usize,
    ends: &Ends,
    accepted: Instant,
    input: &Chunk,
) -> io::Result<()> {
    let peer = core.peers.get(worker).ok_or(io::ErrorKind::NotFound)?;
    let handed = Handed {
        // A second descriptor: the first is closed with this worker's place.
        client: watch.client().as_fd().try_clone_to_owned()?,
        listener,
        ends: *ends,
        accepted,
        bytes: input.bytes().to_vec(),
    };
    let refused = |_| io::Error::from(io::ErrorKind::WouldBlock);
    peer.queue.try_send(handed).map_err(refused)?;
    // The counter cannot overflow between two reads of a live worker; a dead one needs no wake.
    let _ = rustix::io::write(&peer.wake, &1u64.to_ne_bytes());
    Ok(())
}

/// Serves what other workers hand over, as long as the worker lives.
pub(super) async fn take_over(core: Rc<Core>, desk: Desk) {
    let Ok(wake) = desk.wake.try_clone() else {
        tracing::error!("no descriptor left to take connections over with");
        return;
    };
    let wake = Socket::from(wake);
    loop {
        while let Ok(handed) = desk.inbox.try_recv() {
            core.counters.taken_over.one();
            let place = Place::take(&core, Socket::from(handed.client));
            let mut input = Chunk::default();
            input.append(&handed.bytes, &core.buffers);
            let (accepted, listener, ends) = (handed.accepted, handed.listener, handed.ends);
            uring::spawn(serve_handed(place, accepted, listener, ends, input));
        }
        if wake.read_event().await.is_err() {
            return;
        }
    }
}
