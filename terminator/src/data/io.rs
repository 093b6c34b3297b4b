//! Receiving into chunks and sending from them.

use std::io;
use std::net::Shutdown;

use super::buffers::{Chunk, RECORD_PLAINTEXT};
use super::core::Core;
use crate::sys::uring::{Behind, Socket};

/// How to receive: with a wait before, where nothing is expected to be there yet, and how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pace {
    /// Wait, then take what a small buffer holds.
    #[default]
    Single,
    /// Take what a small buffer holds, and wait only if there is nothing.
    Prompt,
    /// Wait, then take what a large buffer holds: the last receive brought a record or more.
    Steady,
    /// Take what a large buffer holds, and wait only if there is nothing: the last receive took all
    /// that it had room for.
    Bulk,
}

impl Pace {
    pub(super) fn waits(self) -> bool {
        matches!(self, Self::Single | Self::Steady)
    }

    pub(super) fn wanted(self, core: &Core, held: usize) -> usize {
        match self {
            Self::Single | Self::Prompt => 1,
            Self::Steady | Self::Bulk => core.buffers.bulk().saturating_sub(held).max(1),
        }
    }

    /// After a receive that had room for `room` bytes and brought `n`.
    pub(super) fn after(n: usize, room: usize) -> Self {
        match n {
            _ if n == room => Self::Bulk,
            RECORD_PLAINTEXT.. => Self::Steady,
            _ => Self::Single,
        }
    }

    /// After a receive that found nothing.
    pub(super) fn in_vain(self) -> Self {
        match self {
            Self::Single | Self::Prompt => Self::Single,
            Self::Steady | Self::Bulk => Self::Steady,
        }
    }
}

/// Receives once into `chunk`, behind what it holds; 0 is the end of the stream.
///
/// Waits without a buffer: memory is taken when there are bytes to put there.
pub(super) async fn receive(
    core: &Core,
    socket: &Socket,
    chunk: &mut Chunk,
    pace: &mut Pace,
) -> io::Result<usize> {
    loop {
        if pace.waits() {
            chunk.release_if_empty(&core.buffers);
            socket.readable().await?;
        }
        let room = chunk.room(pace.wanted(core, chunk.len()), &core.buffers);
        let len = room.len().min(core.buffers.bulk());
        match socket.recv_now(&mut room[..len]) {
            Ok(n) => {
                chunk.filled(n);
                *pace = Pace::after(n, len);
                return Ok(n);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => *pace = pace.in_vain(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends all that `chunk` holds and gives its buffer back.
pub(super) fn send(
    core: &Core,
    socket: &Socket,
    chunk: &mut Chunk,
) -> impl Future<Output = io::Result<()>> {
    send_before(core, socket, chunk, Behind::Anything)
}

/// Like [`send`], on a socket whose records the kernel seals.
pub(super) async fn send_records(
    core: &Core,
    socket: &Socket,
    chunk: &mut Chunk,
) -> io::Result<()> {
    let (buffer, held) = chunk.lend();
    let (result, buffer) = socket.send_records(buffer, held).await;
    chunk.returned(buffer);
    chunk.release(&core.buffers);
    result
}

/// Sends all that `chunk` holds, gives its buffer back, and ends the stream behind it; in one segment,
/// where it fits. The stream is ended also where the bytes could not be sent.
pub(super) async fn send_last(core: &Core, socket: &Socket, chunk: &mut Chunk) -> io::Result<()> {
    let result = send_before(core, socket, chunk, Behind::Fin).await;
    socket.shutdown(Shutdown::Write);
    result
}

#[expect(
    clippy::manual_async_fn,
    reason = "an async fn would hold what it is given twice"
)]
fn send_before(
    core: &Core,
    socket: &Socket,
    chunk: &mut Chunk,
    behind: Behind,
) -> impl Future<Output = io::Result<()>> {
    async move {
        let (buffer, held) = chunk.lend();
        let (result, buffer) = socket.send_all(buffer, held, behind).await;
        chunk.returned(buffer);
        chunk.release(&core.buffers);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_follows_what_the_last_receive_brought() {
        assert_eq!(Pace::after(4096, 4096), Pace::Bulk);
        assert_eq!(Pace::after(100, 4096), Pace::Single);
        assert_eq!(Pace::after(20_000, 262_144), Pace::Steady);
        assert_eq!(Pace::after(100, 262_144), Pace::Single);
    }

    #[test]
    fn a_receive_in_vain_is_followed_by_a_wait() {
        for pace in [Pace::Single, Pace::Prompt, Pace::Steady, Pace::Bulk] {
            assert!(pace.in_vain().waits());
        }
        assert_eq!(Pace::Bulk.in_vain(), Pace::Steady);
    }
}
