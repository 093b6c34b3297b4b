//! Bytes between an established client and its backend, both ways at once, until both have finished.
//!
//! Each direction holds at most one buffer of what it read and one of what it writes, and reads no more
//! until that is sent: a slow receiver slows its sender, nothing grows. A finished direction is passed
//! on as such (close_notify and FIN towards the client, FIN towards the backend) while the other goes
//! on. No operation is ever abandoned: to end a connection its sockets are shut down, and both
//! directions run to their end.

#![expect(
    clippy::manual_async_fn,
    reason = "an async fn holds what it is given twice"
)]

use std::cell::RefCell;
use std::net::Shutdown;

use tokio::sync::{Mutex, MutexGuard};

use super::buffers::Chunk;
use super::core::Core;
use super::course::Course;
use super::handshake::Established;
use super::io::{Pace, receive, send, send_last};
use super::session::Session;
use super::watch::{Ended, Watch};
use crate::observability::counters::RelayEnd;
use crate::sys::uring::Socket;

/// What both directions of a connection share.
struct Relay<'a> {
    course: Course<'a>,
    session: RefCell<&'a mut Session>,
    /// What the protocol itself has to say to the client (alerts, tickets); goes before anything sealed
    /// after it.
    control: RefCell<Chunk>,
    /// Whose turn it is to send to the client. Records are sealed and sent in one turn, so they leave in
    /// the order in which they were sealed.
    turn: Mutex<()>,
}

/// Relays until both directions have finished.
pub(super) async fn relay(
    core: &Core,
    watch: &Watch,
    established: &mut Established,
    backend: &Socket,
) -> RelayEnd {
    let Established {
        session,
        input,
        early,
        ..
    } = established;
    let relay = Relay {
        course: Course::new(core, watch, backend),
        session: RefCell::new(session),
        control: RefCell::default(),
        turn: Mutex::new(()),
    };
    tokio::join!(relay.up(input, early), relay.down());
    relay.course.end()
}

impl Relay<'_> {
    /// Client to backend.
    fn up(&self, input: &mut Chunk, plain: &mut Chunk) -> impl Future<Output = ()> {
        async move {
            let buffers = &self.course.core.buffers;
            let mut pace = Pace::Single;
            loop {
                if !self.course.forward(plain).await {
                    // The backend takes no more, but what it has answered may still be on its way to the
                    // client, and would be lost if the client's own bytes were left unread (a reset follows
                    // a close then).
                    Box::pin(self.discard()).await;
                    break;
                }
                if self.session.borrow().is_closed() {
                    self.course.tell_backend_the_end();
                    break;
                }
                input.release_if_empty(buffers);
                match receive(
                    self.course.core,
                    self.course.watch.client(),
                    input,
                    &mut pace,
                )
                .await
                {
                    Ok(0) => {
                        self.course.client_left_early();
                        break;
                    }
                    Ok(_) => self.course.watch.moved(),
                    Err(_) => {
                        self.course.abort(RelayEnd::ClientLost);
                        break;
                    }
                }
                if !self.open(input, plain).await {
                    break;
                }
            }
            input.release(buffers);
            plain.release(buffers);
            self.course.finish();
        }
    }

    /// Backend to client.
    fn down(&self) -> impl Future<Output = ()> {
        async move {
            let mut plain = Chunk::default();
            let mut pace = Pace::Single;
            loop {
                match receive(self.course.core, self.course.backend, &mut plain, &mut pace).await {
                    Ok(1..) => self.course.watch.moved(),
                    Err(_) if self.course.watch.ended().is_none() => {
                        // No close_notify: the client must be able to tell this from a complete answer.
                        self.course.abort(RelayEnd::BackendLost);
                        break;
                    }
                    Ok(0) | Err(_) => {
                        Box::pin(self.farewell()).await;
                        break;
                    }
                }
                if !self.deliver(&mut plain).await {
                    break;
                }
            }
            plain.release(&self.course.core.buffers);
            self.course.finish();
        }
    }

    /// Waits for its turn to send to the client. Only who has to wait pays for the room to wait in.
    async fn turn(&self) -> MutexGuard<'_, ()> {
        match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(_) => Box::pin(self.turn.lock()).await,
        }
    }

    /// Opens what was received; `false` when the client no longer speaks TLS.
    async fn open(&self, input: &mut Chunk, plain: &mut Chunk) -> bool {
        let speaks = {
            let mut control = self.control.borrow_mut();
            let mut session = self.session.borrow_mut();
            let pumped = session.pump(input, plain, &mut control, &self.course.core.buffers);
            pumped
                .inspect_err(|broken| tracing::debug!(?broken, "client left the protocol"))
                .is_ok()
        };
        if !self.control.borrow().is_empty() {
            Box::pin(self.say()).await;
        }
        if !speaks {
            self.course.abort(RelayEnd::ClientProtocol);
        }
        speaks
    }

    /// Sends what the protocol has to say. A client that does not take it will be noticed by whoever has
    /// data for it.
    async fn say(&self) {
        let _turn = self.turn().await;
        let mut out = self.control.take();
        let _ = send(self.course.core, self.course.watch.client(), &mut out).await;
    }

    /// Seals what the backend sent and sends it to the client; `false` when this direction is over.
    fn deliver(&self, plain: &mut Chunk) -> impl Future<Output = bool> {
        async move {
            let _turn = self.turn().await;
            let len = plain.len() as u64;
            let mut out = self.control.take();
            let sealed = self
                .session
                .borrow_mut()
                .seal(plain.bytes(), &mut out, &self.course.core.buffers)
                .is_ok();
            plain.release(&self.course.core.buffers);
            if !sealed {
                out.release(&self.course.core.buffers);
                self.course.abort(RelayEnd::ClientProtocol);
                return false;
            }
            if send(self.course.core, self.course.watch.client(), &mut out)
                .await
                .is_err()
            {
                self.course.abort(RelayEnd::ClientLost);
                return false;
            }
            self.course.core.counters.bytes_down.add(len);
            self.course.watch.moved();
            true
        }
    }

    /// Tells the client that nothing more will come (RFC 8446 section 6.1).
    async fn farewell(&self) {
        let _turn = self.turn().await;
        let mut out = self.control.take();
        if self
            .session
            .borrow_mut()
            .close(&mut out, &self.course.core.buffers)
            .is_ok()
        {
            // A client that is gone already needs no farewell.
            let _ = send_last(self.course.core, self.course.watch.client(), &mut out).await;
        } else {
            out.release(&self.course.core.buffers);
            self.course.watch.client().shutdown(Shutdown::Write);
        }
    }

    /// Reads and drops what the client sends until it stops.
    async fn discard(&self) {
        let mut dropped = Chunk::default();
        loop {
            // Always waits, so that a client which sends without end does not keep the core.
            let mut pace = Pace::Single;
            match receive(
                self.course.core,
                self.course.watch.client(),
                &mut dropped,
                &mut pace,
            )
            .await
            {
                Ok(0) | Err(_) => break,
                Ok(n) => dropped.consume(n),
            }
        }
        dropped.release(&self.course.core.buffers);
    }
}

/// Ends a connection that no backend takes, with a close_notify.
pub(super) async fn turn_away(core: &Core, watch: &Watch, mut session: Session) -> RelayEnd {
    let mut out = Chunk::default();
    watch.await_bytes(core.bounds.linger);
    if session.close(&mut out, &core.buffers).is_ok() {
        // The client may be gone; there is nothing else to tell it.
        let _ = send_last(core, watch.client(), &mut out).await;
    } else {
        out.release(&core.buffers);
        watch.client().shutdown(Shutdown::Write);
    }
    match watch.ended() {
        Some(Ended::Drained) => RelayEnd::Drained,
        _ => RelayEnd::NoBackend,
    }
}
