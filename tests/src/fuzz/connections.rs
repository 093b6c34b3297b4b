//! What a client sends first: a PROXY header and a ClientHello.

use std::net::SocketAddr;
use std::time::SystemTime;

use clinch::cli::demo::authority::Authority;
use clinch::data::fuzzing;
use clinch_hello::{Reading, is_address, normalise_name, read, walk};

use super::{Seed, named};
use crate::client::Client;

/// Reads the first bytes of a connection as a ClientHello; true where it is whole.
///
/// # Panics
/// When the walk is outside what it was given, or a hello that is whole needs what follows it.
pub fn hello(bytes: &[u8]) -> bool {
    let mut scratch = [0; 4096];
    let reading = read(bytes, &mut scratch);
    let whole = matches!(reading, Reading::Complete(_));
    if let Reading::Complete(hello) = reading {
        let consumed = hello.consumed();
        let parts = (
            hello.server_name().map(<[u8]>::to_vec),
            hello.cipher_suites().count(),
            hello.signature_schemes().count(),
            hello.alpn().map(<[u8]>::len).sum::<usize>(),
        );
        assert!(parts.1 * 2 + parts.2 * 2 + parts.3 <= bytes.len());
        if let Some(name) = &parts.0 {
            let _ = is_address(name);
            let _ = normalise_name(name, &mut [0; 255]);
        }
        let mut scratch = [0; 4096];
        let Reading::Complete(again) = read(&bytes[..consumed], &mut scratch) else {
            panic!("the hello needs what follows it");
        };
        assert_eq!(again.server_name(), parts.0.as_deref());
        assert_eq!(again.asks_for_staple(), hello.asks_for_staple());
        for end in (0..consumed).step_by(1 + consumed / 64) {
            let beginning = read(&bytes[..end], &mut scratch);
            assert!(
                matches!(beginning, Reading::Incomplete),
                "at {end}: {beginning:?}"
            );
        }
    }
    let _ = walk::<[u8], 32>(bytes);
    let _ = normalise_name(bytes, &mut [0; 255]);
    whole
}

/// Reads the first bytes of a connection as a PROXY header; true where it is whole.
///
/// # Panics
/// When the reading contradicts itself, see [`fuzzing::proxy_header`].
pub fn proxy(bytes: &[u8]) -> bool {
    fuzzing::proxy_header(bytes).is_some()
}

pub(super) fn hello_seeds() -> Vec<Seed> {
    let authority = Authority::new(SystemTime::UNIX_EPOCH).expect("keys can be made");
    let root = authority.root();
    let whole = Client::new(root).hello("a.example");
    let (record, message) = whole.split_at(5);
    let (first, second) = message.split_at(100);
    let piece = |part: &[u8]| {
        let [high, low] = u16::try_from(part.len()).expect("short").to_be_bytes();
        [&record[..3], &[high, low], part].concat()
    };
    named([
        ("message", message.to_vec()),
        ("two-records", [piece(first), piece(second)].concat()),
        ("tls12", Client::tls12(root).hello("b.example")),
        (
            "no-name",
            Client::tls12(root).without_sni().hello("c.example"),
        ),
        (
            "http",
            b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n".to_vec(),
        ),
        (
            "sslv2",
            vec![0x80, 0x2e, 0x01, 0x03, 0x01, 0, 0x15, 0, 0, 0, 0x10],
        ),
        ("name", b"xn--bcher-kva.Example.".to_vec()),
        ("whole", whole),
    ])
}

pub(super) fn proxy_seeds() -> Vec<Seed> {
    let v2 = |command: u8, family: u8, rest: &[u8]| {
        let [high, low] = u16::try_from(rest.len()).expect("short").to_be_bytes();
        let head = b"\r\n\r\n\0\r\nQUIT\n";
        [&head[..], &[command, family, high, low], rest].concat()
    };
    let octets = |address: &str| match address.parse().expect("an address") {
        SocketAddr::V4(a) => (a.ip().octets().to_vec(), a.port().to_be_bytes()),
        SocketAddr::V6(a) => (a.ip().octets().to_vec(), a.port().to_be_bytes()),
    };
    let both = |from: &str, to: &str| {
        let ((from, from_port), (to, to_port)) = (octets(from), octets(to));
        [from, to, from_port.to_vec(), to_port.to_vec()].concat()
    };
    let v4 = both("192.0.2.1:1", "192.0.2.2:443");
    let with_name = [&v4[..], &[0x02, 0, 9], b"a.example"].concat();
    named([
        (
            "v1-tcp4",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n".to_vec(),
        ),
        (
            "v1-tcp6",
            b"PROXY TCP6 2001:db8::1 2001:db8::2 65535 443\r\n\x16\x03\x01".to_vec(),
        ),
        ("v1-unknown", b"PROXY UNKNOWN\r\n".to_vec()),
        ("v2-tcp4", v2(0x21, 0x11, &v4)),
        (
            "v2-tcp6",
            v2(0x21, 0x21, &both("[2001:db8::1]:1", "[2001:db8::2]:443")),
        ),
        ("v2-local", v2(0x20, 0x00, &[])),
        ("v2-unix", v2(0x21, 0x31, &[b'/'; 216])),
        ("v2-name", v2(0x21, 0x11, &with_name)),
    ])
}
