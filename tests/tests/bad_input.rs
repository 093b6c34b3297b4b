//! Bad input from clients: each has an outcome that the client sees, a counter, and a server that
//! serves the next client as if nothing had been.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use clinch::cli::demo::authority::Issued;
use clinch_tests::backend::{Backend, Stream};
use clinch_tests::hello::{self, Answer, Hello, record};
use clinch_tests::process::Clinch;
use clinch_tests::setup::{Setup, assert_stapled};
use clinch_tests::{PROMPT, eventually};

const FAILURES: &str = "clinch_handshake_failures_total";
const ENDS: &str = "clinch_connections_ended_total";
const DECODE_ERROR: u8 = 50;
const HANDSHAKE_FAILURE: u8 = 40;
const PROTOCOL_VERSION: u8 = 70;
const UNRECOGNIZED_NAME: u8 = 112;
const UNEXPECTED_MESSAGE: u8 = 10;
const RECORD_OVERFLOW: u8 = 22;

/// A running clinch with one site, and the means to see that it is unharmed.
struct Target {
    clinch: Clinch,
    setup: Setup,
    issued: Issued,
    _echo: Backend,
}

impl Target {
    fn start() -> Self {
        Self::start_with("", "")
    }

    fn start_with(listen: &str, tables: &str) -> Self {
        let echo = Backend::echo();
        let (mut setup, issued) = Setup::with_site("a.example", echo.written());
        setup.listen = listen.to_owned();
        setup.tables = tables.to_owned();
        let clinch = setup.start();
        Self {
            clinch,
            setup,
            issued,
            _echo: echo,
        }
    }

    fn send(&self, bytes: &[u8]) -> Answer {
        hello::send(self.setup.address, bytes).expect("an answer or an end")
    }

    fn connect(&self) -> TcpStream {
        hello::connect(self.setup.address).expect("a connection")
    }

    /// Asserts that the failure was counted this often, nothing hangs, and both workers serve.
    #[track_caller]
    fn counted(self, reason: &str, times: f64) {
        let label = format!("reason=\"{reason}\"");
        self.clinch.wait_for_count(FAILURES, &[&label], times);
        self.unharmed();
    }

    #[track_caller]
    fn unharmed(self) {
        for _ in 0..8 {
            let mut session = self.setup.connect("a.example");
            assert_stapled(&session, &self.issued);
            session.echo(b"still serving");
        }
        eventually("no handshake is left over", PROMPT, || {
            (self.clinch.count("clinch_handshakes_active", &[]) == 0.0).then_some(())
        });
        let internal = self.clinch.count(FAILURES, &["reason=\"internal\""]);
        assert_eq!(internal, 0.0, "a failure that nobody could name");
        self.clinch.stop();
    }
}

#[test]
fn plain_http_is_answered_in_plain_words() {
    let target = Target::start();
    for request in [
        "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n",
        "POST /x HTTP/1.0\r\n\r\n",
    ] {
        let Answer::Bytes(bytes) = target.send(request.as_bytes()) else {
            panic!("no answer in plain text");
        };
        let text = String::from_utf8(bytes).expect("text");
        assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
        assert!(
            text.to_lowercase().contains("https"),
            "it does not say what to do: {text}"
        );
    }
    target.counted("plain_http", 2.0);
}

#[test]
fn garbage_is_not_tls() {
    let target = Target::start();
    let answer = target.send(&[0xde; 64]);
    assert!(
        matches!(answer, Answer::Alert(_) | Answer::Closed | Answer::Reset),
        "{answer:?}"
    );
    let answer = target.send(b"SSH-2.0-OpenSSH_9.2\r\n");
    assert!(
        !matches!(answer, Answer::Bytes(_) | Answer::Handshake(_)),
        "{answer:?}"
    );
    target.counted("not_tls", 2.0);
}

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
fn a_truncated_hello_and_an_end_is_a_client_that_left() {
    let target = Target::start();
    let whole = target.setup.client().hello("a.example");
    let cuts = [1, 5, 6, 43, whole.len() / 2, whole.len() - 1];
    for cut in cuts {
        let mut stream = target.connect();
        stream.write_all(&whole[..cut]).expect("taken");
        stream.shutdown(Shutdown::Write).expect("open");
        let answer = hello::answer(&mut stream).expect("an end");
        assert!(
            !matches!(answer, Answer::Handshake(_)),
            "cut at {cut}: {answer:?}"
        );
    }
    target.counted("peer_closed", cuts.len() as f64);
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
    let target = Target::start_with("", "[limits]\nhandshake_bytes = 16384\n");
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
        wait_until_read(&stream);
        stream.write_all(&whole[cut..]).expect("taken");
        let answer = hello::answer(&mut stream).expect("an answer");
        assert_eq!(answer, Answer::Handshake(2), "cut at {cut}");
    }
    target.unharmed();
}

#[test]
fn a_silent_client_is_timed_out() {
    let target = Target::start_with("", "[timeouts]\nhandshake = \"1s\"\n");
    let begun = Instant::now();
    let mut silent = target.connect();
    let mut half = target.connect();
    half.write_all(&target.setup.client().hello("a.example")[..100])
        .expect("taken");
    for stream in [&mut silent, &mut half] {
        let answer = hello::answer(stream).expect("an end");
        assert!(!matches!(answer, Answer::Handshake(_)), "{answer:?}");
    }
    assert!(
        begun.elapsed() >= Duration::from_millis(900),
        "{:?}",
        begun.elapsed()
    );
    target.counted("timed_out", 2.0);
}

#[test]
fn a_client_that_trickles_its_hello_does_not_outlast_the_timeout() {
    let target = Target::start_with("", "[timeouts]\nhandshake = \"1s\"\n");
    let whole = target.setup.client().hello("a.example");
    let mut stream = target.connect();
    let ended = whole.iter().any(|byte| {
        std::thread::sleep(Duration::from_millis(20));
        stream.write_all(&[*byte]).is_err()
    });
    assert!(
        ended,
        "a hello that took {} ms was served",
        whole.len() * 20
    );
    target.counted("timed_out", 1.0);
}

#[test]
fn a_client_that_reads_nothing_holds_a_bounded_amount() {
    const OFFERED: usize = 256 << 20;
    let flood = Backend::tcp(|mut stream: Stream| {
        let chunk = vec![0x5a; 64 * 1024];
        for _ in 0..OFFERED / chunk.len() {
            if stream.write_all(&chunk).is_err() {
                return;
            }
        }
    });
    let (mut setup, _) = Setup::with_site("a.example", flood.written());
    setup.tables = "[timeouts]\nidle = \"2s\"\n".to_owned();
    let clinch = setup.start();
    let before = resident(&clinch);
    let session = setup.connect("a.example");
    clinch.wait_for_count(ENDS, &["reason=\"idle\""], 1.0);
    let taken = clinch.count("clinch_relayed_bytes_total", &["direction=\"down\""]);
    assert!(
        taken < (64 << 20) as f64,
        "{taken} bytes were taken for a client that reads none"
    );
    let grown = resident(&clinch).saturating_sub(before);
    assert!(grown < 16 << 20, "memory grew by {grown} bytes");
    drop(session);
    clinch.stop();
}

#[test]
fn a_reset_in_the_handshake_is_a_client_that_left() {
    let target = Target::start();
    for cut in [0, 100] {
        let mut stream = target.connect();
        stream
            .write_all(&target.setup.client().hello("a.example")[..cut])
            .expect("taken");
        wait_until_read(&stream);
        reset(stream);
    }
    // After the server's flight.
    let mut stream = target.connect();
    stream
        .write_all(&target.setup.client().hello("a.example"))
        .expect("taken");
    assert_eq!(
        hello::answer(&mut stream).expect("an answer"),
        Answer::Handshake(2)
    );
    reset(stream);
    target.counted("peer_closed", 3.0);
}

#[test]
fn a_reset_in_the_transfer_ends_the_backends_connection_too() {
    let (ended, seen) = std::sync::mpsc::channel();
    let backend = Backend::tcp(move |mut stream: Stream| {
        let mut all = Vec::new();
        let outcome = stream.read_to_end(&mut all);
        let _ = ended.send((all.len(), outcome.map_err(|e| e.kind())));
    });
    let (setup, issued) = Setup::with_site("a.example", backend.written());
    let clinch = setup.start();
    let mut session = setup.connect("a.example");
    assert_stapled(&session, &issued);
    session.stream.write_all(b"half a request").expect("taken");
    clinch.wait_for_count("clinch_relayed_bytes_total", &["direction=\"up\""], 14.0);
    reset(session.stream.sock);
    let (bytes, _) = seen
        .recv_timeout(PROMPT)
        .expect("the backend's connection ends");
    assert_eq!(bytes, 14);
    clinch.wait_for_count(ENDS, &["reason=\"client_lost\""], 1.0);
    clinch.stop();
}

#[test]
fn bytes_that_are_not_tls_after_the_handshake_end_the_connection() {
    let target = Target::start();
    let mut session = target.setup.connect("a.example");
    session.echo(b"fine so far");
    session
        .stream
        .sock
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .expect("taken");
    session
        .read_to_close()
        .err()
        .expect("an alert or an end without close_notify");
    target
        .clinch
        .wait_for_count(ENDS, &["reason=\"client_protocol\""], 1.0);
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

/// Waits until the peer's kernel has taken, and acknowledged, all that was written.
fn wait_until_read(stream: &TcpStream) {
    eventually("all bytes are acknowledged", PROMPT, || {
        (unsent(stream) == 0).then_some(())
    });
}

/// Bytes in the send queue that are not acknowledged yet (SIOCOUTQ).
fn unsent(stream: &TcpStream) -> u64 {
    // The loopback's column `tx_queue` in /proc/net/tcp shows the same without an ioctl.
    let local = stream.local_addr().expect("connected").port();
    let table = std::fs::read_to_string("/proc/net/tcp").expect("procfs");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let port = u16::from_str_radix(columns.get(1)?.split_once(':')?.1, 16).ok()?;
            let queued = u64::from_str_radix(columns.get(4)?.split_once(':')?.0, 16).ok()?;
            (port == local).then_some(queued)
        })
        .sum()
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("an open socket takes SO_LINGER");
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

/// Resident memory in bytes.
fn resident(clinch: &Clinch) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", clinch.pid())).expect("it runs");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("the kernel says");
    let kib: u64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("a number");
    kib * 1024
}
