//! The PROXY protocol: what backends are told, and what trusted peers tell clinch.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};

use clinch_tests::PROMPT;
use clinch_tests::backend::{Backend, Stream, echo};
use clinch_tests::client::{Client, Offer};
use clinch_tests::hello::{self, Answer};
use clinch_tests::proxy::{ALPN, AUTHORITY, Header, SSL, SSL_CIPHER, SSL_VERSION, UNIQUE_ID};
use clinch_tests::setup::Setup;
use clinch_tests::target::Target;

const FAILURES: &str = "clinch_handshake_failures_total";

/// A backend that reads a header, hands it over, and echoes what follows.
fn recording() -> (Backend, Receiver<Header>) {
    let (sender, headers) = channel();
    let backend = Backend::tcp(move |mut stream: Stream| {
        let header = Header::read(&mut stream).expect("a PROXY header comes first");
        let _ = sender.send(header);
        echo(stream);
    });
    (backend, headers)
}

#[test]
fn version_1_names_client_and_listener() {
    let (backend, headers) = recording();
    let mut setup = Setup::new();
    setup.site("a.example", backend.written(), "proxy_protocol = \"v1\"");
    let clinch = setup.start();
    let mut session = setup.connect("a.example");
    session.echo(b"after the header");
    let header = headers.recv_timeout(PROMPT).expect("a header");
    assert_eq!(header.version, 1);
    assert_eq!(header.source, session.stream.sock.local_addr().ok());
    assert_eq!(header.destination, Some(setup.address));
    clinch.stop();
}

#[test]
fn version_2_carries_authority_alpn_version_cipher_and_a_unique_id() {
    let (backend, headers) = recording();
    let mut setup = Setup::new();
    setup.site(
        "a.example",
        backend.written(),
        "proxy_protocol = \"v2\"\nalpn = [\"h2\"]",
    );
    let clinch = setup.start();
    let mut ids = Vec::new();
    for (versions, shown) in [
        (vec![&rustls::version::TLS12], "TLSv1.2"),
        (vec![&rustls::version::TLS13], "TLSv1.3"),
    ] {
        let offer = Offer {
            versions,
            alpn: vec!["h2"],
            ..Offer::default()
        };
        let client = Client::offering(setup.authority.root(), &offer);
        let mut session = client
            .connect(setup.address, "a.example")
            .expect("a handshake");
        session.echo(b"after the header");
        let header = headers.recv_timeout(PROMPT).expect("a header");
        assert_eq!(header.version, 2);
        assert_eq!(header.source, session.stream.sock.local_addr().ok());
        assert_eq!(header.destination, Some(setup.address));
        assert_eq!(header.tlv(AUTHORITY), Some(&b"a.example"[..]));
        assert_eq!(header.tlv(ALPN), Some(&b"h2"[..]));
        let ssl = header.tlv(SSL).expect("PP2_TYPE_SSL");
        assert_eq!(ssl[0] & 1, 1, "PP2_CLIENT_SSL");
        assert_eq!(header.tlv(SSL_VERSION), Some(shown.as_bytes()));
        let cipher = String::from_utf8_lossy(header.tlv(SSL_CIPHER).expect("a cipher"));
        assert!(
            cipher.contains("AES") || cipher.contains("CHACHA"),
            "{cipher}"
        );
        ids.push(header.tlv(UNIQUE_ID).expect("a unique id").to_vec());
    }
    assert!(!ids[0].is_empty() && ids[0] != ids[1], "{ids:?}");
    clinch.stop();
}

#[test]
fn without_a_header_the_backend_gets_the_clients_bytes_first() {
    let backend = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", backend.written());
    let clinch = setup.start();
    setup.connect("a.example").echo(b"nothing before this");
    clinch.stop();
}

#[test]
fn a_trusted_peers_header_is_believed_and_passed_on() {
    let (backend, headers) = recording();
    let mut setup = Setup::new();
    setup.site("a.example", backend.written(), "proxy_protocol = \"v2\"");
    setup.listen = "proxy_protocol_from = [\"127.0.0.0/8\"]\n".to_owned();
    let clinch = setup.start();
    let v4 = b"PROXY TCP4 192.0.2.7 198.51.100.9 4711 443\r\n".to_vec();
    let v4_binary = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(),
        &[192, 0, 2, 7, 198, 51, 100, 9, 0x12, 0x67, 1, 187],
    ]
    .concat();
    let v6 = b"PROXY TCP6 2001:db8::7 2001:db8::9 4711 443\r\n".to_vec();
    for (header, source) in [
        (v4, "192.0.2.7:4711"),
        (v4_binary, "192.0.2.7:4711"),
        (v6, "[2001:db8::7]:4711"),
    ] {
        let source: SocketAddr = source.parse().expect("an address");
        for split in [1, header.len() / 2, header.len()] {
            let mut tcp = hello::connect(setup.address).expect("a connection");
            tcp.write_all(&header[..split]).expect("taken");
            tcp.write_all(&header[split..]).expect("taken");
            let mut session = setup.client().over(tcp, "a.example").expect("a handshake");
            session.echo(b"through");
            let got = headers.recv_timeout(PROMPT).expect("a header");
            assert_eq!(got.source, Some(source));
        }
    }
    clinch.stop();
}

#[test]
fn a_header_without_addresses_keeps_the_connections_own() {
    // LOCAL of version 2: health checks of a load balancer.
    let (backend, headers) = recording();
    let mut setup = Setup::new();
    setup.site("a.example", backend.written(), "proxy_protocol = \"v2\"");
    setup.listen = "proxy_protocol_from = [\"127.0.0.0/8\"]\n".to_owned();
    let clinch = setup.start();
    let mut tcp = hello::connect(setup.address).expect("a connection");
    let own = tcp.local_addr().expect("connected");
    tcp.write_all(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0")
        .expect("taken");
    let mut session = setup.client().over(tcp, "a.example").expect("a handshake");
    session.echo(b"through");
    assert_eq!(
        headers.recv_timeout(PROMPT).expect("a header").source,
        Some(own)
    );
    clinch.stop();
}

#[test]
fn a_proxy_header_from_an_untrusted_address_is_refused() {
    let target = Target::start();
    let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 443\r\n".to_vec();
    let v2 = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(),
        &[192, 0, 2, 1, 192, 0, 2, 2, 4, 87, 1, 187],
    ]
    .concat();
    for header in [v1, v2] {
        let bytes = [header, target.setup.client().hello("a.example")].concat();
        let answer = target.send(&bytes);
        assert!(!matches!(answer, Answer::Handshake(_)), "{answer:?}");
    }
    target.counted("proxy_header", 2.0);
}

#[test]
fn a_trusted_address_must_send_a_proxy_header_that_parses() {
    let listen = "proxy_protocol_from = [\"127.0.0.0/8\"]\n";
    let echo = Backend::echo();
    let (mut setup, _) = Setup::with_site("a.example", echo.written());
    setup.listen = listen.to_owned();
    let clinch = setup.start();
    let hello = setup.client().hello("a.example");
    for bad in [
        Vec::new(),
        b"PROXY TCP4 192.0.2.1\r\n".to_vec(),
        b"PROXY TCP4 999.0.2.1 192.0.2.2 1111 443\r\n".to_vec(),
        [b"PROXY ".to_vec(), vec![b'x'; 200]].concat(),
        b"\r\n\r\n\0\r\nQUIT\n\x51\x11\0\x0cxxxxxxxxxxxx".to_vec(),
    ] {
        let bytes = [bad.clone(), hello.clone()].concat();
        let answer = hello::send(setup.address, &bytes).expect("an answer or an end");
        assert!(
            !matches!(answer, Answer::Handshake(_)),
            "{:?}: {answer:?}",
            bad
        );
    }
    clinch.wait_for_count(FAILURES, &["reason=\"proxy_header\""], 5.0);
    let good = [
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 443\r\n".to_vec(),
        hello,
    ]
    .concat();
    assert_eq!(
        hello::send(setup.address, &good).expect("an answer"),
        Answer::Handshake(2)
    );
    clinch.stop();
}
