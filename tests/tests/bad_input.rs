//! Bad input from clients: each has an outcome that the client sees, a counter, and a server that
//! serves the next client as if nothing had been.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use clinch_tests::PROMPT;
use clinch_tests::backend::{Backend, Stream};
use clinch_tests::hello::{self, Answer};
use clinch_tests::process::Clinch;
use clinch_tests::setup::{Setup, assert_stapled};
use clinch_tests::target::Target;

const ENDS: &str = "clinch_connections_ended_total";

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
fn a_silent_client_is_timed_out() {
    let target = Target::with_timeouts("handshake = \"1s\"\n");
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
    let target = Target::with_timeouts("handshake = \"1s\"\n");
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
    setup.timeouts.push_str("idle = \"2s\"\n");
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
        hello::wait_until_read(&stream);
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
        .expect_err("an alert or an end without close_notify");
    target
        .clinch
        .wait_for_count(ENDS, &["reason=\"client_protocol\""], 1.0);
    target.unharmed();
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("an open socket takes SO_LINGER");
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
