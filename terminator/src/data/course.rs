//! The course of one relayed connection, whoever seals its records: its sockets, what went wrong first,
//! and how it came to an end.
//!
//! It moves no bytes to or from the client. Two directions share one, and each calls
//! [`Course::finish`] when it is over.

use std::cell::Cell;
use std::net::Shutdown;

use super::buffers::Chunk;
use super::core::Core;
use super::io::send;
use super::watch::{Ended, Watch};
use crate::observability::counters::RelayEnd;
use crate::sys::uring::Socket;

/// What both directions share.
pub(super) struct Course<'a> {
    pub(super) core: &'a Core,
    pub(super) watch: &'a Watch,
    pub(super) backend: &'a Socket,
    /// The first thing that went wrong.
    fault: Cell<Option<RelayEnd>>,
    /// One direction finished in good order while the other went on.
    half_closed: Cell<bool>,
}

impl<'a> Course<'a> {
    /// Begins: from now on bytes must move within the idle time-out.
    pub(super) fn new(core: &'a Core, watch: &'a Watch, backend: &'a Socket) -> Self {
        watch.await_bytes(core.bounds.idle);
        Self {
            core,
            watch,
            backend,
            fault: Cell::new(None),
            half_closed: Cell::new(false),
        }
    }

    /// Sends plaintext to the backend; `false` where it takes no more.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn would hold what it is given twice"
    )]
    pub(super) fn forward(&self, plain: &mut Chunk) -> impl Future<Output = bool> {
        async move {
            if plain.is_empty() {
                return true;
            }
            let len = plain.len() as u64;
            let sent = send(self.core, self.backend, plain).await.is_ok();
            if sent {
                self.core.counters.bytes_up.add(len);
                self.watch.moved();
            }
            sent
        }
    }

    /// The client's stream ended without a close_notify. Most clients that do so mean a plain end.
    pub(super) fn client_left_early(&self) {
        if self.watch.ended().is_none() {
            self.core.counters.truncated.one();
        }
        self.tell_backend_the_end();
    }

    /// Ends the stream to the backend. One that has ended its own is about to be closed, which says it
    /// too and saves a system call.
    pub(super) fn tell_backend_the_end(&self) {
        if !self.half_closed.get() {
            self.backend.shutdown(Shutdown::Write);
        }
    }

    /// Ends both directions because of a fault. What fails after a sweep ended the connection fails
    /// because of that: a client that does not even take the farewell was idle, not lost.
    pub(super) fn abort(&self, fault: RelayEnd) {
        if self.watch.ended().is_none() {
            self.fault.set(Some(self.fault.get().unwrap_or(fault)));
        }
        self.watch.client().shutdown(Shutdown::Both);
        self.backend.shutdown(Shutdown::Both);
    }

    /// Notes that one direction has finished: the other has less patience from then on.
    pub(super) fn finish(&self) {
        if self.watch.ended().is_none() && !self.half_closed.replace(true) {
            self.watch.await_bytes(self.core.bounds.linger);
        }
    }

    /// How it ended, when both directions have.
    pub(super) fn end(&self) -> RelayEnd {
        match (self.fault.get(), self.watch.ended()) {
            (Some(fault), _) => fault,
            (None, Some(Ended::Drained)) => RelayEnd::Drained,
            (None, Some(Ended::TimedOut)) if !self.half_closed.get() => RelayEnd::Idle,
            // A side that has been told everything and does not leave is seen off without a fault.
            (None, _) => RelayEnd::Finished,
        }
    }
}
