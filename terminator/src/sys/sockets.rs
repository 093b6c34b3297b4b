//! Listening and connecting sockets with the options the data plane relies on.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Binds one socket of a reuseport group without listening yet, so that a port is owned (and
/// privileges can be dropped) before the first connection may arrive.
///
/// IPv6 sockets take IPv6 only: dual stack is two addresses. Accepted sockets inherit
/// TCP_NODELAY (seen on 6.18).
pub fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.cloexec(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Starts listening on a bound socket.
pub fn listen(socket: Socket, backlog: u32) -> io::Result<TcpListener> {
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// A stream socket to connect to a backend with.
///
/// Where bytes are `waiting` to go, the last segment of TCP's handshake is left to go with them: the
/// kernel acknowledges a SYN-ACK late to who does not want to be quick (tcp(7), TCP_QUICKACK). Where
/// none are, it goes at once, as the backend may be the one that speaks first.
pub fn stream_to(address: &SockAddr, waiting: bool) -> io::Result<OwnedFd> {
    let socket = Socket::new(address.domain(), Type::STREAM.cloexec(), None)?;
    if !address.is_unix() {
        socket.set_tcp_nodelay(true)?;
        if waiting {
            rustix::net::sockopt::set_tcp_quickack(&socket, false)?;
        }
    }
    Ok(socket.into())
}
