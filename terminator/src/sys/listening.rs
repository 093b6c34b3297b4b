//! Listening sockets: bound early, while low ports may still be bound, and opened to clients late,
//! when there is something to serve.
//!
//! One socket per worker and address, joined by `SO_REUSEPORT`, or one socket handed over by a
//! service manager that all workers share. Nothing is accepted here. The caller binds with
//! [`Address::bind`], gives up its privileges, gets its staples, and then calls [`Address::listen`].

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};

use super::holder::{self, Holder};
use super::sockets;

/// A bound address with one socket per worker.
#[derive(Debug)]
pub struct Address {
    /// The address in force; where port 0 was asked for, the port that the kernel chose.
    pub local: SocketAddr,
    /// How the sockets came to be.
    pub origin: Origin,
    sockets: Vec<Socket>,
}

/// Where the sockets of an [`Address`] come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Bound here: a socket of its own for each worker, among which the kernel spreads connections.
    Bound,
    /// Passed by the service manager: one accept queue that all workers take from.
    Passed,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error(
        "{address} is already in use{}; stop that program, or change `address` in the configuration",
        by(holder)
    )]
    InUse {
        /// The address asked for.
        address: SocketAddr,
        /// Who probably has it, as far as /proc tells.
        holder: Option<Holder>,
    },
    /// A low port without the right to it.
    #[error(
        "this process may not listen on {0}: ports below 1024 need root or CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE)"
    )]
    NotPermitted(SocketAddr),
    /// The machine does not have the address.
    #[error(
        "no network interface has the address of {0}; correct `address` in the configuration, or start clinch after the network is up"
    )]
    NotHere(SocketAddr),
    /// The service manager passed something that clinch cannot use.
    #[error(
        "descriptor {descriptor} from the service manager is not a listening TCP socket; the .socket unit needs ListenStream= with an IP address"
    )]
    NotAListener {
        /// Its number.
        descriptor: i32,
    },
    /// The description of the passed sockets is not as sd_listen_fds(3) has it.
    #[error("LISTEN_PID and LISTEN_FDS do not describe sockets of this process: {0}")]
    Passing(io::Error),
    /// Anything else the system said.
    #[error("{address}: {step} failed: {source}")]
    System {
        /// The address asked for.
        address: SocketAddr,
        /// The call.
        step: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

impl Address {
    /// Binds one socket per worker to `address` without listening yet.
    pub fn bind(address: SocketAddr, workers: usize) -> Result<Self, ListenError> {
        // With SO_REUSEPORT a second clinch of the same user would silently take half of the
        // connections of the first. A socket without the option notices whoever listens there.
        drop(probe(address).map_err(|source| refused(address, "bind", source))?);

        let mut local = address;
        let mut sockets = Vec::with_capacity(workers);
        for _ in 0..workers {
            let socket = sockets::bind(local).map_err(|source| refused(address, "bind", source))?;
            // Where port 0 was asked for, the first socket's port is that of all others.
            local = local_address(&socket)
                .map_err(|source| refused(address, "reading the bound address", source))?;
            sockets.push(socket);
        }
        Ok(Self {
            local,
            origin: Origin::Bound,
            sockets,
        })
    }

    /// Takes over a listening socket that the service manager passed.
    ///
    /// It cannot be multiplied with `SO_REUSEPORT` (that takes the option on the first socket and
    /// the same user on all), so every worker gets a duplicate of its descriptor.
    fn adopt(passed: OwnedFd, descriptor: i32) -> Result<Self, ListenError> {
        let socket = Socket::from(passed);
        let unfit = || ListenError::NotAListener { descriptor };
        let local = local_address(&socket).map_err(|_| unfit())?;
        if !socket.is_listener().unwrap_or(false) || socket.r#type().ok() != Some(Type::STREAM) {
            return Err(unfit());
        }
        // io_uring answers EAGAIN instead of waiting where the descriptor is non-blocking.
        socket
            .set_nonblocking(false)
            .and_then(|()| socket.set_tcp_nodelay(true))
            .map_err(|source| refused(local, "preparing the passed socket", source))?;
        Ok(Self {
            local,
            origin: Origin::Passed,
            sockets: vec![socket],
        })
    }

    /// Makes the number of sockets equal to the number of workers, by duplicating a passed one.
    pub fn share_among(&mut self, workers: usize) -> Result<(), ListenError> {
        let failed = |source| refused(self.local, "duplicating the passed socket", source);
        while self.sockets.len() < workers {
            let duplicate = self.sockets[0].try_clone().map_err(failed)?;
            self.sockets.push(duplicate);
        }
        Ok(())
    }

    /// Opens the accept queues: from here on clients get in. One listener for each worker, in the
    /// order of the workers.
    pub fn listen(self, backlog: u32) -> Result<Vec<TcpListener>, ListenError> {
        let local = self.local;
        self.sockets
            .into_iter()
            .map(|socket| {
                // Somebody may have been quicker between bind and listen.
                sockets::listen(socket, backlog).map_err(|source| refused(local, "listen", source))
            })
            .collect()
    }
}

/// The sockets that a service manager passed (sd_listen_fds(3)); none where it passed none.
///
/// Call it once, before anything else opens or closes descriptors.
pub fn passed() -> Result<Vec<Address>, ListenError> {
    let descriptors: Vec<i32> = sd_notify::listen_fds()
        .map_err(ListenError::Passing)?
        .collect();
    descriptors
        .into_iter()
        .map(|descriptor| {
            // SAFETY: LISTEN_PID is this process, which makes the descriptors from 3 on ours alone
            // (sd_listen_fds(3)); `listen_fds` found each one open when it set close-on-exec. The
            // caller asks once, so none is owned twice.
            let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
            Address::adopt(owned, descriptor)
        })
        .collect()
}

/// Binds as [`sockets::bind`] does, but without SO_REUSEPORT.
fn probe(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn refused(address: SocketAddr, step: &'static str, source: io::Error) -> ListenError {
    match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse {
            address,
            holder: holder::of_port(address.port()),
        },
        io::ErrorKind::PermissionDenied => ListenError::NotPermitted(address),
        io::ErrorKind::AddrNotAvailable => ListenError::NotHere(address),
        _ => ListenError::System {
            address,
            step,
            source,
        },
    }
}

fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    rustix::net::getsockname(socket.as_fd())?
        .try_into()
        .map_err(|_| io::Error::from(io::ErrorKind::AddrNotAvailable))
}

fn by(holder: &Option<Holder>) -> String {
    holder
        .as_ref()
        .map(|holder| format!(" by {holder}"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

    #[test]
    fn a_bound_address_refuses_clients_until_it_listens() {
        let address = Address::bind((Ipv4Addr::LOCALHOST, 0).into(), 2).expect("a free port");
        let refused = TcpStream::connect(address.local).expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let local = address.local;
        let listeners = address.listen(16).expect("still free");
        TcpStream::connect(local).expect("listening");
        assert_eq!(listeners.len(), 2);
    }

    #[test]
    fn an_address_in_use_names_the_holder() {
        let first = Address::bind((Ipv6Addr::LOCALHOST, 0).into(), 1).expect("a free port");
        let local = first.local;
        let _listeners = first.listen(16).expect("still free");
        let error = Address::bind(local, 1).expect_err("in use");
        let ListenError::InUse { address, holder } = &error else {
            panic!("{error}");
        };
        assert_eq!(*address, local);
        let holder = holder.as_ref().expect("this very process");
        assert_eq!(holder.pid, std::process::id());
        assert!(error.to_string().contains(&holder.pid.to_string()));
    }

    #[test]
    fn an_address_of_another_machine_is_refused_with_the_reason() {
        let elsewhere = (Ipv4Addr::new(192, 0, 2, 1), 4433).into();
        let error = Address::bind(elsewhere, 1).expect_err("not ours");
        assert!(matches!(error, ListenError::NotHere(_)), "{error}");
    }

    #[test]
    fn a_passed_listener_is_shared_and_anything_else_refused() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let local = listener.local_addr().expect("bound");
        let mut address = Address::adopt(listener.into(), 3).expect("a listener");
        address.share_among(3).expect("descriptors are left");
        assert_eq!((address.local, address.origin), (local, Origin::Passed));
        assert_eq!(address.listen(16).expect("listening already").len(), 3);

        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let error = Address::adopt(one.into(), 3).expect_err("no listener");
        assert!(matches!(error, ListenError::NotAListener { descriptor: 3 }));
    }
}
