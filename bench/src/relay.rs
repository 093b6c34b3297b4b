//! A TCP relay without TLS: what the kernel's part of a terminator costs, and nothing else.
//!
//! Each connection gets a backend connection; bytes go both ways; the end of one direction is passed
//! on. Two forms, since the cheaper one is the limit: on tokio-uring with the flags that clinch uses,
//! and on epoll. Runs as a process of its own, `clinch-bench plain-relay`.

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

/// Relays until the process is ended.
pub fn run(listen: SocketAddr, backend: SocketAddr, runtime: Runtime) -> Result<()> {
    let listener = crate::bench::listener_at(listen)?;
    match runtime {
        Runtime::Uring => {
            let mut ring = tokio_uring::uring_builder();
            ring.setup_coop_taskrun().setup_single_issuer();
            tokio_uring::builder()
                .entries(1024)
                .uring_builder(&ring)
                .start(uring(listener, backend))
        }
        Runtime::Epoll => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()?;
            tokio::task::LocalSet::new().block_on(&runtime, epoll(listener, backend))
        }
    }
}

async fn uring(listener: TcpListener, backend: SocketAddr) -> Result<()> {
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

    let listener = TcpListener::from_std(listener);
    loop {
        let (client, _) = listener.accept().await?;
        tokio_uring::spawn(async move {
            // Either side may vanish; the load client notices what it is owed.
            let Ok(backend) = TcpStream::connect(backend).await else {
                return;
            };
            let _ = client.set_nodelay(true);
            let _ = backend.set_nodelay(true);
            let (client, backend) = (Rc::new(client), Rc::new(backend));
            let up = one_way(Rc::clone(&client), Rc::clone(&backend));
            let _ = tokio::join!(up, one_way(backend, client));
        });
    }
}

async fn epoll(listener: TcpListener, backend: SocketAddr) -> Result<()> {
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

    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (mut client, _) = listener.accept().await?;
        tokio::task::spawn_local(async move {
            let Ok(mut backend) = TcpStream::connect(backend).await else {
                return;
            };
            let _ = client.set_nodelay(true);
            let _ = backend.set_nodelay(true);
            let (client_read, client_write) = client.split();
            let (backend_read, backend_write) = backend.split();
            let up = one_way(client_read, backend_write);
            let _ = tokio::join!(up, one_way(backend_read, client_write));
        });
    }
}

/// Bytes asked for at once; a small request and its answer fit many times over.
const READ: usize = 4096;
