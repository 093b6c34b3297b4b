//! The walk over ClientHellos of real clients and over hellos written by hand.

mod hellos;

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};

use clinch_hello::{Flaw, Hello, Reading, Stranger, read};
use hellos::{Hand, by_rustls, list8, list16, name, records};

/// Reads `received` and passes the whole hello that must be in it to `check`.
fn complete(received: &[u8], check: impl FnOnce(Hello<'_>)) {
    match read(received, &mut vec![0; 1 << 16]) {
        Reading::Complete(hello) => check(hello),
        other => panic!("not complete: {other:?}"),
    }
}

fn flaw(received: &[u8]) -> Flaw {
    match read(received, &mut vec![0; 1 << 16]) {
        Reading::Malformed(flaw) => flaw,
        other => panic!("not malformed: {other:?}"),
    }
}

#[test]
fn a_hello_of_rustls_is_understood() {
    let sent = by_rustls("Www.Example.com", &["h2", "http/1.1"], rustls::ALL_VERSIONS);
    complete(&sent, |hello| {
        let name = hello.server_name().expect("a name");
        assert!(name.eq_ignore_ascii_case(b"www.example.com"));
        assert!(hello.asks_for_staple(), "rustls always asks");
        assert!(hello.offers_tls13() && hello.offers_tls12());
        assert!(hello.alpn().eq([b"h2".as_slice(), b"http/1.1"]));
        let schemes: Vec<u16> = hello.signature_schemes().collect();
        assert!(
            schemes.contains(&0x0403) && schemes.contains(&0x0804),
            "{schemes:x?}"
        );
        assert!(hello.cipher_suites().any(|suite| suite == 0x1301));
        assert_eq!(hello.consumed(), sent.len());
    });
}

#[test]
fn a_hello_of_rustls_with_one_version_offers_that_one() {
    complete(
        &by_rustls("a.test", &[], &[&rustls::version::TLS12]),
        |hello| {
            assert!(hello.offers_tls12() && !hello.offers_tls13());
            assert_eq!(hello.alpn().count(), 0);
        },
    );
    complete(
        &by_rustls("a.test", &[], &[&rustls::version::TLS13]),
        |hello| {
            assert!(hello.offers_tls13() && !hello.offers_tls12());
        },
    );
}

/// What `openssl s_client` with these arguments sends first.
fn by_openssl(arguments: &[&str]) -> Vec<u8> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let address = listener.local_addr().expect("bound").to_string();
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &address])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("these tests need the openssl command");
    let (mut stream, _) = listener.accept().expect("accept");
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    while let Reading::Incomplete = read(&received, &mut [0; 1 << 16]) {
        let n = stream.read(&mut buffer).expect("read");
        assert!(n > 0, "the client closed after {received:x?}");
        received.extend_from_slice(&buffer[..n]);
    }
    drop(stream);
    client.wait().expect("wait");
    received
}

#[test]
fn a_hello_of_openssl_is_understood() {
    let sent = by_openssl(&[
        "-servername",
        "b.example",
        "-status",
        "-alpn",
        "h2,http/1.1",
    ]);
    complete(&sent, |hello| {
        assert_eq!(hello.server_name(), Some(b"b.example".as_slice()));
        assert!(hello.asks_for_staple());
        assert!(hello.offers_tls13() && hello.offers_tls12());
        assert!(hello.alpn().eq([b"h2".as_slice(), b"http/1.1"]));
    });
    complete(&by_openssl(&["-noservername", "-tls1_2"]), |hello| {
        assert_eq!(hello.server_name(), None);
        assert!(!hello.asks_for_staple());
        assert!(hello.offers_tls12() && !hello.offers_tls13());
    });
}

#[test]
fn a_hello_may_span_records_of_any_size() {
    let message = Hand::default().message();
    for size in 1..=message.len() {
        let sent = records(&message, size);
        complete(&sent, |hello| {
            assert_eq!(hello.message(), message);
            assert_eq!(hello.server_name(), Some(b"www.example.com".as_slice()));
            assert_eq!(hello.consumed(), sent.len());
        });
    }
}

#[test]
fn what_follows_the_hello_is_not_consumed() {
    let sent = Hand::default().record();
    let more = [&sent[..], &[20, 3, 3, 0, 1, 1, 23, 3, 3]].concat();
    complete(&more, |hello| assert_eq!(hello.consumed(), sent.len()));
}

#[test]
fn a_status_request_of_another_type_is_no_wish_for_a_staple() {
    let ocsp_multi = Hand::default().with(5, vec![2, 0, 0, 0, 0]);
    complete(&ocsp_multi.record(), |hello| {
        assert!(!hello.asks_for_staple())
    });
    complete(&Hand::default().without(5).record(), |hello| {
        assert!(!hello.asks_for_staple());
    });
}

#[test]
fn versions_before_tls_12_are_too_old() {
    for version in [0x0300, 0x0301, 0x0302] {
        let old = Hand {
            version,
            ..Hand::default()
        }
        .without(43);
        match read(&old.record(), &mut [0; 1 << 12]) {
            Reading::TooOld { version: said } => assert_eq!(said, version),
            other => panic!("{other:?}"),
        }
    }
    let listed_old = Hand::default().with(43, list8(&[3, 2, 3, 1]));
    let sent = listed_old.record();
    let mut scratch = [0; 1 << 12];
    let reading = read(&sent, &mut scratch);
    assert!(
        matches!(reading, Reading::TooOld { .. }),
        "the list alone counts"
    );
    let bare = Hand {
        extensions: None,
        ..Hand::default()
    };
    complete(&bare.record(), |hello| assert!(hello.offers_tls12()));
}

#[test]
fn strangers_are_told_apart() {
    let stranger = |bytes: &[u8]| match read(bytes, &mut [0; 64]) {
        Reading::NotTls(stranger) => Some(stranger),
        Reading::Incomplete => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(stranger(b"GET / HTTP/1.1\r\n"), Some(Stranger::Http));
    assert_eq!(stranger(b"OPTIONS * HTTP/1.1"), Some(Stranger::Http));
    assert_eq!(stranger(b"PRI * HTTP/2.0"), Some(Stranger::Http));
    assert_eq!(stranger(b"P"), None, "may become POST, PUT, PATCH or PRI");
    assert_eq!(stranger(b"PING"), Some(Stranger::Other));
    assert_eq!(stranger(b"SSH-2.0-OpenSSH"), Some(Stranger::Other));
    assert_eq!(stranger(b"\0\0\0\0"), Some(Stranger::Other));
    assert_eq!(stranger(b"\x16\x04"), Some(Stranger::Other));
    assert_eq!(stranger(b"\x80\x2e\x01\x00\x02"), Some(Stranger::Sslv2));
    assert_eq!(stranger(b"\x80\x2e\x01\x03\x01"), Some(Stranger::Sslv2));
    assert_eq!(stranger(b"\x80\x2e\x02"), Some(Stranger::Other));
}

#[test]
fn records_that_cannot_start_a_connection_are_malformed() {
    assert_eq!(flaw(&[21, 3, 1, 0, 2, 2, 40]), Flaw::RecordType(21));
    assert_eq!(flaw(&[22, 3, 1, 0, 0]), Flaw::RecordLength(0));
    assert_eq!(flaw(&[22, 3, 1, 0x40, 1]), Flaw::RecordLength(0x4001));
    assert_eq!(flaw(&[22, 3, 1, 0, 4, 2, 0, 0, 0]), Flaw::MessageType(2));
    let mut interleaved = records(&Hand::default().message(), 20);
    interleaved[25] = 23;
    assert_eq!(flaw(&interleaved), Flaw::RecordType(23));
}

#[test]
fn lengths_that_do_not_fit_are_malformed() {
    let plain = Hand::default();
    for broken in [
        Hand {
            session_id: vec![1; 33],
            ..plain.clone()
        },
        Hand {
            suites: vec![1; 3],
            ..plain.clone()
        },
        plain.clone().with(0, vec![]),
        plain.clone().with(0, list16(&[])),
        plain.clone().with(0, name(b"")),
        plain.clone().with(0, [&name(b"a.de")[..], &[0]].concat()),
        plain.clone().with(13, list16(&[4])),
        plain.clone().with(13, list16(&[])),
        plain.clone().with(16, list16(b"\x03h2")),
        plain.clone().with(16, list16(b"\0")),
        plain.clone().with(43, list8(&[3])),
        plain.clone().with(43, vec![200, 3, 4]),
    ] {
        assert_eq!(flaw(&broken.record()), Flaw::Length, "{broken:?}");
    }
}

#[test]
fn an_extension_that_comes_twice_is_malformed() {
    let mut twice = Hand::default();
    twice
        .extensions
        .as_mut()
        .expect("there")
        .push((0, name(b"b.de")));
    assert_eq!(flaw(&twice.record()), Flaw::Duplicate(0));
    let two_names = list16(&[&[0, 0, 1, b'a'][..], &[0, 0, 1, b'b']].concat());
    assert_eq!(
        flaw(&Hand::default().with(0, two_names).record()),
        Flaw::Duplicate(0)
    );
}

#[test]
fn extensions_are_bounded() {
    let many = |n: u16| {
        let extensions = (0..n).map(|i| (0x7000 + i, vec![])).collect();
        Hand {
            extensions: Some(extensions),
            ..Hand::default()
        }
        .record()
    };
    complete(&many(256), |hello| assert_eq!(hello.server_name(), None));
    assert_eq!(flaw(&many(257)), Flaw::TooManyExtensions);
}

#[test]
fn a_message_larger_than_the_scratch_buffer_is_refused_as_soon_as_its_length_is_known() {
    let sent = Hand::default().record();
    let size = sent.len() - 5;
    let mut scratch = vec![0; size];
    assert!(matches!(read(&sent, &mut scratch), Reading::Complete(_)));
    let small = &mut scratch[1..];
    assert!(matches!(read(&sent[..9], small), Reading::TooLarge(n) if n == size));
    let split = records(&Hand::default().message(), 3);
    assert!(matches!(read(&split, small), Reading::TooLarge(n) if n == size));
    assert!(matches!(read(&split, &mut [0; 2]), Reading::TooLarge(_)));
}
