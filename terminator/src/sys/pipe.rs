//! A pipe through which bytes go from one socket to another inside the kernel (splice(2)).
//!
//! Neither end waits, whatever the sockets do otherwise: whoever fills it asks first whether there is
//! something to read, and the socket that it is poured into must not block ([`never_block`]).

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// A pipe and how many bytes it holds.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
}

impl Pipe {
    /// A pipe for `size` bytes in full pages; less, where the user has many already (pipe(7)).
    pub fn new(size: usize) -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: the pointer is that of an array of two descriptors.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made these descriptors for us.
        let [read, write] = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        let size = libc::c_int::try_from(size).unwrap_or(libc::c_int::MAX);
        // SAFETY: takes an integer. A pipe of the ordinary size will do where it fails.
        let _ = unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, size) };
        Ok(Self {
            read,
            write,
            held: 0,
        })
    }

    /// How many bytes it holds.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes what a readable socket has, up to `most` bytes or until it is full; 0 is the end of the
    /// stream.
    pub fn fill(&mut self, from: &impl AsFd, most: usize) -> io::Result<usize> {
        let n = splice(from, &self.write, most)?;
        self.held += n;
        Ok(n)
    }

    /// Gives a socket as much as it takes.
    pub fn pour(&mut self, to: &impl AsFd) -> io::Result<usize> {
        let n = splice(&self.read, to, self.held)?;
        self.held -= n;
        Ok(n)
    }
}

/// From now on nothing that is done with this socket waits. Before Linux 6.5, splice(2) into a socket
/// knows no other way not to wait.
pub fn never_block(socket: &impl AsFd) -> io::Result<()> {
    let flags = libc::O_RDWR | libc::O_NONBLOCK;
    // SAFETY: takes an integer.
    match unsafe { libc::fcntl(socket.as_fd().as_raw_fd(), libc::F_SETFL, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn splice(from: &impl AsFd, to: &impl AsFd, most: usize) -> io::Result<usize> {
    // SAFETY: takes descriptors that are open for the whole call, and no offsets.
    let n = unsafe {
        libc::splice(
            from.as_fd().as_raw_fd(),
            std::ptr::null_mut(),
            to.as_fd().as_raw_fd(),
            std::ptr::null_mut(),
            most,
            libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE,
        )
    };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_pass_from_one_socket_to_another_and_neither_end_waits() {
        let (mut backend, from) = UnixStream::pair().expect("descriptors are left");
        let (to, mut client) = UnixStream::pair().expect("descriptors are left");
        never_block(&to).expect("a socket");
        let mut pipe = Pipe::new(256 * 1024).expect("descriptors are left");
        let nothing = pipe.fill(&from, 100).expect_err("nothing is there");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        backend.write_all(b"through the kernel").expect("open");
        assert_eq!(pipe.fill(&from, 7).expect("there is more"), 7);
        assert_eq!(pipe.fill(&from, 100).expect("the rest"), 11);
        assert_eq!(pipe.pour(&to).expect("room"), 18);
        assert_eq!(pipe.held(), 0);
        let mut got = [0; 18];
        client.read_exact(&mut got).expect("it is there");
        assert_eq!(&got, b"through the kernel");
        drop(backend);
        assert_eq!(pipe.fill(&from, 100).expect("the end"), 0);
    }
}
