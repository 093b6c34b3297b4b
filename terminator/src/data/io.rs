//! Receiving into chunks and sending from them.

use std::io;
use std::net::Shutdown;

use super::buffers::Chunk;
use super::core::Core;
use crate::sys::uring::{Behind, Socket};

/// How much to receive at once: much, where the last receive took all that it had room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pace {
    /// What a small buffer takes.
    #[default]
    Single,
    /// What a large buffer takes.
    Bulk,
}

impl Pace {
    fn wanted(self, core: &Core, held: usize) -> usize {
        match self {
            Self::Single => 1,
            Self::Bulk => core.buffers.bulk().saturating_sub(held).max(1),
        }
    }
}

/// Receives once into `chunk`, behind what it holds; 0 is the end of the stream.
///
/// Waits without a buffer: memory is taken when there are bytes to put there. In bulk it asks the
/// socket first, as more is most likely there already.
pub(super) async fn receive(
    core: &Core,
    socket: &Socket,
    chunk: &mut Chunk,
    pace: &mut Pace,
) -> io::Result<usize> {
    loop {
        if *pace == Pace::Single {
            chunk.release_if_empty(&core.buffers);
            socket.readable().await?;
        }
        let room = chunk.room(pace.wanted(core, chunk.len()), &core.buffers);
        let len = room.len().min(core.buffers.bulk());
        match socket.recv_now(&mut room[..len]) {
            Ok(n) => {
                chunk.filled(n);
                *pace = if n == len { Pace::Bulk } else { Pace::Single };
                return Ok(n);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => *pace = Pace::Single,
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
