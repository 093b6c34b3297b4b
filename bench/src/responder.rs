//! An OCSP responder that knows one answer per certificate serial: enough for clinch to fetch, over
//! real HTTP, the staples that its peers read from a file.
//!
//! Signatures are not made here; the responses were signed beforehand (see `pki`). The thread sleeps
//! during a measurement, since nobody asks.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Result;

/// Answers every request on its own path: `/0`, `/1` … give the responses in order.
pub fn start(listener: TcpListener, responses: Vec<Vec<u8>>) -> Result<()> {
    std::thread::Builder::new()
        .name("responder".to_owned())
        .spawn(move || {
            for stream in listener.incoming() {
                // A client that goes away is asked again by its own retry.
                let _ = stream
                    .map_err(anyhow::Error::from)
                    .and_then(|s| answer(s, &responses));
            }
        })?;
    Ok(())
}

fn answer(mut stream: TcpStream, responses: &[Vec<u8>]) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !complete(&request) {
        let n = stream.read(&mut buffer)?;
        anyhow::ensure!(n > 0, "the request ended early");
        request.extend_from_slice(&buffer[..n]);
    }
    let text = String::from_utf8_lossy(&request);
    let path = text.split(' ').nth(1).unwrap_or_default();
    let index = path.trim_start_matches('/').split('/').next();
    let response = index.and_then(|index| responses.get(index.parse::<usize>().ok()?));
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
    stream.write_all(&[head.as_bytes(), body].concat())?;
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
