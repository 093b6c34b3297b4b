//! Backends: plain servers over TCP or unix sockets whose behaviour is a closure.
//!
//! Each connection has its own thread; the closure gets the stream and ends the connection by
//! returning. Dropping a [`Backend`] stops it from listening; open connections go on until their
//! closures return.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::place;

/// A connection from clinch.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

/// A running backend.
pub struct Backend {
    written: String,
    listener: Arc<OwnedFd>,
    accepted: Arc<AtomicUsize>,
}

impl Backend {
    /// Listens on a fresh loopback address and serves each connection with `serve`.
    pub fn tcp(serve: impl Fn(Stream) + Send + Sync + 'static) -> Self {
        Self::tcp_on(place::fresh(), serve)
    }

    /// Listens on a given address.
    pub fn tcp_on(address: SocketAddr, serve: impl Fn(Stream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).expect("nobody else uses this address");
        let fd = listener
            .as_fd()
            .try_clone_to_owned()
            .expect("descriptors are left");
        let next = move || listener.accept().map(|(stream, _)| Stream::Tcp(stream));
        Self::run(address.to_string(), fd, next, serve)
    }

    /// Listens on a unix socket.
    pub fn unix(path: &Path, serve: impl Fn(Stream) + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(path).expect("a fresh path in the test's directory");
        let fd = listener
            .as_fd()
            .try_clone_to_owned()
            .expect("descriptors are left");
        let next = move || listener.accept().map(|(stream, _)| Stream::Unix(stream));
        Self::run(format!("unix:{}", path.display()), fd, next, serve)
    }

    /// Sends every byte back, and the end of the stream too.
    pub fn echo() -> Self {
        Self::tcp(echo)
    }

    /// The backend as the configuration writes it.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// Connections taken so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    fn run(
        written: String,
        listener: OwnedFd,
        next: impl Fn() -> io::Result<Stream> + Send + 'static,
        serve: impl Fn(Stream) + Send + Sync + 'static,
    ) -> Self {
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            while let Ok(stream) = next() {
                count.fetch_add(1, Ordering::SeqCst);
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(stream));
            }
        });
        Self {
            written,
            listener: Arc::new(listener),
            accepted,
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // Ends `accept` in the backend's thread, which then closes the listener.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
    }
}

/// Serves a connection by sending everything back; a closure for [`Backend::tcp`].
pub fn echo(mut stream: Stream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

/// A backend address where nobody listens: connections are refused.
pub fn refusing() -> String {
    place::fresh().to_string()
}

/// A unix socket path that does not exist.
pub fn missing(dir: &Path) -> String {
    format!("unix:{}", dir.join("no-such.sock").display())
}

/// An address where connecting hangs: its accept queue is full and nobody empties it.
pub struct Hanging {
    address: SocketAddr,
    _listener: socket2::Socket,
    _queued: Vec<socket2::Socket>,
}

impl Hanging {
    /// Fills the queue of a fresh listener.
    pub fn new() -> io::Result<Self> {
        Self::on(place::fresh())
    }

    /// Fills the queue of a listener on a given address.
    pub fn on(address: SocketAddr) -> io::Result<Self> {
        let domain = socket2::Domain::for_address(address);
        let stream = || socket2::Socket::new(domain, socket2::Type::STREAM, None);
        let listener = stream()?;
        listener.bind(&address.into())?;
        listener.listen(0)?;
        let mut queued = Vec::new();
        // A queue of length 0 holds one; the kernel drops the SYN of whatever comes after it.
        loop {
            let socket = stream()?;
            if socket
                .connect_timeout(&address.into(), Duration::from_millis(200))
                .is_err()
            {
                break;
            }
            queued.push(socket);
            assert!(
                queued.len() < 16,
                "the accept queue of length 0 does not fill"
            );
        }
        Ok(Self {
            address,
            _listener: listener,
            _queued: queued,
        })
    }

    /// The backend as the configuration writes it.
    pub fn written(&self) -> String {
        self.address.to_string()
    }
}

/// A fresh path for a unix socket in `dir`.
pub fn socket_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(name).with_extension("sock")
}

impl Stream {
    /// Ends one direction or both.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.shutdown(how),
            Self::Unix(s) => s.shutdown(how),
        }
    }

    /// Two handles on the same connection, for two threads.
    pub fn split(self) -> (Self, Self) {
        let other = match &self {
            Self::Tcp(s) => Self::Tcp(s.try_clone().expect("descriptors are left")),
            Self::Unix(s) => Self::Unix(s.try_clone().expect("descriptors are left")),
        };
        (self, other)
    }

    /// Makes the coming close a reset instead of an orderly end. TCP only.
    pub fn reset(self) {
        if let Self::Tcp(stream) = self {
            socket2::SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .expect("an open socket takes SO_LINGER");
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read(buffer),
            Self::Unix(s) => s.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write(bytes),
            Self::Unix(s) => s.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
