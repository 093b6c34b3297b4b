//! An OCSP responder over real HTTP: from it clinch fetches the staples that its peers read from a file.
//!
//! Signatures are not made here: the caller has signed beforehand (see `pki`), or signs when it is asked for
//! an answer. It sleeps during a measurement, since nobody asks, but for the scenarios about refreshes
//! and for `headline`, where clients do: for them it is as far away as [`Distance`] says, and so is the
//! DNS server that knows its name.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Result;

/// How far away responder and DNS server are: the round trip that an answer of theirs takes. It can be
/// changed while they run.
#[derive(Clone, Debug, Default)]
pub struct Distance(Arc<AtomicU64>);

impl Distance {
    /// From now on answers take so long.
    pub fn set(&self, round_trip: Duration) {
        self.0.store(round_trip.as_micros() as u64, Relaxed);
    }

    fn wait(&self) {
        std::thread::sleep(Duration::from_micros(self.0.load(Relaxed)));
    }
}

/// Answers every request on its own path: `/0`, `/1` … give what `responses` says of 0, 1 …
pub fn start(
    listener: TcpListener,
    responses: impl Fn(usize) -> Option<Vec<u8>> + Send + Sync + 'static,
    distance: Distance,
) -> Result<()> {
    let responses = Arc::new(responses);
    let serve = move || {
        for stream in listener.incoming().flatten() {
            let (responses, distance) = (Arc::clone(&responses), distance.clone());
            // A client that goes away is asked again by its own retry; a thread each, because one
            // that waits must not hold up the next.
            let one = move || drop(answer(stream, &*responses, &distance));
            let _ = std::thread::Builder::new().stack_size(STACK).spawn(one);
        }
    };
    std::thread::Builder::new()
        .name("responder".to_owned())
        .spawn(serve)?;
    Ok(())
}

/// Starts a DNS server for which every name is 127.0.0.1, and says where it listens.
pub fn start_dns(distance: Distance) -> Result<SocketAddr> {
    let socket = Arc::new(UdpSocket::bind(("127.0.0.1", 0))?);
    let address = socket.local_addr()?;
    let serve = move || {
        let mut query = [0; 512];
        while let Ok((n, client)) = socket.recv_from(&mut query) {
            let reply = address_of(&query[..n]);
            let (socket, distance) = (Arc::clone(&socket), distance.clone());
            let one = move || {
                distance.wait();
                let _ = socket.send_to(&reply, client);
            };
            let _ = std::thread::Builder::new().stack_size(STACK).spawn(one);
        }
    };
    std::thread::Builder::new()
        .name("dns".to_owned())
        .spawn(serve)?;
    Ok(address)
}

/// The answer to a query with one question (RFC 1035 section 4): the question again, and 127.0.0.1.
fn address_of(query: &[u8]) -> Vec<u8> {
    let mut reply = query.to_vec();
    if let Some(head) = reply.get_mut(2..8) {
        // A response, recursion available, no error; one question, one answer.
        head.copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
    }
    // The name is that at offset 12; A, IN, a second to live, four bytes.
    reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
    reply
}

/// For threads that wait and write.
const STACK: usize = 128 * 1024;

fn answer(
    mut stream: TcpStream,
    responses: &dyn Fn(usize) -> Option<Vec<u8>>,
    distance: &Distance,
) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !complete(&request) {
        let n = stream.read(&mut buffer)?;
        anyhow::ensure!(n > 0, "the request ended early");
        request.extend_from_slice(&buffer[..n]);
    }
    distance.wait();
    let text = String::from_utf8_lossy(&request);
    let path = text.split(' ').nth(1).unwrap_or_default();
    let index = path.trim_start_matches('/').split('/').next();
    let response = index.and_then(|index| responses(index.parse::<usize>().ok()?));
    let Some(body) = response else {
        stream.write_all(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )?;
        return Ok(());
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat())?;
    Ok(())
}

/// Whether head and body (of a POST) are there.
fn complete(request: &[u8]) -> bool {
    let Some(head) = request.windows(4).position(|four| four == b"\r\n\r\n") else {
        return false;
    };
    let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|value| value.trim().parse::<usize>().ok());
    request.len() >= head + 4 + length.unwrap_or(0)
}
