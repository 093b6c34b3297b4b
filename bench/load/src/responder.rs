//! Client-side OCSP: what a client without a staple must do before it may trust a handshake. It
//! resolves the responder's name, connects, asks, and verifies the answer. Nothing is cached: this is
//! the first visit to a site.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::SystemTime;

use clinch::certificate::Leaf;
use clinch::ocsp::Request;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use url::{Host, Url};

use crate::Failure;
use crate::judge::Responses;
use crate::plan::{Check, Resolver};

/// Asks responders for one thread.
pub(crate) struct Asker {
    resolver: Resolver,
    check: Check,
    good: RefCell<Responses>,
}

impl Asker {
    pub(crate) fn new(resolver: Resolver, check: Check) -> Self {
        Self {
            resolver,
            check,
            good: RefCell::default(),
        }
    }

    /// Whether the certificate is *good*, says its responder, now.
    pub(crate) async fn ask(&self, chain: &[CertificateDer<'_>]) -> Result<(), Failure> {
        let [leaf, issuer, ..] = chain else {
            return Err(Failure::NoResponder);
        };
        let facts = Leaf::parse(leaf).map_err(|_| Failure::NoResponder)?;
        let responder = facts.ocsp_urls.first().ok_or(Failure::NoResponder)?;
        let request = Request::new(leaf, issuer).map_err(|_| Failure::NoResponder)?;
        let get = request.get_url(responder);
        let url = Url::parse(get.as_deref().unwrap_or(responder));
        let url = url.map_err(|_| Failure::NoResponder)?;
        if url.scheme() != "http" {
            return Err(Failure::Responder("only http is spoken to responders"));
        }
        let body = get.is_none().then_some(request.der.as_slice());
        let address = self.resolve(&url).await?;
        let response = fetch(address, &url, body).await?;
        self.good
            .borrow_mut()
            .judge(&response, &[leaf, issuer], self.check, SystemTime::now())
            .map_err(Failure::Responder)
    }

    async fn resolve(&self, url: &Url) -> Result<SocketAddr, Failure> {
        let port = url.port_or_known_default().unwrap_or(80);
        let name = match url.host() {
            Some(Host::Ipv4(ip)) => return Ok((ip, port).into()),
            Some(Host::Ipv6(ip)) => return Ok((ip, port).into()),
            Some(Host::Domain(name)) => name,
            None => return Err(Failure::NoResponder),
        };
        match self.resolver {
            Resolver::System => {
                let found = tokio::net::lookup_host((name, port)).await;
                let mut found = found.map_err(|_| Failure::Resolve)?;
                found.next().ok_or(Failure::Resolve)
            }
            Resolver::Server(server) => {
                let ip = query(server, name).await.ok_or(Failure::Resolve)?;
                Ok((ip, port).into())
            }
        }
    }
}

/// One question for A over UDP (RFC 1035 section 4), and the first address of the answer.
async fn query(server: SocketAddr, name: &str) -> Option<IpAddr> {
    let local: SocketAddr = if server.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0; 16], 0).into()
    };
    let socket = UdpSocket::bind(local).await.ok()?;
    socket.connect(server).await.ok()?;
    let id: u16 = rand::random();
    socket.send(&question(id, name)?).await.ok()?;
    let mut answer = [0; 1500];
    loop {
        let n = socket.recv(&mut answer).await.ok()?;
        // Anything else is not ours: keep waiting for the deadline of the connection.
        if answer.get(..2) == Some(&id.to_be_bytes()) {
            return first_address(&answer[..n]);
        }
    }
}

fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(64);
    message.extend(id.to_be_bytes());
    // Recursion desired; one question.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|n| (1..64).contains(n))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, TYPE_A, 0, CLASS_IN]);
    Some(message)
}

fn first_address(message: &[u8]) -> Option<IpAddr> {
    let word = |at: usize| {
        let bytes = message.get(at..at + 2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    let (questions, answers) = (word(4)?, word(6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = after_name(message, at)? + 4;
    }
    for _ in 0..answers {
        at = after_name(message, at)?;
        let (kind, length) = (word(at)?, usize::from(word(at + 8)?));
        let data = message.get(at + 10..at + 10 + length)?;
        if kind == u16::from(TYPE_A)
            && let Ok(octets) = <[u8; 4]>::try_from(data)
        {
            return Some(Ipv4Addr::from(octets).into());
        }
        at += 10 + length;
    }
    None
}

/// Where a name ends: at its root label, or behind a pointer (RFC 1035 section 4.1.4).
fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

async fn fetch(address: SocketAddr, url: &Url, body: Option<&[u8]>) -> Result<Vec<u8>, Failure> {
    let broken = |_| Failure::Responder("the connection broke");
    let stream = TcpStream::connect(address).await;
    let mut stream = stream.map_err(|_| Failure::Responder("cannot connect"))?;
    stream.set_nodelay(true).map_err(broken)?;
    let host = url.host_str().unwrap_or_default();
    let method = if body.is_some() { "POST" } else { "GET" };
    let mut request = format!(
        "{method} {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n",
        url.path()
    );
    if let Some(body) = body {
        request += &format!(
            "Content-Type: application/ocsp-request\r\nContent-Length: {}\r\n",
            body.len()
        );
    }
    let mut request = (request + "\r\n").into_bytes();
    request.extend_from_slice(body.unwrap_or_default());
    stream.write_all(&request).await.map_err(broken)?;
    let mut answer = Vec::with_capacity(4096);
    let mut most = (&mut stream).take(MOST_BYTES);
    loop {
        if let Some(body) = body_of(&answer)? {
            return Ok(body);
        }
        if most.read_buf(&mut answer).await.map_err(broken)? == 0 {
            return Err(Failure::Responder("the answer ended early"));
        }
    }
}

/// The body, once all of it is there.
fn body_of(answer: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    if text.split(' ').nth(1) != Some("200") {
        return Err(Failure::Responder("its answer is not 200"));
    }
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|value| value.trim().parse::<usize>().ok())
        .ok_or(Failure::Responder("its answer has no length"))?;
    let body = &answer[head + 4..];
    Ok((body.len() >= length).then(|| body[..length].to_vec()))
}

const TYPE_A: u8 = 1;
const CLASS_IN: u8 = 1;

/// Longest answer read from a responder, bytes.
const MOST_BYTES: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_behind_an_alias_and_compressed_names() {
        let mut message = question(7, "ocsp.test").expect("a name");
        message[2] = 0x81;
        message[7] = 2;
        message.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12]);
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 127, 0, 0, 9]);
        let found = first_address(&message);
        assert_eq!(found, Some(Ipv4Addr::new(127, 0, 0, 9).into()));
        for cut in 0..message.len() {
            assert_eq!(first_address(&message[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_body_is_taken_when_all_of_it_is_there() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(body_of(whole).expect("200"), Some(b"abc".to_vec()));
        assert_eq!(body_of(&whole[..whole.len() - 1]).expect("200"), None);
        assert!(body_of(b"HTTP/1.1 503 No\r\n\r\n").is_err());
    }
}
