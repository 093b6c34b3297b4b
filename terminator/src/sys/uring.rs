//! io_uring operations for the data plane, each a future on the thread's tokio-uring ring.
//!
//! tokio-uring 0.5 takes any one-shot operation through [`UnsubmittedOneshot`]; what is built here
//! keeps everything that the kernel may touch (descriptor, buffer, address) inside the operation, so
//! that dropping a future is safe: the memory lives until the kernel is done. Dropping does not stop
//! the operation, though; whoever gives up waiting calls [`Socket::cancel`] or shuts the socket down.
//!
//! Everything else of tokio-uring stays behind this module too: [`run`] starts its runtime.

use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use io_uring::{cqueue, opcode, squeue, types};
use socket2::{SockAddr, SockAddrStorage};
use tokio_uring::{InFlightOneshot, OneshotOutputTransform, UnsubmittedOneshot};

/// Runs a future on a new ring of this thread.
///
/// `coop_taskrun` and `single_issuer` save interrupts and locking (kernel 6.0); `defer_taskrun`
/// would hang with tokio-uring's driver, which waits in epoll.
pub fn run<F: Future>(future: F) -> F::Output {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_coop_taskrun()
        .setup_single_issuer()
        .setup_cqsize(COMPLETIONS);
    tokio_uring::builder()
        .entries(SUBMISSIONS)
        .uring_builder(&ring)
        .start(future)
}

/// Runs a future beside the present one, on the same thread.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    drop(tokio_uring::spawn(future));
}

/// A socket whose descriptor every operation in flight keeps open.
#[derive(Clone, Debug)]
pub struct Socket(Rc<OwnedFd>);

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Self {
        Self(Rc::new(fd))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Socket {
    /// Accepts one connection.
    pub async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        let mut peer = Box::new(Peer {
            storage: SockAddrStorage::zeroed(),
            len: size_of::<SockAddrStorage>() as libc::socklen_t,
        });
        let storage: *mut SockAddrStorage = &raw mut peer.storage;
        let entry = opcode::Accept::new(self.target(), storage.cast(), &raw mut peer.len)
            .flags(libc::SOCK_CLOEXEC)
            .build();
        let (result, (_, peer)) = submit((self.clone(), peer), entry).await;
        let socket = Socket::from(owned(result?));
        // SAFETY: the kernel wrote an address of `len` bytes for an accepted TCP socket.
        let address = unsafe { SockAddr::new(peer.storage, peer.len) };
        let address = address.as_socket().unwrap_or_else(unspecified);
        Ok((socket, address))
    }

    /// Takes a connection that waits in the accept queue of a socket bound here, without waiting for
    /// one. A socket passed by a service manager is shared and is not touched.
    pub fn take_waiting(&self) -> Option<(Socket, SocketAddr)> {
        let listener = socket2::SockRef::from(&*self.0);
        if !listener.reuse_port().unwrap_or(false) || listener.set_nonblocking(true).is_err() {
            return None;
        }
        let (client, address) = listener.accept().ok()?;
        let address = address.as_socket().unwrap_or_else(unspecified);
        Some((Socket::from(OwnedFd::from(client)), address))
    }

    /// Connects to an address.
    pub async fn connect(&self, address: SockAddr) -> io::Result<()> {
        let address = Box::new(address);
        let entry =
            opcode::Connect::new(self.target(), address.as_ptr().cast(), address.len()).build();
        let (result, _) = submit((self.clone(), address), entry).await;
        result.map(drop)
    }

    /// Receives what is there into `buffer` without waiting; 0 is the end of the stream, and
    /// [`io::ErrorKind::WouldBlock`] says that nothing is there.
    ///
    /// After [`Socket::readable`] this is one system call into memory that was not needed while waiting.
    pub fn recv_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the pointer and the length are those of a slice borrowed for the whole call.
        let received = unsafe {
            libc::recv(
                self.0.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// Sends `buffer[range]` whole: the kernel waits for room until the last byte is taken.
    ///
    /// What is sent before [`Behind::Fin`] waits in the kernel for the [`Socket::shutdown`] that must
    /// follow, and goes in one segment with it.
    ///
    /// Not an `async fn`: that would hold what it is given twice.
    pub fn send_all(
        &self,
        mut buffer: Vec<u8>,
        mut range: Range<usize>,
        behind: Behind,
    ) -> impl Future<Output = (io::Result<()>, Vec<u8>)> {
        let hold = match behind {
            Behind::Anything => 0,
            Behind::Fin => libc::MSG_MORE,
        };
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL | hold;
        async move {
            while !range.is_empty() {
                let rest = &buffer[range.clone()];
                let entry = opcode::Send::new(
                    self.target(),
                    rest.as_ptr(),
                    u32::try_from(rest.len()).unwrap_or(u32::MAX),
                )
                .flags(flags)
                .build();
                let (result, (_, returned)) = submit((self.clone(), buffer), entry).await;
                buffer = returned;
                match result {
                    Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
                    Ok(n) => range.start += n as usize,
                    Err(error) => return (Err(error), buffer),
                }
            }
            (Ok(()), buffer)
        }
    }

    /// Sends `buffer[range]` whole on a socket whose records the kernel seals. kTLS refuses
    /// `MSG_WAITALL`, and the socket may be one that never blocks.
    pub async fn send_records(
        &self,
        mut buffer: Vec<u8>,
        mut range: Range<usize>,
    ) -> (io::Result<()>, Vec<u8>) {
        while !range.is_empty() {
            let rest = &buffer[range.clone()];
            let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
            let entry = opcode::Send::new(self.target(), rest.as_ptr(), len)
                .flags(libc::MSG_NOSIGNAL)
                .build();
            let (result, (_, returned)) = submit((self.clone(), buffer), entry).await;
            buffer = returned;
            let result = match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable().await.map(|()| 0)
                }
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                other => other,
            };
            match result {
                Ok(n) => range.start += n as usize,
                Err(error) => return (Err(error), buffer),
            }
        }
        (Ok(()), buffer)
    }

    /// Waits until there is something to read, an end of stream or an error, holding no buffer.
    pub async fn readable(&self) -> io::Result<()> {
        let entry =
            opcode::PollAdd::new(self.target(), (libc::POLLIN | libc::POLLRDHUP) as u32).build();
        let (result, _) = submit(self.clone(), entry).await;
        result.map(drop)
    }

    /// Waits until there is room to send, or an error.
    pub async fn writable(&self) -> io::Result<()> {
        let entry = opcode::PollAdd::new(self.target(), libc::POLLOUT as u32).build();
        let (result, _) = submit(self.clone(), entry).await;
        result.map(drop)
    }

    /// Reads the eight bytes of an eventfd, waiting for them.
    pub async fn read_event(&self) -> io::Result<()> {
        let mut buffer = Box::new([0u8; 8]);
        let entry = opcode::Read::new(self.target(), buffer.as_mut_ptr(), 8).build();
        let (result, _) = submit((self.clone(), buffer), entry).await;
        result.map(drop)
    }

    /// Cancels every operation in flight on this socket; each completes with `ECANCELED` unless it
    /// was done already.
    ///
    /// The kernel looks through all operations of the ring for those of one descriptor (6.18): with
    /// thousands in flight this is no step to take for every connection.
    pub fn cancel(&self) {
        let entry =
            opcode::AsyncCancel2::new(types::CancelBuilder::fd(self.target()).all()).build();
        // Nobody waits for the answer: the operations themselves report.
        drop(
            UnsubmittedOneshot::new(self.clone(), Discard(std::marker::PhantomData), entry)
                .submit(),
        );
    }

    /// Ends one or both directions now. Operations waiting on that direction complete.
    pub fn shutdown(&self, how: Shutdown) {
        // A socket that the peer has reset already has nothing left to shut down.
        let _ = socket2::SockRef::from(&*self.0).shutdown(how);
    }

    /// Takes off the socket what failed on it, which would else fail the next operation.
    pub fn take_error(&self) {
        let _ = socket2::SockRef::from(&*self.0).take_error();
    }

    /// The local address of the connection.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        let address = socket2::SockRef::from(&*self.0).local_addr()?;
        Ok(address.as_socket().unwrap_or_else(unspecified))
    }

    fn target(&self) -> types::Fd {
        types::Fd(self.0.as_raw_fd())
    }
}

struct Peer {
    storage: SockAddrStorage,
    len: libc::socklen_t,
}

/// Hands back an operation's data beside its result.
struct Keep<D>(std::marker::PhantomData<D>);

impl<D> OneshotOutputTransform for Keep<D> {
    type Output = (io::Result<u32>, D);
    type StoredData = D;

    fn transform_oneshot_output(self, data: D, completion: cqueue::Entry) -> Self::Output {
        (outcome(&completion), data)
    }
}

/// Keeps an operation's data until the kernel is done with it, then drops it.
struct Discard<D>(std::marker::PhantomData<D>);

impl<D> OneshotOutputTransform for Discard<D> {
    type Output = ();
    type StoredData = D;

    fn transform_oneshot_output(self, _: D, _: cqueue::Entry) {}
}

/// What follows the bytes of a [`Socket::send_all`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// Whatever comes: the bytes go at once.
    Anything,
    /// The end of the stream, at once.
    Fin,
}

/// Submits one operation. `data` must own everything that `entry` points to, at a stable address.
///
/// Not an `async fn`: that would keep `data` and `entry` once more beside the operation, in the
/// memory of every connection that waits.
fn submit<D: Unpin + 'static>(data: D, entry: squeue::Entry) -> InFlightOneshot<D, Keep<D>> {
    UnsubmittedOneshot::new(data, Keep(std::marker::PhantomData), entry).submit()
}

fn outcome(completion: &cqueue::Entry) -> io::Result<u32> {
    u32::try_from(completion.result())
        .map_err(|_| io::Error::from_raw_os_error(-completion.result()))
}

fn owned(fd: u32) -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: the kernel has just made this descriptor for us as the result of an accept.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn unspecified() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 0))
}

/// Entries of the submission queue. It is flushed whenever the runtime parks or it is full.
const SUBMISSIONS: u32 = 1024;

/// Entries of the completion queue; beyond it the kernel keeps completions itself.
const COMPLETIONS: u32 = 16 * 1024;
