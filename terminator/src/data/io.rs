//! Receiving into chunks and sending from them, with what the sweep must know kept up to date.

use std::io;

use super::buffers::Chunk;
use super::core::Core;
use super::watch::Side;

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
/// The first wait holds a buffer, so that bytes which come soon cost one operation. Where none come,
/// the sweep cancels the receive, and the wait goes on without a buffer.
pub(super) async fn receive(
    core: &Core,
    side: &Side,
    chunk: &mut Chunk,
    pace: &mut Pace,
) -> io::Result<usize> {
    loop {
        let room = chunk
            .room(pace.wanted(core, chunk.len()), &core.buffers)
            .len();
        let room = room.min(core.buffers.bulk());
        let (buffer, held) = chunk.lend();
        side.receiving.set(true);
        let (result, buffer) = side.socket.recv(buffer, held.end..held.end + room).await;
        side.receiving.set(false);
        chunk.returned(buffer);
        match result {
            Ok(n) => {
                chunk.filled(n);
                *pace = if n == room { Pace::Bulk } else { Pace::Single };
                return Ok(n);
            }
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {
                chunk.release_if_empty(&core.buffers);
                side.socket.readable().await?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends all that `chunk` holds and gives its buffer back.
pub(super) async fn send(core: &Core, side: &Side, chunk: &mut Chunk) -> io::Result<()> {
    let (buffer, held) = chunk.lend();
    side.sending.set(true);
    let (result, buffer) = side.socket.send_all(buffer, held).await;
    side.sending.set(false);
    chunk.returned(buffer);
    chunk.release(&core.buffers);
    result
}
