//! The sockets that make a listening address steerable: a landing listener whose queue counts as
//! full, and the plug that keeps it so. The mechanism is explained in docs/STEERING.md.
//!
//! Nothing is decided here. The caller attaches the programs and watches the plug.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

use super::sockets;

/// Binds a landing listener that does not listen yet, while low ports may still be bound.
pub fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = sockets::bind(address)?;
    keep_trying(&socket)?;
    Ok(socket)
}

/// Opens it. With so small a backlog its request queue counts as full once [`PLUGS`] have tried to
/// get in, so that SYNs are answered with cookies.
pub fn listen(socket: Socket) -> io::Result<TcpListener> {
    sockets::listen(socket, BACKLOG)
}

/// Takes the filter off a connection that was accepted from the landing listener: it inherited it,
/// and would hear nothing.
pub fn unfilter(connection: BorrowedFd<'_>) -> io::Result<()> {
    socket2::SockRef::from(&connection).detach_filter()
}

/// The backlog of a landing listener. It is room for connections, too: the kernel drops a SYN where
/// more than so many wait to be accepted, and the client repeats it a second later. Some come here
/// with all plugs in: a SYN that reuses the addresses of a connection in TIME-WAIT gets no cookie.
///
/// Not more: beyond four requests the kernel (6.18) has them time out early, the plugs' among them.
const BACKLOG: u32 = 2;

/// How many plugs a landing listener needs: the queue takes requests until there is one more than its
/// backlog (from 6.18 on, before as many as that), and one plug waits for a place to become free.
pub const PLUGS: usize = BACKLOG as usize + 2;

/// A half-open connection of our own. Its client drops every answer, so the listener keeps the
/// request for hours; and as the client keeps repeating its SYN, a request that was lost comes back.
#[derive(Debug)]
pub struct Plug(Socket);

impl Plug {
    /// Makes the client. `filter` must put the landing filter on it, which drops the SYN-ACK too; a
    /// classic filter would do, but without privileges a kernel may refuse one (seen on 6.18). Then
    /// the SYN is sent, without waiting for anything.
    pub fn put<E: From<io::Error>>(
        listener: SocketAddr,
        filter: impl FnOnce(BorrowedFd<'_>) -> Result<(), E>,
    ) -> Result<Self, E> {
        let target = reachable(listener);
        let socket = Socket::new(
            Domain::for_address(target),
            Type::STREAM.cloexec().nonblocking(),
            Some(Protocol::TCP),
        )?;
        keep_trying(&socket)?;
        filter(socket.as_fd())?;
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error.into()),
            _ => Ok(Self(socket)),
        }
    }

    /// Whether the client still tries; after a kill or a time-out it does not.
    pub fn holds(&self) -> bool {
        let mut events = [rustix::event::PollFd::from_borrowed_fd(
            self.0.as_fd(),
            rustix::event::PollFlags::OUT,
        )];
        let none = rustix::event::Timespec::default();
        rustix::event::poll(&mut events, Some(&none)).is_ok_and(|ready| ready == 0)
    }
}

/// Where a listener can be reached from its own machine.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

/// Sets `TCP_SYNCNT` to its maximum: SYNs, or the answers to them, are repeated for some four hours.
fn keep_trying(socket: &Socket) -> io::Result<()> {
    let times: libc::c_int = 127;
    // SAFETY: the pointer and the length are those of a live integer.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SYNCNT,
            (&raw const times).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match failed {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
