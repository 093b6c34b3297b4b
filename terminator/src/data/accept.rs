//! Accept loops: take connections while there is a place for one, pause when there is none.

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use super::connection::serve;
use super::core::{Core, Place};
use crate::observability::counters::AcceptFailure;
use crate::sys::landing;
use crate::sys::uring::{self, Socket};

/// Accept operations kept in flight on each socket: as many connections are taken in one turn of the
/// ring.
pub(super) const IN_FLIGHT: usize = 8;

/// Which of a worker's sockets one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its own, where its connections come.
    Own,
    /// A landing listener, where one comes only if its plug was missing.
    Landing,
}

/// Takes off the filter that a connection of a landing listener inherits; others have none, which
/// is the only way this can fail.
fn unfilter(client: &Socket) {
    let _ = landing::unfilter(client.as_fd());
}

/// Accepts on one listening socket until the worker drains.
///
/// Several loops run on one socket. At the worker's capacity they wait, and the kernel's backlog
/// pushes back.
pub(super) async fn accept(core: Rc<Core>, listener: usize, socket: Socket, kind: Kind) {
    while !core.draining.get() {
        if !core.reserve() {
            core.room.notified().await;
            continue;
        }
        let accepted = socket.accept().await;
        core.accepted();
        match accepted {
            Ok((client, peer)) => {
                if kind == Kind::Landing {
                    core.counters.landed.one();
                    unfilter(&client);
                }
                let place = Place::take(&core, client);
                uring::spawn(serve(place, listener, peer));
            }
            Err(error) => pause_after(&core, &error).await,
        }
    }
}

/// Ends the accept loops. Connections that wait in the queue of a socket of our own are taken first,
/// as closing it would reset them; a socket that a service manager passed is left as it is for
/// whoever gets it next.
pub(super) fn stop(core: &Rc<Core>, listeners: Vec<(usize, Socket)>) {
    core.room.notify_waiters();
    for (listener, socket) in listeners {
        socket.cancel();
        while let Some((client, peer)) = socket.take_waiting() {
            unfilter(&client);
            let place = Place::take(core, client);
            uring::spawn(serve(place, listener, peer));
        }
    }
}

/// Counts a failed accept and waits where waiting helps.
async fn pause_after(core: &Core, error: &io::Error) {
    if core.draining.get() {
        return;
    }
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => {
            core.counters
                .accept_failures
                .one(AcceptFailure::NoDescriptors);
            tracing::warn!(%error, "cannot accept; trying again in {PAUSE:?}");
            tokio::time::sleep(PAUSE).await;
        }
        // The client was gone before it was accepted.
        Some(libc::ECONNABORTED | libc::EINTR | libc::EPROTO) => {}
        _ => {
            core.counters.accept_failures.one(AcceptFailure::Other);
            tracing::warn!(%error, "cannot accept");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// How long accepting rests when the process is out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);
