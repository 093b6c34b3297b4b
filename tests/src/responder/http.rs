//! HTTP/1.1 by hand, as far as a responder needs it: one request a connection, answers in pieces.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, SystemTime};

use clinch::cli::demo::responder::request_of_path;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::Request;

/// Content type of an OCSP response (RFC 6960 appendix A.2).
pub(super) const OCSP: &str = "application/ocsp-response";

/// Reads a whole request, GET or POST (RFC 6960 appendix A.1).
pub(super) fn read_request(stream: &TcpStream) -> io::Result<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let headers = read_headers(&mut reader)?;
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let der = if method == "GET" {
        request_of_path(&path).ok_or(io::ErrorKind::InvalidData)?
    } else {
        body
    };
    Ok(Request {
        method,
        path,
        der,
        headers,
        at: SystemTime::now(),
    })
}

/// A complete answer with status 200.
pub(super) fn ok(stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    head(stream, "200 OK", OCSP, Some(bytes.len() as u64))?;
    body(stream, bytes)
}

/// Status line and headers.
pub(super) fn head(
    mut stream: &TcpStream,
    status: &str,
    content_type: &str,
    length: Option<u64>,
) -> io::Result<()> {
    let length = length.map_or(String::new(), |n| format!("content-length: {n}\r\n"));
    write!(
        stream,
        "HTTP/1.1 {status}\r\ndate: {}\r\ncontent-type: {content_type}\r\n{length}connection: close\r\n\r\n",
        date()
    )
}

/// The present as HTTP writes it (RFC 9110 section 5.6.7).
fn date() -> String {
    let rfc2822 = OffsetDateTime::now_utc().format(&Rfc2822);
    rfc2822
        .expect("a year of four digits")
        .replace("+0000", "GMT")
}

/// Bytes of a body.
pub(super) fn body(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)
}

/// A body of zero bytes.
pub(super) fn zeroes(mut stream: &TcpStream, size: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(size), &mut stream).map(drop)
}

/// A complete answer with further header lines, each ended by CRLF.
pub(super) fn ok_with(mut stream: &TcpStream, headers: &str, bytes: &[u8]) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: {OCSP}\r\ncontent-length: {}\r\n{headers}\r\n",
        bytes.len()
    )?;
    stream.write_all(bytes)
}

/// Bytes as gzip holds them without compression: one stored block (RFC 1951 section 3.2.4).
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("an OCSP response is short");
    let crc = bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    });
    [
        &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 1],
        &length.to_le_bytes()[..],
        &(!length).to_le_bytes(),
        bytes,
        &(!crc).to_le_bytes(),
        &u32::from(length).to_le_bytes(),
    ]
    .concat()
}

/// Header lines that do not end, for this many bytes.
pub(super) fn headers_without_end(mut stream: &TcpStream, size: usize) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
    let line = format!("x-filler: {}\r\n", "x".repeat(200));
    for _ in 0..size / line.len() {
        stream.write_all(line.as_bytes())?;
    }
    Ok(())
}

/// A redirect.
pub(super) fn redirect(mut stream: &TcpStream, to: &str) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
}

/// A complete answer in chunks (RFC 9112 section 7.1).
pub(super) fn chunked(mut stream: &TcpStream, bytes: &[u8], size: usize) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: {OCSP}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    )?;
    for chunk in bytes.chunks(size) {
        write!(stream, "{:x}\r\n", chunk.len())?;
        stream.write_all(chunk)?;
        stream.write_all(b"\r\n")?;
    }
    stream.write_all(b"0\r\n\r\n")
}

/// A complete answer, one byte after the other.
pub(super) fn drip(mut stream: &TcpStream, bytes: &[u8], pause: Duration) -> io::Result<()> {
    head(stream, "200 OK", OCSP, Some(bytes.len() as u64))?;
    for byte in bytes {
        stream.write_all(&[*byte])?;
        std::thread::sleep(pause);
    }
    Ok(())
}

/// Makes the close that follows a reset.
pub(super) fn reset(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// Waits until the client closes.
pub(super) fn wait_for_close(mut stream: &TcpStream) -> io::Result<()> {
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

/// Ends the answer, then waits a moment for the client's end.
pub(super) fn close(stream: &TcpStream) {
    if matches!(socket2::SockRef::from(stream).linger(), Ok(Some(_))) {
        return;
    }
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let _ = wait_for_close(stream);
}

fn read_headers(reader: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            None => return Ok(headers),
        }
    }
}
