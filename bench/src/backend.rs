//! The backend behind every server under test: HTTP/1.x as small as it can be, on the client's core.
//!
//! `GET /` answers with [`SMALL_BODY`] bytes, `GET /bytes/N` with N. The connection stays open for
//! the next request unless the client asked otherwise (HTTP/1.0, or `Connection: close`).

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Body of the answer to `GET /`, bytes.
pub const SMALL_BODY: usize = 128;

/// Written at once in bulk answers, bytes.
const CHUNK: usize = 256 * 1024;

/// Longest request head taken, bytes.
const HEAD: usize = 4096;

/// Starts the backend on the current `LocalSet`, on a free port of the loopback, and says where it
/// listens.
pub fn start() -> Result<SocketAddr> {
    start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// Starts it at an address, whose port may be 0 for a free one.
pub fn start_at(address: SocketAddr) -> Result<SocketAddr> {
    let listener = crate::bench::listener_at(address)?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    tokio::task::spawn_local(async move {
        let chunk: std::rc::Rc<[u8]> = vec![b'x'; CHUNK].into();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let chunk = std::rc::Rc::clone(&chunk);
                    // A proxy that closes early is its own business: the client counts what it got.
                    tokio::task::spawn_local(async move {
                        let _ = serve(stream, &chunk).await;
                    });
                }
                Err(error) => panic!("the backend cannot accept: {error}"),
            }
        }
    });
    Ok(address)
}

async fn serve(mut stream: TcpStream, chunk: &[u8]) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut head = Vec::new();
    loop {
        head.clear();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
            anyhow::ensure!(head.len() <= HEAD, "a request head over {HEAD} bytes");
        }
        let text = std::str::from_utf8(&head)?;
        let path = text.split(' ').nth(1).context("a request line")?;
        let length = match path.strip_prefix("/bytes/") {
            Some(length) => length.parse()?,
            None => SMALL_BODY,
        };
        let close = text.contains("HTTP/1.0\r\n") || text.contains("onnection: close");
        respond(&mut stream, length, chunk).await?;
        if close {
            stream.shutdown().await?;
            return Ok(());
        }
    }
}

async fn respond(stream: &mut TcpStream, length: usize, chunk: &[u8]) -> Result<()> {
    let mut first = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    let with_head = length.min(SMALL_BODY);
    first.extend_from_slice(&chunk[..with_head]);
    stream.write_all(&first).await?;
    let mut rest = length - with_head;
    while rest > 0 {
        let part = rest.min(chunk.len());
        stream.write_all(&chunk[..part]).await?;
        rest -= part;
    }
    Ok(())
}
