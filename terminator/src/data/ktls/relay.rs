//! Plaintext between a backend and a client whose records the kernel seals, both ways at once.
//!
//! The rules are those of [`crate::data`]'s other relay: at most one buffer a direction, each direction
//! ends by itself, no operation is abandoned. What the kernel leaves to us are records that are no data:
//! alerts and key updates.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::time::Duration;

use rustls::AlertDescription;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use tokio::sync::{Mutex, MutexGuard};

use super::super::buffers::Chunk;
use super::super::core::Core;
use super::super::course::Course;
use super::super::io::{Pace, receive, send_records};
use super::super::pipes;
use super::super::watch::Watch;
use super::Offloaded;
use super::record::{self, ALERT, Budget, HANDSHAKE, OUR_KEY_UPDATE, Word};
use crate::observability::counters::{KeyUpdate, RelayEnd};
use crate::sys::ktls::{self, DATA, Keys, Received, Way};
use crate::sys::pipe::{self, Pipe};
use crate::sys::uring::Socket;

/// What both directions of a connection share.
struct Relay<'a> {
    course: Course<'a>,
    secrets: RefCell<KernelConnection<ServerConnectionData>>,
    budget: Cell<Budget>,
    /// Bytes sent to the client.
    sent: Cell<u64>,
    /// Whose turn it is to send to the client, or to change the keys that seal.
    turn: Mutex<()>,
}

/// Why splicing stopped.
enum Spliced {
    /// There was little at once, or nothing more.
    Quiet,
    /// This direction is over.
    Over,
}

/// What the client sent.
enum Heard {
    /// Plaintext.
    Data,
    /// Something else.
    Word(Word),
    /// The end of the TCP stream.
    End,
    /// What may not come; the alert to end with.
    Wrong(AlertDescription),
    /// Nothing any more: the connection broke.
    Lost,
}

/// Relays until both directions have finished.
pub(in crate::data) async fn relay(
    core: &Core,
    watch: &Watch,
    offloaded: Box<Offloaded>,
    backend: &Socket,
) -> RelayEnd {
    let Offloaded {
        secrets,
        early,
        budget,
    } = *offloaded;
    let relay = Relay {
        course: Course::new(core, watch, backend),
        secrets: RefCell::new(secrets),
        budget: Cell::new(budget),
        sent: Cell::new(0),
        turn: Mutex::new(()),
    };
    tokio::join!(relay.up(early), relay.down());
    relay.course.end()
}

impl Relay<'_> {
    /// Client to backend.
    async fn up(&self, mut plain: Chunk) {
        let Course { core, watch, .. } = self.course;
        let mut pace = Pace::Single;
        loop {
            if !self.course.forward(&mut plain).await {
                // What the backend has answered may still be on its way, and would be lost if the
                // client's own bytes were left unread.
                self.discard(&mut plain).await;
                break;
            }
            match self.hear(&mut plain, &mut pace).await {
                Heard::Data | Heard::Word(Word::Nothing) => watch.moved(),
                Heard::Word(Word::KeyUpdate { answer }) => {
                    watch.moved();
                    if !self.follow(answer).await {
                        break;
                    }
                }
                Heard::Word(Word::Close) => {
                    self.course.tell_backend_the_end();
                    break;
                }
                Heard::Word(Word::Fatal) => {
                    self.course.abort(RelayEnd::ClientProtocol);
                    break;
                }
                Heard::End => {
                    self.course.client_left_early();
                    break;
                }
                Heard::Wrong(alert) => {
                    self.break_off(alert, RelayEnd::ClientProtocol).await;
                    break;
                }
                Heard::Lost => {
                    self.course.abort(RelayEnd::ClientLost);
                    break;
                }
            }
        }
        plain.release(&core.buffers);
        self.course.finish();
    }

    /// Backend to client.
    async fn down(&self) {
        let Course {
            core,
            watch,
            backend,
            ..
        } = self.course;
        let mut plain = Chunk::default();
        let mut pace = Pace::Single;
        loop {
            match receive(core, backend, &mut plain, &mut pace).await {
                Ok(0) => {
                    self.farewell().await;
                    break;
                }
                Ok(_) => watch.moved(),
                Err(_) if watch.ended().is_some() => {
                    self.farewell().await;
                    break;
                }
                Err(_) => {
                    // No close_notify: the client must be able to tell this from a complete answer.
                    self.course.abort(RelayEnd::BackendLost);
                    break;
                }
            }
            if !self.deliver(&mut plain).await {
                break;
            }
            if matches!(pace, Pace::Steady | Pace::Bulk)
                && let Some(mut pipe) = core.pipes.lend()
            {
                match self.splice(&mut pipe).await {
                    Spliced::Quiet => pace = Pace::Single,
                    Spliced::Over => break,
                }
            }
        }
        plain.release(&core.buffers);
        self.course.finish();
    }

    /// Moves what the backend sends inside the kernel, as long as it is much at once.
    async fn splice(&self, pipe: &mut Pipe) -> Spliced {
        let Course { watch, backend, .. } = self.course;
        if pipe::never_block(watch.client()).is_err() {
            return Spliced::Quiet;
        }
        loop {
            // Also lets others have their turn on this core.
            if backend.readable().await.is_err() {
                return Spliced::Quiet;
            }
            // The end of the stream, and what breaks it, are for the reads outside.
            let Ok(n @ 1..) = pipe.fill(backend, pipes::SIZE) else {
                return Spliced::Quiet;
            };
            watch.moved();
            if !self.pour(pipe).await {
                return Spliced::Over;
            }
            if n < WORTH_SPLICING {
                return Spliced::Quiet;
            }
        }
    }

    /// Sends what a pipe holds; `false` when this direction is over.
    async fn pour(&self, pipe: &mut Pipe) -> bool {
        let Course { core, watch, .. } = self.course;
        let _turn = self.turn().await;
        if !self.may_seal(pipe.held()) && !self.renew_ours().await {
            return false;
        }
        while pipe.held() > 0 {
            match pipe.pour(watch.client()) {
                Ok(n) => {
                    self.sent.set(self.sent.get() + n as u64);
                    core.counters.bytes_down.add(n as u64);
                    watch.moved();
                }
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock
                        && watch.client().writable().await.is_ok() => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.course.abort(RelayEnd::ClientLost);
                    return false;
                }
            }
        }
        true
    }

    /// Receives once; plaintext goes into `plain`, which holds none.
    async fn hear(&self, plain: &mut Chunk, pace: &mut Pace) -> Heard {
        let Course { core, watch, .. } = self.course;
        let mut pause = FIRST_PAUSE;
        loop {
            let waits = pace.waits();
            if waits {
                plain.release_if_empty(&core.buffers);
                if watch.client().readable().await.is_err() {
                    return Heard::Lost;
                }
            }
            let room = plain.room(pace.wanted(core, plain.len()), &core.buffers);
            let len = room.len().min(core.buffers.bulk());
            match ktls::receive(watch.client(), &mut room[..len]) {
                Ok(Received::End) => return Heard::End,
                Ok(Received::Bytes(n, DATA)) => {
                    plain.filled(n);
                    *pace = Pace::after(n, len);
                    return Heard::Data;
                }
                Ok(Received::Bytes(n, kind)) => {
                    return match record::read(kind, &room[..n]) {
                        Ok(word) => Heard::Word(word),
                        Err(alert) => Heard::Wrong(alert),
                    };
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    *pace = pace.in_vain();
                    if waits {
                        // Old kernels call a socket readable that holds a part of a record, for as long
                        // as the client likes.
                        plain.release_if_empty(&core.buffers);
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return refused(&error),
            }
        }
    }

    /// The client's next records are sealed with new keys.
    async fn follow(&self, answer: bool) -> bool {
        let core = self.course.core;
        if !self.change_keys(Way::In) {
            core.counters.key_updates.one(KeyUpdate::NotFollowed);
            self.break_off(AlertDescription::InternalError, RelayEnd::Ktls)
                .await;
            return false;
        }
        core.counters.key_updates.one(KeyUpdate::Received);
        if !answer {
            return true;
        }
        let _turn = self.turn().await;
        self.renew_ours().await
    }

    /// Tells the client that our keys change, and changes them. Only in turn.
    async fn renew_ours(&self) -> bool {
        let core = self.course.core;
        let told = ktls::offer().rekeys && self.say(HANDSHAKE, &OUR_KEY_UPDATE).await.is_ok();
        if !told || !self.change_keys(Way::Out) {
            core.counters.key_updates.one(KeyUpdate::NotFollowed);
            self.course.abort(RelayEnd::Ktls);
            return false;
        }
        let mut budget = self.budget.get();
        budget.renew();
        self.budget.set(budget);
        core.counters.key_updates.one(KeyUpdate::Sent);
        true
    }

    fn change_keys(&self, way: Way) -> bool {
        let mut secrets = self.secrets.borrow_mut();
        let next = match way {
            _ if !ktls::offer().rekeys => return false,
            Way::In => secrets.update_rx_secret(),
            Way::Out => secrets.update_tx_secret(),
        };
        let keys = next.ok().and_then(|next| Keys::of(&next));
        keys.is_some_and(|keys| ktls::install(self.course.watch.client(), way, &keys).is_ok())
    }

    /// Sends what the backend sent; `false` when this direction is over.
    async fn deliver(&self, plain: &mut Chunk) -> bool {
        let Course { core, watch, .. } = self.course;
        let _turn = self.turn().await;
        let len = plain.len();
        if !self.may_seal(len) && !self.renew_ours().await {
            return false;
        }
        if send_records(core, watch.client(), plain).await.is_err() {
            self.course.abort(RelayEnd::ClientLost);
            return false;
        }
        self.sent.set(self.sent.get() + len as u64);
        core.counters.bytes_down.add(len as u64);
        watch.moved();
        true
    }

    fn may_seal(&self, len: usize) -> bool {
        let mut budget = self.budget.get();
        let enough = budget.take(len);
        self.budget.set(budget);
        enough
    }

    /// Waits for its turn to send to the client.
    async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Sends a record that is no data. Only in turn.
    async fn say(&self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        let client = self.course.watch.client();
        loop {
            match ktls::send_control(client, kind, bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    client.writable().await?;
                }
                said => return said,
            }
        }
    }

    /// Tells the client that nothing more will come (RFC 8446 section 6.1).
    async fn farewell(&self) {
        let client = self.course.watch.client();
        let _turn = self.turn().await;
        if self.sent.get() > SURELY_TAKEN {
            // Where the send buffer was full, the kernel may still hold the end of what it sealed. That
            // goes out with the next record that finds room, but not behind the end of the stream.
            let _ = client.writable().await;
        }
        // A client that is gone already needs no farewell.
        let _ = self
            .say(ALERT, &[WARNING, AlertDescription::CloseNotify.into()])
            .await;
        client.shutdown(Shutdown::Write);
    }

    /// Ends the connection with an alert.
    async fn break_off(&self, alert: AlertDescription, why: RelayEnd) {
        {
            let _turn = self.turn().await;
            // That a record could not be opened stays with the socket, and would fail this too.
            self.course.watch.client().take_error();
            // The connection ends either way.
            let _ = self.say(ALERT, &[FATAL, alert.into()]).await;
        }
        self.course.abort(why);
    }

    /// Reads and drops what the client sends until it stops.
    async fn discard(&self, dropped: &mut Chunk) {
        let core = self.course.core;
        loop {
            dropped.release(&core.buffers);
            // Always waits, so that a client which sends without end does not keep the core.
            match self.hear(dropped, &mut Pace::Single).await {
                Heard::Data | Heard::Word(Word::Nothing) => {}
                Heard::Word(_) | Heard::End | Heard::Wrong(_) | Heard::Lost => break,
            }
        }
    }
}

/// What a failure to receive says about the client.
fn refused(error: &io::Error) -> Heard {
    match error.raw_os_error() {
        Some(libc::EBADMSG) => Heard::Wrong(AlertDescription::BadRecordMac),
        Some(libc::EMSGSIZE) => Heard::Wrong(AlertDescription::RecordOverflow),
        Some(libc::EINVAL) => Heard::Wrong(AlertDescription::UnexpectedMessage),
        _ => Heard::Lost,
    }
}

/// Bytes at once below which copying is cheaper than two more system calls.
const WORTH_SPLICING: usize = 16 * 1024;

/// Bytes that fit any send buffer, even an empty one of the smallest size.
const SURELY_TAKEN: u64 = 4 * 1024;

/// How long to wait for the rest of a record, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

// RFC 8446 section 6.
const WARNING: u8 = 1;
const FATAL: u8 = 2;
