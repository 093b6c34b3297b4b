//! A TCP relay without TLS: what the kernel's part of a terminator costs, and nothing else.
//!
//! Each connection gets a backend connection; bytes go both ways; the end of one direction is passed
//! on. Two forms, since the cheaper one is the limit: on tokio-uring with the flags that clinch uses,
//! and on epoll. Either may exchange as many bytes as a handshake has before it connects to the backend,
//! which is what the kernel takes for a handshake. Runs as a process of its own, `clinch-bench plain-relay`.

use std::net::{Shutdown, SocketAddr, TcpListener};
use std::rc::Rc;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How the relay speaks to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Runtime {
    /// tokio-uring.
    Uring,
    /// tokio on epoll.
    Epoll,
}

/// Bytes of a ClientHello, of the server's stapled flight, and of what the client finishes with.
pub const HANDSHAKE: [usize; 3] = [250, 2300, 64];

/// Relays until the process is ended. `flights`: after an exchange like that of a [`HANDSHAKE`].
pub fn run(listen: SocketAddr, backend: SocketAddr, runtime: Runtime, flights: bool) -> Result<()> {
    let listener = crate::bench::listener_at(listen)?;
    match runtime {
        Runtime::Uring => {
            let mut ring = tokio_uring::uring_builder();
            ring.setup_coop_taskrun().setup_single_issuer();
            tokio_uring::builder()
                .entries(1024)
                .uring_builder(&ring)
                .start(uring(listener, backend, flights))
        }
        Runtime::Epoll => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()?;
            tokio::task::LocalSet::new().block_on(&runtime, epoll(listener, backend, flights))
        }
    }
}

async fn uring(listener: TcpListener, backend: SocketAddr, flights: bool) -> Result<()> {
    use tokio_uring::net::{TcpListener, TcpStream};

    async fn one_way(from: Rc<TcpStream>, to: Rc<TcpStream>) -> std::io::Result<()> {
        let mut buffer = Vec::with_capacity(READ);
        loop {
            buffer.clear();
            let (result, full) = from.read(buffer).await;
            if result? == 0 {
                return to.shutdown(Shutdown::Write);
            }
            let (result, written) = to.write_all(full).await;
            result?;
            buffer = written;
        }
    }

    async fn shake_hands(client: &TcpStream) -> std::io::Result<Vec<u8>> {
        let [hello, flight, finished] = HANDSHAKE;
        let mut all = Vec::new();
        while all.len() < hello {
            let (result, part) = client.read(Vec::with_capacity(READ)).await;
            all.extend_from_slice(&part[..some(result?)?]);
        }
        client.write_all(vec![0; flight]).await.0?;
        while all.len() < hello + finished {
            let (result, part) = client.read(Vec::with_capacity(READ)).await;
            all.extend_from_slice(&part[..some(result?)?]);
        }
        Ok(all.split_off(hello + finished))
    }

    let listener = TcpListener::from_std(listener);
    loop {
        let (client, _) = listener.accept().await?;
        tokio_uring::spawn(async move {
            // Either side may vanish; the load client notices what it is owed.
            let _ = client.set_nodelay(true);
            let mut early = Vec::new();
            if flights {
                let Ok(rest) = shake_hands(&client).await else {
                    return;
                };
                early = rest;
            }
            let Ok(backend) = TcpStream::connect(backend).await else {
                return;
            };
            let _ = backend.set_nodelay(true);
            if !early.is_empty() && backend.write_all(early).await.0.is_err() {
                return;
            }
            let (client, backend) = (Rc::new(client), Rc::new(backend));
            let up = one_way(Rc::clone(&client), Rc::clone(&backend));
            let _ = tokio::join!(up, one_way(backend, client));
        });
    }
}

async fn epoll(listener: TcpListener, backend: SocketAddr, flights: bool) -> Result<()> {
    use tokio::net::tcp::{ReadHalf, WriteHalf};
    use tokio::net::{TcpListener, TcpStream};

    async fn one_way(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> std::io::Result<()> {
        let mut buffer = vec![0; READ];
        loop {
            let n = from.read(&mut buffer).await?;
            if n == 0 {
                return to.shutdown().await;
            }
            to.write_all(&buffer[..n]).await?;
        }
    }

    async fn shake_hands(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
        let [hello, flight, finished] = HANDSHAKE;
        let mut all = Vec::with_capacity(READ);
        while all.len() < hello {
            some(client.read_buf(&mut all).await?)?;
        }
        client.write_all(&vec![0; flight]).await?;
        while all.len() < hello + finished {
            some(client.read_buf(&mut all).await?)?;
        }
        Ok(all.split_off(hello + finished))
    }

    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (mut client, _) = listener.accept().await?;
        tokio::task::spawn_local(async move {
            let _ = client.set_nodelay(true);
            let mut early = Vec::new();
            if flights {
                let Ok(rest) = shake_hands(&mut client).await else {
                    return;
                };
                early = rest;
            }
            let Ok(mut backend) = TcpStream::connect(backend).await else {
                return;
            };
            let _ = backend.set_nodelay(true);
            if !early.is_empty() && backend.write_all(&early).await.is_err() {
                return;
            }
            let (client_read, client_write) = client.split();
            let (backend_read, backend_write) = backend.split();
            let up = one_way(client_read, backend_write);
            let _ = tokio::join!(up, one_way(backend_read, client_write));
        });
    }
}

/// What was read, where the end would be too early.
fn some(read: usize) -> std::io::Result<usize> {
    match read {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        n => Ok(n),
    }
}

/// Bytes asked for at once; a small request and its answer fit many times over.
const READ: usize = 4096;
