//! A worker thread: its ring, its runtime, its beginning and its end.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};

use super::WorkerSetup;
use super::accept::{self, Kind, accept};
use super::core::Core;
use super::handover::take_over;
use super::ready;
use super::watch::{Ended, TICK, Ticks, ticks};
use crate::snapshot::{Snapshot, Subscriber};
use crate::sys::affinity;
use crate::sys::uring::{self, Socket};

/// A running worker.
pub struct Worker {
    thread: JoinHandle<()>,
    drain: OwnedFd,
}

/// Starts a worker thread and returns once its cryptography is warm and it accepts connections.
pub fn start(setup: WorkerSetup) -> io::Result<Worker> {
    let drain = eventfd(0, EventfdFlags::CLOEXEC)?;
    let told = drain.try_clone()?;
    let (started, has_started) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(format!("worker-{}", setup.index))
        .spawn(move || work(setup, told, &started))?;
    match has_started.recv() {
        Ok(Ok(())) => Ok(Worker { thread, drain }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::other(
            "a worker thread ended before it could start",
        )),
    }
}

impl Worker {
    /// Tells the worker to stop accepting, to let connections finish for at most
    /// [`crate::limits::Timeouts::drain`], and to end.
    pub fn drain(&self) {
        // An eventfd takes any number of these.
        let _ = rustix::io::write(&self.drain, &1u64.to_ne_bytes());
    }

    /// Whether the thread has ended, by drain or by fault.
    pub fn ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the thread to end; an error says that it panicked.
    pub fn join(self) -> std::thread::Result<()> {
        self.thread.join()
    }
}

/// The thread's whole life.
fn work(setup: WorkerSetup, drain: OwnedFd, started: &mpsc::SyncSender<io::Result<()>>) {
    let prepared = prepare(&setup);
    let first = match prepared {
        Ok(first) => first,
        Err(error) => {
            // Whoever started the worker waits for this word.
            let _ = started.send(Err(error));
            return;
        }
    };
    uring::run(async move {
        let mut core = Core::new(
            setup.index,
            first,
            setup.counters,
            &setup.limits,
            &setup.timeouts,
            setup.capacity,
        );
        if let Some(desk) = &setup.desk {
            core.peers.clone_from(&desk.peers);
        }
        let core = Rc::new(core);
        if let Some(desk) = setup.desk {
            uring::spawn(take_over(Rc::clone(&core), desk));
        }
        let generation = core.snapshot.borrow().generation;
        setup.subscriber.adopted(generation);
        uring::spawn(follow(Rc::clone(&core), setup.subscriber));
        let ordinary = setup.sockets.into_iter().map(|socket| (socket, Kind::Own));
        let landings = setup.landings.into_iter();
        let landings = landings.map(|socket| (socket, Kind::Landing));
        let listeners = ordinary
            .chain(landings)
            .map(|((listener, socket), kind)| {
                let socket = Socket::from(OwnedFd::from(socket));
                for _ in 0..accept::IN_FLIGHT {
                    uring::spawn(accept(Rc::clone(&core), listener, socket.clone(), kind));
                }
                (listener, socket)
            })
            .collect();
        let _ = started.send(Ok(()));
        run(&core, listeners, drain, ticks(setup.timeouts.drain)).await;
    });
}

/// Pins the thread and makes the cryptography ready: the first use of it takes some 20 ms.
fn prepare(setup: &WorkerSetup) -> io::Result<std::sync::Arc<Snapshot>> {
    if let Some(core) = setup.core {
        affinity::pin(core)?;
    }
    let first = setup
        .subscriber
        .take()
        .ok_or_else(|| io::Error::other("a worker was started without a snapshot"))?;
    warm_up(&first).map_err(io::Error::other)?;
    Ok(first)
}

/// One key exchange of each group and one signature with the first key.
fn warm_up(snapshot: &Snapshot) -> Result<(), rustls::Error> {
    for listener in &snapshot.table.listeners {
        for group in ready::provider(listener).kx_groups {
            let ours = group.start()?;
            group.start_and_complete(ours.pub_key())?;
        }
    }
    if let Some(certificate) = snapshot.table.certificates.first() {
        let key = certificate.identity.signing_key()?;
        let schemes = rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes();
        if let Some(signer) = key.choose_scheme(&schemes) {
            signer.sign(b"clinch")?;
        }
    }
    Ok(())
}

/// Takes up each new snapshot.
async fn follow(core: Rc<Core>, subscriber: Subscriber) {
    let Ok(wake) = subscriber.wake_fd().try_clone_to_owned() else {
        tracing::error!("no descriptor left to follow snapshots with");
        return;
    };
    let wake = Socket::from(wake);
    loop {
        if let Some(snapshot) = subscriber.take() {
            let generation = snapshot.generation;
            core.adopt(snapshot);
            subscriber.adopted(generation);
        }
        if wake.read_event().await.is_err() {
            return;
        }
    }
}

/// Sweeps until told to drain, then until every connection has ended.
async fn run(
    core: &Rc<Core>,
    mut listeners: Vec<(usize, Socket)>,
    drain: OwnedFd,
    patience: Ticks,
) {
    let told = Rc::new(Cell::new(false));
    uring::spawn(listen_for(Socket::from(drain), Rc::clone(&told)));
    let started = Instant::now();
    let mut give_up = Ticks::MAX;
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        interval.tick().await;
        let now = started.elapsed().as_millis() / TICK.as_millis();
        let now = Ticks::try_from(now).unwrap_or(Ticks::MAX / 2);
        core.watches.sweep(now);
        if told.get() && !core.draining.replace(true) {
            give_up = now.saturating_add(patience);
            accept::stop(core, std::mem::take(&mut listeners));
        }
        if core.draining.get() {
            if core.watches.len() == 0 {
                return;
            }
            if now >= give_up {
                give_up = Ticks::MAX;
                core.watches.end_all(Ended::Drained);
            }
        }
    }
}

async fn listen_for(drain: Socket, told: Rc<Cell<bool>>) {
    // Without the word the worker serves on, which is the safe side.
    if drain.read_event().await.is_ok() {
        told.set(true);
    }
}
