//! Bytes between client and backend: all of them, once, in order, with an end in each direction.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clinch_tests::PROMPT;
use clinch_tests::backend::{self, Backend, Hanging, socket_path};
use clinch_tests::bulk::{answer, bytes, exchange};
use clinch_tests::client::{Client, Session};
use clinch_tests::process::Clinch;
use clinch_tests::setup::Setup;

const ENDS: &str = "clinch_connections_ended_total";
const BACKEND_FAILURES: &str = "clinch_backend_failures_total";

/// One site in front of these backends.
fn site(backends: &[&str], more: &str, timeouts: &str) -> (Setup, Clinch) {
    let mut setup = Setup::new();
    let issued = setup
        .authority
        .issue(&setup.leaf("a.example"))
        .expect("sound");
    let files = setup.write(&issued);
    setup.site_of(&["a.example"], &files, backends, more);
    setup.timeouts.push_str(timeouts);
    let clinch = setup.start();
    (setup, clinch)
}

fn both_versions(setup: &Setup) -> [Client; 2] {
    [setup.client(), Client::tls12(setup.authority.root())]
}

#[test]
fn megabytes_pass_unchanged_in_both_directions_at_once() {
    const LENGTH: usize = 12 << 20;
    let dir = tempfile::tempdir().expect("a directory");
    let serve = |stream| answer(stream, LENGTH);
    let tcp = Backend::tcp(serve);
    let unix = Backend::unix(&socket_path(dir.path(), "bulk"), serve);
    for backend in [tcp.written(), unix.written()] {
        let (setup, clinch) = site(&[backend], "", "");
        for client in both_versions(&setup) {
            let mut session = client
                .connect(setup.address, "a.example")
                .expect("a handshake");
            let got = exchange(&mut session, &bytes(2, LENGTH));
            assert!(
                got == bytes(1, LENGTH),
                "the client got {} other bytes",
                got.len()
            );
        }
        clinch.wait_for_count(ENDS, &["reason=\"finished\""], 2.0);
        let metrics = clinch.metrics();
        for direction in ["up", "down"] {
            let label = format!("direction=\"{direction}\"");
            assert_eq!(
                metrics.sum("clinch_relayed_bytes_total", &[&label]),
                2.0 * LENGTH as f64
            );
        }
        clinch.stop();
    }
}

#[test]
fn a_client_that_ends_first_still_gets_the_whole_answer() {
    let backend = Backend::tcp(|mut stream| {
        let mut question = Vec::new();
        stream
            .read_to_end(&mut question)
            .expect("the client's end arrives as an end");
        stream.write_all(&question).expect("clinch still takes it");
        stream
            .write_all(&bytes(3, 1 << 20))
            .expect("clinch still takes it");
    });
    let (setup, clinch) = site(&[backend.written()], "", "");
    for client in both_versions(&setup) {
        let mut session = client
            .connect(setup.address, "a.example")
            .expect("a handshake");
        session.stream.write_all(b"question").expect("taken");
        session.finish().expect("open");
        let answer = session.read_to_close().expect("a close_notify at the end");
        assert!(answer == [&b"question"[..], &bytes(3, 1 << 20)].concat());
    }
    clinch.wait_for_count(ENDS, &["reason=\"finished\""], 2.0);
    clinch.stop();
}

#[test]
fn a_backend_that_ends_first_still_gets_the_whole_request() {
    let (done, result) = mpsc::channel();
    let backend = Backend::tcp(move |mut stream| {
        stream.write_all(b"greeting").expect("taken");
        stream.shutdown(Shutdown::Write).expect("open");
        let mut rest = Vec::new();
        let outcome = stream.read_to_end(&mut rest).map(|_| rest);
        done.send(outcome.expect("a clean end"))
            .expect("the test waits");
    });
    let (setup, clinch) = site(&[backend.written()], "", "");
    for client in both_versions(&setup) {
        let mut session = client
            .connect(setup.address, "a.example")
            .expect("a handshake");
        let greeting = session.read_to_close().expect("a close_notify");
        assert_eq!(greeting, b"greeting");
        session
            .stream
            .write_all(&bytes(4, 1 << 20))
            .expect("this direction is open still");
        session.finish().expect("open");
        let got = result.recv_timeout(PROMPT).expect("the backend finishes");
        assert!(got == bytes(4, 1 << 20), "{} bytes", got.len());
    }
    clinch.wait_for_count(ENDS, &["reason=\"finished\""], 2.0);
    clinch.stop();
}

#[test]
fn a_close_notify_is_sent_when_the_backend_closes_or_says_nothing() {
    let closing = Backend::tcp(drop);
    let talking = Backend::tcp(|mut stream| {
        let _ = stream.write_all(b"bye");
    });
    for (backend, said) in [(&closing, &b""[..]), (&talking, b"bye")] {
        let (setup, clinch) = site(&[backend.written()], "", "");
        for client in both_versions(&setup) {
            let mut session = client
                .connect(setup.address, "a.example")
                .expect("a handshake");
            let got = session
                .read_to_close()
                .expect("a close_notify, not a bare end");
            assert_eq!(got, said);
        }
        clinch.stop();
    }
}

#[test]
fn a_backend_that_resets_ends_the_connection_and_is_counted() {
    let backend = Backend::tcp(|mut stream| {
        let mut byte = [0];
        let _ = stream.read_exact(&mut byte);
        stream.reset();
    });
    let (setup, clinch) = site(&[backend.written()], "", "");
    let mut session = setup.connect("a.example");
    session.stream.write_all(b"x").expect("taken");
    let _ = session.read_to_close();
    clinch.wait_for_count(ENDS, &["reason=\"backend_lost\""], 1.0);
    clinch.stop();
}

#[test]
fn a_client_that_ends_without_close_notify_is_counted_as_truncated() {
    let echo = Backend::echo();
    let (setup, clinch) = site(&[echo.written()], "", "");
    let mut session = setup.connect("a.example");
    session.echo(b"some bytes");
    session.stream.sock.shutdown(Shutdown::Write).expect("open");
    clinch.wait_for_count("clinch_client_truncations_total", &[], 1.0);
    clinch.stop();
}

#[test]
fn connections_go_to_the_backend_with_the_fewest() {
    let (a, b) = (Backend::echo(), Backend::echo());
    let (setup, clinch) = site(&[a.written(), b.written()], "", "");
    let mut held: Vec<Session> = (0..20).map(|_| setup.connect("a.example")).collect();
    for session in &mut held {
        session.echo(b"open");
    }
    // Each of the two workers balances its own connections, so each may be off by one.
    let difference = a.accepted().abs_diff(b.accepted());
    assert!(difference <= 2, "{} and {}", a.accepted(), b.accepted());
    clinch.stop_after(held);
}

#[test]
fn a_backend_that_refuses_is_passed_over_and_then_set_aside() {
    let echo = Backend::echo();
    let dir = tempfile::tempdir().expect("a directory");
    for bad in [backend::refusing(), backend::missing(dir.path())] {
        let (setup, clinch) = site(&[&bad, echo.written()], "", "");
        for _ in 0..20 {
            setup.connect("a.example").echo(b"served by the other");
        }
        let metrics = clinch.metrics();
        let refused = metrics.sum(BACKEND_FAILURES, &["reason=\"refused\""]);
        assert!(refused >= 1.0, "{bad} was never tried");
        assert!(refused < 20.0, "{bad} is tried every time");
        assert!(metrics.sum("clinch_backend_ejections_total", &[]) >= 1.0);
        clinch.stop();
    }
}

#[test]
fn a_backend_that_comes_back_is_used_again() {
    let address = clinch_tests::place::fresh();
    let (setup, clinch) = site(&[&address.to_string()], "", "");
    let mut session = setup.connect("a.example");
    let _ = session.read_to_close();
    clinch.wait_for_count(ENDS, &["reason=\"no_backend\""], 1.0);
    let _echo = Backend::tcp_on(address, backend::echo);
    clinch_tests::eventually("the backend serves", PROMPT, || {
        let mut session = setup.connect("a.example");
        session.stream.write_all(b"again").ok()?;
        let mut back = [0; 5];
        session
            .stream
            .read_exact(&mut back)
            .ok()
            .filter(|()| &back == b"again")
    });
    clinch.stop();
}

#[test]
fn without_any_backend_the_client_is_told_by_an_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let (one, other) = (backend::refusing(), backend::missing(dir.path()));
    let (setup, clinch) = site(&[&one, &other], "", "");
    for client in both_versions(&setup) {
        let mut session = client
            .connect(setup.address, "a.example")
            .expect("a handshake");
        let begun = Instant::now();
        let got = session.read_to_close().unwrap_or_default();
        assert!(got.is_empty());
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
    }
    clinch.wait_for_count(ENDS, &["reason=\"no_backend\""], 2.0);
    clinch.stop();
}

#[test]
fn a_backend_that_does_not_answer_a_connect_is_left_for_the_next() {
    let hanging = Hanging::new().expect("a full accept queue");
    let echo = Backend::echo();
    let timeouts = "connect = \"300ms\"\n";
    let (setup, clinch) = site(&[&hanging.written(), echo.written()], "", timeouts);
    let begun = Instant::now();
    for _ in 0..4 {
        setup.connect("a.example").echo(b"served by the other");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    clinch.wait_for_count(BACKEND_FAILURES, &["reason=\"timed_out\""], 1.0);
    clinch.stop();
}

#[test]
fn nothing_moving_for_the_idle_timeout_ends_the_connection_with_a_close_notify() {
    let echo = Backend::echo();
    let (setup, clinch) = site(&[echo.written()], "", "idle = \"1s\"\n");
    let mut session = setup.connect("a.example");
    // As long as something moves, it stays.
    for _ in 0..6 {
        session.echo(b"busy");
        std::thread::sleep(Duration::from_millis(300));
    }
    session.echo(b"busy to the last");
    let begun = Instant::now();
    session.read_to_close().expect("a close_notify");
    let waited = begun.elapsed();
    assert!(waited > Duration::from_millis(500), "{waited:?}");
    assert!(waited < Duration::from_secs(10), "{waited:?}");
    clinch.wait_for_count(ENDS, &["reason=\"idle\""], 1.0);
    clinch.stop();
}

#[test]
fn many_connections_at_once_each_get_their_own_bytes() {
    let echo = Backend::echo();
    let (setup, clinch) = site(&[echo.written()], "", "");
    std::thread::scope(|scope| {
        for worker in 0..8u64 {
            let setup = &setup;
            scope.spawn(move || {
                let client = setup.client();
                for turn in 0..25 {
                    let mut session = client
                        .connect(setup.address, "a.example")
                        .expect("a handshake");
                    session.echo(&bytes(worker * 1000 + turn, 10_000));
                    session.finish().expect("open");
                    assert_eq!(session.read_to_close().expect("a close_notify"), b"");
                }
            });
        }
    });
    clinch.wait_for_count(ENDS, &["reason=\"finished\""], 200.0);
    let failures = clinch.count("clinch_handshake_failures_total", &[]);
    assert_eq!(failures, 0.0);
    clinch.stop();
}

#[test]
fn a_key_update_in_mid_stream_is_followed() {
    let echo = Backend::echo();
    let (setup, clinch) = site(&[echo.written()], "", "");
    let mut session = setup.connect("a.example");
    for round in 0..5 {
        session.echo(&bytes(round, 50_000));
        session.stream.conn.refresh_traffic_keys().expect("TLS 1.3");
    }
    session.echo(b"under the last keys");
    clinch.stop();
}
