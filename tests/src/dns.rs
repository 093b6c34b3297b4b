//! A name server for one address, over UDP and TCP, that fails on demand. It answers for whatever names
//! were set, with addresses that hold for a second; it keeps no zone.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How the server answers for a name. A name that was never set does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// With these addresses.
    Addresses(Vec<IpAddr>),
    /// With these addresses over TCP; over UDP with the word that they do not fit (RFC 1035 section
    /// 4.1.1, TC).
    Truncated(Vec<IpAddr>),
    /// There is no such name (NXDOMAIN).
    NoSuchName,
    /// The server has failed (SERVFAIL).
    Failure,
    /// Not at all.
    Silent,
    /// With these addresses for two seconds, then with SERVFAIL for four, and again.
    Flapping(Vec<IpAddr>),
}

/// A running name server. Its threads live as long as the process.
#[derive(Clone, Default)]
pub struct Dns {
    names: Arc<Mutex<HashMap<String, Lookup>>>,
    queries: Arc<AtomicUsize>,
}

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

impl Dns {
    /// Listens on an address.
    pub fn start(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        let listener = TcpListener::bind(address)?;
        let dns = Self::default();
        let begun = Instant::now();
        let over_udp = dns.clone();
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut query) {
                let query = &query[..length];
                if let Some(answer) = over_udp.answer(query, begun.elapsed(), Transport::Udp) {
                    // A client that is gone asks no more.
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        let over_tcp = dns.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let dns = over_tcp.clone();
                // Ends with an error when the client does.
                std::thread::spawn(move || dns.serve(client, begun));
            }
        });
        Ok(dns)
    }

    /// Each message has its length before it (RFC 1035 section 4.2.2).
    fn serve(&self, mut client: TcpStream, begun: Instant) -> io::Result<()> {
        loop {
            let mut length = [0; 2];
            client.read_exact(&mut length)?;
            let mut query = vec![0; u16::from_be_bytes(length).into()];
            client.read_exact(&mut query)?;
            if let Some(answer) = self.answer(&query, begun.elapsed(), Transport::Tcp) {
                let length = u16::try_from(answer.len()).expect("a name has few addresses");
                client.write_all(&[&length.to_be_bytes(), &answer[..]].concat())?;
            }
        }
    }

    fn answer(&self, query: &[u8], since: Duration, over: Transport) -> Option<Vec<u8>> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        let lookup = |name: &str| {
            let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            names.get(name).cloned().unwrap_or(Lookup::NoSuchName)
        };
        answer(query, since, over, lookup)
    }

    /// How many queries came so far.
    pub fn queries(&self) -> usize {
        self.queries.load(Ordering::Relaxed)
    }

    /// Sets how a name, in lower case, is answered from now on.
    pub fn set(&self, name: &str, lookup: Lookup) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(name.to_owned(), lookup);
    }
}

/// The answer to a query with one question (RFC 1035 section 4); `None` where there is to be none.
fn answer(
    query: &[u8],
    since: Duration,
    over: Transport,
    lookup: impl Fn(&str) -> Lookup,
) -> Option<Vec<u8>> {
    let (name, end) = question(query)?;
    let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
    let good_now = since.as_secs() % 6 < 2;
    let mut truncated = 0;
    let (code, addresses) = match lookup(&name) {
        Lookup::Truncated(_) if over == Transport::Udp => {
            truncated = TRUNCATED;
            (0, Vec::new())
        }
        Lookup::Addresses(addresses) | Lookup::Truncated(addresses) => (0, addresses),
        Lookup::Flapping(addresses) if good_now => (0, addresses),
        Lookup::Flapping(_) | Lookup::Failure => (SERVFAIL, Vec::new()),
        Lookup::NoSuchName => (NXDOMAIN, Vec::new()),
        Lookup::Silent => return None,
    };
    let records: Vec<Vec<u8>> = addresses
        .iter()
        .filter_map(|address| match (address, kind) {
            (IpAddr::V4(address), A) => Some(record(kind, &address.octets())),
            (IpAddr::V6(address), AAAA) => Some(record(kind, &address.octets())),
            _ => None,
        })
        .collect();
    let count = u8::try_from(records.len()).expect("a name has few addresses");
    // A response, recursion wanted and available; one question, no authority, nothing additional.
    let flags = [0x81 | truncated, 0x80 | code];
    let counts = [0, 1, 0, count, 0, 0, 0, 0];
    let question = query.get(HEADER..end + 4)?;
    Some([&query[..2], &flags, &counts, question, &records.concat()].concat())
}

/// The name of the first question in lower case, and where it ends.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*query.get(at)?);
        if length == 0 {
            return Some((labels.join("."), at + 1));
        }
        let label = query.get(at + 1..at + 1 + length)?;
        labels.push(std::str::from_utf8(label).ok()?.to_ascii_lowercase());
        at += 1 + length;
    }
}

/// A resource record for the name in the question, valid for a second.
fn record(kind: u16, address: &[u8]) -> Vec<u8> {
    let name = [0xc0, HEADER as u8];
    let [high, low] = kind.to_be_bytes();
    let length = u8::try_from(address.len()).expect("4 or 16");
    [
        &name[..],
        &[high, low, 0, 1, 0, 0, 0, 1, 0, length],
        address,
    ]
    .concat()
}

const HEADER: usize = 12;
const A: u16 = 1;
const AAAA: u16 = 28;
const TRUNCATED: u8 = 2;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_with_the_addresses_of_the_kind_asked_for() {
        let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01A\x07example\0\0\x01\0\x01";
        let both = vec!["192.0.2.1".parse().expect("v4"), "::1".parse().expect("v6")];
        let lookup = |name: &str| {
            assert_eq!(name, "a.example");
            Lookup::Addresses(both.clone())
        };
        let answer = answer(query, Duration::ZERO, Transport::Udp, lookup).expect("an answer");
        assert_eq!(answer[..4], [0x12, 0x34, 0x81, 0x80]);
        assert!(answer.ends_with(&[0, 4, 192, 0, 2, 1]));
    }
}
