//! A `SOCK_SEQPACKET` socket within a tokio runtime: whole frames in, whole frames out.
//!
//! Knows nothing about what a frame says. Control and the worker each hold one end.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use tokio::net::UnixDatagram;

use crate::limits::EGRESS_FRAME_BYTES;

/// One end of the pair.
///
/// The type within is one for datagrams, whose calls (send, recv, poll) are those of sequenced
/// packets too; the difference is that a sequenced-packet socket tells when its peer is gone, by an
/// empty frame. This protocol has no empty frames.
pub(super) struct FrameSocket(UnixDatagram);

/// Makes a pair: our end, and the end that the child gets.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

impl FrameSocket {
    /// Takes over a socket. Must be called within a tokio runtime. Anything but a `SOCK_SEQPACKET`
    /// socket is refused.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        if sockopt::socket_type(&fd)? != SocketType::SEQPACKET {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let socket = std::os::unix::net::UnixDatagram::from(fd);
        socket.set_nonblocking(true)?;
        UnixDatagram::from_std(socket).map(Self)
    }

    /// Reads the next frame into `buffer`; `None` when nobody holds the other end any more.
    pub(super) async fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<Option<()>> {
        buffer.resize(EGRESS_FRAME_BYTES, 0);
        match self.0.recv(buffer).await {
            Ok(0) => Ok(None),
            // The peer went away with frames of ours unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Ok(length) => {
                buffer.truncate(length);
                Ok(Some(()))
            }
            Err(error) => Err(error),
        }
    }

    /// Sends one frame; waits while the socket is full.
    pub(super) async fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.0.send(frame).await.map(drop)
    }

    /// Both ends see the end of the connection.
    pub(super) fn close(&self) {
        // It fails only where the peer is gone, which is what it is for.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_stay_whole_and_the_end_is_seen() {
        let (ours, theirs) = pair().expect("a socket pair");
        let ours = FrameSocket::new(ours).expect("usable");
        let theirs = FrameSocket::new(theirs).expect("usable");
        ours.send(&[1; 10]).await.expect("sent");
        ours.send(&[2; EGRESS_FRAME_BYTES]).await.expect("sent");
        drop(ours);
        let mut buffer = Vec::new();
        assert_eq!(theirs.receive(&mut buffer).await.expect("whole"), Some(()));
        assert_eq!(buffer, [1; 10]);
        assert_eq!(theirs.receive(&mut buffer).await.expect("whole"), Some(()));
        assert_eq!(buffer, [2; EGRESS_FRAME_BYTES]);
        assert_eq!(theirs.receive(&mut buffer).await.expect("the end"), None);
    }

    #[tokio::test]
    async fn a_socket_of_another_type_is_refused() {
        let (stream, _peer) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
        assert!(FrameSocket::new(stream.into()).is_err());
    }
}
