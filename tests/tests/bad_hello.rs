//! Hellos that are wrong, odd, old, or come in odd pieces: each is served or refused with the right
//! alert, counted, and harms no other client.

use std::io::{Read, Write};
use std::net::TcpStream;

use clinch_tests::hello::{self, Answer, Hello, record};
use clinch_tests::setup::Setup;
use clinch_tests::target::Target;
use clinch_tests::{PROMPT, eventually};

const FAILURES: &str = "clinch_handshake_failures_total";
const DECODE_ERROR: u8 = 50;
const HANDSHAKE_FAILURE: u8 = 40;
const PROTOCOL_VERSION: u8 = 70;
const UNRECOGNIZED_NAME: u8 = 112;
const UNEXPECTED_MESSAGE: u8 = 10;
const RECORD_OVERFLOW: u8 = 22;

#[test]
fn garbage_within_a_handshake_record_is_malformed() {
    let target = Target::start();
    // A ClientHello by its header, nonsense inside.
    let mut message = vec![1, 0, 0, 60];
    message.extend([0xff; 60]);
    let answer = target.send(&record(0x0301, &message));
    assert!(
        matches!(answer, Answer::Alert(DECODE_ERROR | PROTOCOL_VERSION)),
        "{answer:?}"
    );
    // Another handshake message than ClientHello.
    let answer = target.send(&record(0x0301, &[11, 0, 0, 3, 0, 0, 0]));
    assert!(
        matches!(answer, Answer::Alert(UNEXPECTED_MESSAGE | DECODE_ERROR)),
        "{answer:?}"
    );
    // A field that claims more than there is.
    let mut long = Hello::tls12("a.example").message();
    long[38] = 0xff;
    let answer = target.send(&record(0x0301, &long));
    assert!(matches!(answer, Answer::Alert(DECODE_ERROR)), "{answer:?}");
    target.counted("malformed", 3.0);
}

#[test]
fn an_oversized_record_and_an_oversized_hello_are_refused() {
    let target = Target::start();
    // Longer than any record may be (RFC 8446 section 5.1: 2^14).
    let mut record_header = vec![22, 3, 1, 0xff, 0xff];
    record_header.extend([0; 4096]);
    let answer = target.send(&record_header);
    assert!(
        matches!(
            answer,
            Answer::Alert(RECORD_OVERFLOW | DECODE_ERROR) | Answer::Closed | Answer::Reset
        ),
        "{answer:?}"
    );
    // Honest records that together make a hello of a mebibyte.
    let mut hello = vec![1, 0x10, 0, 0];
    hello.resize(1 << 20, 0);
    let flood: Vec<u8> = hello
        .chunks(16_000)
        .flat_map(|part| record(0x0301, part))
        .collect();
    let answer = target.send(&flood);
    assert!(!matches!(answer, Answer::Handshake(_)), "{answer:?}");
    eventually("both are counted", PROMPT, || {
        let metrics = target.clinch.metrics();
        let count = metrics.sum(FAILURES, &["reason=\"too_large\""])
            + metrics.sum(FAILURES, &["reason=\"malformed\""])
            + metrics.sum(FAILURES, &["reason=\"not_tls\""]);
        (count == 2.0).then_some(())
    });
    target.counted("too_large", 1.0);
}

#[test]
fn a_client_that_never_completes_its_handshake_is_bounded_in_bytes() {
    let target =
        Target::start_as(|setup| setup.tables = "[limits]\nhandshake_bytes = 16384\n".into());
    let mut hello = vec![1, 0, 0x60, 0];
    hello.resize(24 * 1024, 0);
    let flood: Vec<u8> = hello
        .chunks(1_000)
        .flat_map(|part| record(0x0301, part))
        .collect();
    let answer = target.send(&flood);
    assert!(!matches!(answer, Answer::Handshake(_)), "{answer:?}");
    target.counted("too_large", 1.0);
}

#[test]
fn a_hello_byte_by_byte_is_served() {
    let target = Target::start();
    let mut stream = target.connect();
    let mut tls = target.setup.client().start("a.example");
    let mut flight = Vec::new();
    tls.write_tls(&mut flight).expect("a Vec takes all bytes");
    for byte in flight {
        // Without Nagle, each byte is a segment of its own.
        stream.write_all(&[byte]).expect("taken");
    }
    complete(&mut tls, &mut stream);
    target.unharmed();
}

#[test]
fn a_hello_split_across_records_is_served() {
    let target = Target::start();
    for size in [1, 3, 4, 5, 40, 100] {
        let answer = target.send(&Hello::tls12("a.example").records(size));
        assert_eq!(answer, Answer::Handshake(2), "records of {size} bytes");
    }
    target.unharmed();
}

#[test]
fn a_post_quantum_hello_split_across_segments_is_served() {
    let target = Target::start();
    let whole = target.setup.client().hello("a.example");
    assert!(
        whole.len() > 1400,
        "it spans segments by itself: {}",
        whole.len()
    );
    for cut in [3, 5, 9, 100, 517, whole.len() - 1] {
        let mut stream = target.connect();
        stream.write_all(&whole[..cut]).expect("taken");
        hello::wait_until_read(&stream);
        stream.write_all(&whole[cut..]).expect("taken");
        let answer = hello::answer(&mut stream).expect("an answer");
        assert_eq!(answer, Answer::Handshake(2), "cut at {cut}");
    }
    target.unharmed();
}

#[test]
fn odd_server_names_are_refused_or_malformed_but_never_served() {
    let target = Target::start();
    let long = format!("{}.example", "l".repeat(247));
    assert_eq!(long.len(), 255);
    let odd: [&[u8]; 8] = [
        b"127.0.0.1",
        b"[::1]",
        long.as_bytes(),
        "b\u{fc}cher.example".as_bytes(),
        b"a.example\0.evil.example",
        b"a_b.example",
        b"",
        b"..",
    ];
    for name in odd {
        let hello = Hello {
            name: Some(name.to_vec()),
            ..Hello::tls12("")
        };
        let answer = target.send(&hello.record());
        let shown = String::from_utf8_lossy(name);
        assert!(
            matches!(answer, Answer::Alert(UNRECOGNIZED_NAME | DECODE_ERROR | 47)),
            "{shown:?}: {answer:?}"
        );
    }
    eventually("each is counted", PROMPT, || {
        let metrics = target.clinch.metrics();
        let count: f64 = ["unknown_server_name", "no_server_name", "malformed"]
            .iter()
            .map(|reason| metrics.sum(FAILURES, &[&format!("reason=\"{reason}\"")]))
            .sum();
        (count == odd.len() as f64).then_some(())
    });
    target.unharmed();
}

#[test]
fn a_name_with_a_trailing_dot_is_no_other_name() {
    // RFC 6066 section 3: the name is sent without a trailing dot. Either refusal or the site is
    // right; a hang or a crash is not.
    let target = Target::start();
    let answer = target.send(&Hello::tls12("a.example.").record());
    assert!(!matches!(answer, Answer::Bytes(_)), "{answer:?}");
    target.unharmed();
}

#[test]
fn old_versions_are_told_protocol_version() {
    let target = Target::start();
    // TLS 1.0 and 1.1 hellos; SSL 3.0 in its own record version.
    for version in [0x0301, 0x0302] {
        let hello = Hello {
            version,
            record_version: 0x0301,
            ..Hello::tls12("a.example")
        };
        assert_eq!(
            target.send(&hello.record()),
            Answer::Alert(PROTOCOL_VERSION),
            "{version:#x}"
        );
    }
    let ssl3 = Hello {
        version: 0x0300,
        record_version: 0x0300,
        ..Hello::tls12("a.example")
    };
    let answer = target.send(&ssl3.record());
    assert!(
        matches!(answer, Answer::Alert(PROTOCOL_VERSION | HANDSHAKE_FAILURE)),
        "{answer:?}"
    );
    // An SSLv2-compatible hello (RFC 6101 appendix E).
    let ssl2 = [
        0x80, 0x2e, 0x01, 0x00, 0x02, 0x00, 0x15, 0x00, 0x00, 0x00, 0x10,
    ];
    let answer = target.send(&[&ssl2[..], &[0x07; 37]].concat());
    assert!(
        !matches!(answer, Answer::Handshake(_) | Answer::Bytes(_)),
        "{answer:?}"
    );
    target.counted("old_version", 4.0);
}

#[test]
fn no_common_cipher_is_told_handshake_failure() {
    let target = Target::start();
    // TLS_RSA_WITH_3DES_EDE_CBC_SHA alone.
    let hello = Hello {
        suites: vec![0x000a],
        ..Hello::tls12("a.example")
    };
    assert_eq!(
        target.send(&hello.record()),
        Answer::Alert(HANDSHAKE_FAILURE)
    );
    target.counted("nothing_in_common", 1.0);
}

#[test]
fn a_client_that_refuses_the_certificate_is_counted_as_its_alert() {
    let target = Target::start();
    let stranger = Setup::new();
    stranger
        .client()
        .connect(target.setup.address, "a.example")
        .err()
        .expect("another root is not trusted");
    target.counted("peer_alert", 1.0);
}

fn complete(tls: &mut rustls::ClientConnection, stream: &mut TcpStream) {
    while tls.is_handshaking() {
        tls.complete_io(stream).expect("the handshake goes on");
    }
    let mut stream = rustls::Stream::new(tls, stream);
    stream.write_all(b"through").expect("taken");
    let mut back = [0; 7];
    stream.read_exact(&mut back).expect("it comes back");
    assert_eq!(&back, b"through");
}
