//! Listeners that ask for kTLS: whoever seals the records, clients see the same.
//!
//! What the kernel can do is told by `$CLINCH_KTLS`, e.g. `aes128,aes256,chacha,rekey`; without it the
//! kernel has no kTLS, as that of the machine where clinch is developed, and every connection must be
//! served all the same and be counted as kept. `make ktls-kernels` runs this file on kernels that have it,
//! with all ciphers, with one missing, and without the module.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use clinch_tests::backend::Backend;
use clinch_tests::bulk::{answer, bytes, exchange};
use clinch_tests::client::{Client, Offer};
use clinch_tests::process::{self, Clinch};
use clinch_tests::setup::{Setup, assert_stapled};
use clinch_tests::{PROMPT, eventually};
use rustls::CipherSuite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::{AlertDescription, CipherSuite};

const CONNECTIONS: &str = "clinch_ktls_connections_total";
const KEY_UPDATES: &str = "clinch_ktls_key_updates_total";
const ENDS: &str = "clinch_connections_ended_total";

const SUITES: [(CipherSuite, &str); 3] = [
    (TLS13_AES_128_GCM_SHA256, "aes128"),
    (TLS13_AES_256_GCM_SHA384, "aes256"),
    (TLS13_CHACHA20_POLY1305_SHA256, "chacha"),
];

/// Whether the kernel has this, as `$CLINCH_KTLS` says.
fn kernel_has(what: &str) -> bool {
    let has = std::env::var("CLINCH_KTLS").unwrap_or_default();
    has.split(',').any(|word| word == what)
}

/// What becomes of a connection with this suite, by its label.
fn outcome(suite: &str) -> &'static str {
    match (kernel_has(suite), kernel_has("aes128")) {
        (true, _) => "result=\"offloaded\"",
        (false, true) => "result=\"no_cipher\"",
        (false, false) => "result=\"no_kernel\"",
    }
}

/// One site behind a listener that asks for kTLS.
fn site(backend: &Backend, timeouts: &str) -> (Setup, Clinch) {
    let (mut setup, _) = Setup::with_site("a.example", backend.written());
    setup.listen.push_str("ktls = true\n");
    setup.timeouts.push_str(timeouts);
    let clinch = setup.start();
    (setup, clinch)
}

fn offering(setup: &Setup, suite: CipherSuite) -> Client {
    let offer = Offer {
        suites: vec![suite],
        ..Offer::default()
    };
    Client::offering(setup.authority.root(), &offer)
}

#[test]
fn each_suite_passes_megabytes_both_ways_and_is_counted() {
    const LENGTH: usize = 5 << 20;
    let backend = Backend::tcp(|stream| answer(stream, LENGTH));
    let (setup, clinch) = site(&backend, "");
    for (suite, name) in SUITES {
        let before = clinch.count(CONNECTIONS, &[outcome(name)]);
        let mut session = offering(&setup, suite)
            .connect(setup.address, "a.example")
            .expect("a handshake");
        let got = exchange(&mut session, &bytes(2, LENGTH));
        assert!(got == bytes(1, LENGTH), "{} other bytes", got.len());
        assert_eq!(
            clinch.count(CONNECTIONS, &[outcome(name)]),
            before + 1.0,
            "{name}"
        );
    }
    clinch.wait_for_count(ENDS, &["reason=\"finished\""], 3.0);
    let metrics = clinch.metrics();
    for direction in ["direction=\"up\"", "direction=\"down\""] {
        let relayed = metrics.sum("clinch_relayed_bytes_total", &[direction]);
        assert_eq!(relayed, 3.0 * LENGTH as f64);
    }
}

#[test]
fn what_the_kernel_lacks_is_said_in_one_line_and_by_check_and_status() {
    let backend = Backend::echo();
    let (setup, clinch) = site(&backend, "");
    let all = SUITES.iter().all(|(_, name)| kernel_has(name));
    let line = match kernel_has("aes128") {
        true => "kTLS of this kernel lacks",
        false => "this kernel offers no kTLS",
    };
    assert_eq!(
        clinch.log().matches(line).count(),
        usize::from(!all),
        "{}",
        clinch.log()
    );
    let config = setup.write_config();
    let said = process::clinch(&["check", "-c", &config.to_string_lossy()]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    assert_eq!(said.text.contains(line), !all, "{}", said.text);
    let status = clinch.ask("/status").body;
    assert!(status.contains("\"ktls\":"), "{status}");
}

#[test]
fn tls_1_2_is_served_and_counted() {
    let backend = Backend::echo();
    let (setup, clinch) = site(&backend, "");
    let mut session = Client::tls12(setup.authority.root())
        .connect(setup.address, "a.example")
        .expect("a handshake");
    session.echo(&bytes(3, 100_000));
    assert_eq!(clinch.count(CONNECTIONS, &["result=\"tls12\""]), 1.0);
}

#[test]
fn a_listener_that_does_not_ask_is_left_alone() {
    let backend = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", backend.written());
    let clinch = setup.start();
    setup.connect("a.example").finish().expect("open");
    clinch.wait_for_count(ENDS, &[], 1.0);
    assert_eq!(clinch.count(CONNECTIONS, &[]), 0.0);
}

#[test]
fn staples_and_resumption_are_as_ever() {
    let backend = Backend::echo();
    let (mut setup, issued) = Setup::with_site("a.example", backend.written());
    setup.listen.push_str("ktls = true\n");
    let clinch = setup.start();
    let client = setup.client();
    let mut first = client
        .connect(setup.address, "a.example")
        .expect("a handshake");
    assert_stapled(&first, &issued);
    first.echo(b"and the tickets that came before");
    let mut second = client
        .connect(setup.address, "a.example")
        .expect("a handshake");
    second.echo(b"again");
    assert_eq!(
        clinch.count("clinch_handshakes_total", &["kind=\"tls13_resumed\""]),
        1.0
    );
    assert_eq!(clinch.count(CONNECTIONS, &[outcome("aes128")]), 2.0);
}

#[test]
fn a_client_that_ends_first_still_gets_the_whole_answer() {
    let backend = Backend::tcp(|mut stream| {
        let mut question = Vec::new();
        stream.read_to_end(&mut question).expect("an end");
        stream.write_all(&question).expect("clinch still takes it");
        stream
            .write_all(&bytes(4, 1 << 20))
            .expect("clinch still takes it");
    });
    let (setup, clinch) = site(&backend, "");
    let mut session = setup.connect("a.example");
    session.stream.write_all(b"question").expect("open");
    session.stream.conn.send_close_notify();
    session.stream.flush().expect("open");
    let answer = session.read_to_close().expect("a close_notify");
    assert!(answer == [&b"question"[..], &bytes(4, 1 << 20)].concat());
    clinch.wait_for_count(ENDS, &["reason=\"finished\""], 1.0);
    assert_eq!(clinch.count("clinch_client_truncations_total", &[]), 0.0);
}

#[test]
fn a_client_that_reads_late_still_gets_the_whole_answer_and_its_end() {
    // More than buffers hold, so that the kernel has records that it could not send yet when the
    // backend has already ended.
    let backend = Backend::tcp(|mut stream| {
        stream
            .write_all(&bytes(5, 3 << 20))
            .expect("clinch takes it");
    });
    let (setup, clinch) = site(&backend, "");
    for _ in 0..3 {
        let mut session = setup.connect("a.example");
        eventually("the backend has sent what fits", PROMPT, || {
            let relayed = || clinch.count("clinch_relayed_bytes_total", &["direction=\"down\""]);
            let before = relayed();
            std::thread::sleep(Duration::from_millis(100));
            (before > 0.0 && relayed() == before).then_some(())
        });
        let answer = session.read_to_close().expect("a close_notify");
        assert!(answer == bytes(5, 3 << 20), "{} bytes", answer.len());
    }
}

#[test]
fn a_client_that_just_leaves_is_counted_and_its_bytes_arrive() {
    let (got, arrived) = std::sync::mpsc::channel();
    let backend = Backend::tcp(move |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("an end");
        got.send(all).expect("the test waits");
    });
    let (setup, clinch) = site(&backend, "");
    let mut session = setup.connect("a.example");
    session.stream.write_all(b"last words").expect("open");
    session.stream.flush().expect("open");
    session.stream.sock.shutdown(Shutdown::Write).expect("open");
    let all = arrived.recv_timeout(PROMPT).expect("the backend has it");
    assert_eq!(all, b"last words");
    clinch.wait_for_count("clinch_client_truncations_total", &[], 1.0);
}

#[test]
fn a_record_in_two_pieces_is_not_lost() {
    let backend = Backend::echo();
    let (setup, clinch) = site(&backend, "");
    let client = setup.client();
    let mut tcp = TcpStream::connect(setup.address).expect("clinch listens");
    tcp.set_read_timeout(Some(PROMPT)).expect("a time");
    let mut tls = client.start("a.example");
    // Until the client has all that it needs to answer with its Finished.
    while tls.is_handshaking() {
        if tls.wants_write() && tls.is_handshaking() {
            tls.write_tls(&mut tcp).expect("open");
        }
        tls.read_tls(&mut tcp).expect("open");
        tls.process_new_packets().expect("a handshake");
    }
    let sent = bytes(6, 10_000);
    tls.writer().write_all(&sent).expect("rustls takes it");
    let mut flight = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut flight).expect("a Vec takes all");
    }
    // The Finished and half of the record in one segment; the rest when clinch has judged.
    let half = flight.len() - 5_000;
    tcp.write_all(&flight[..half]).expect("open");
    clinch.wait_for_count(CONNECTIONS, &[], 1.0);
    let kept = match kernel_has("aes128") {
        true => "result=\"mid_record\"",
        false => "result=\"no_kernel\"",
    };
    assert_eq!(clinch.count(CONNECTIONS, &[kept]), 1.0);
    tcp.write_all(&flight[half..]).expect("open");
    let mut session = rustls::StreamOwned::new(tls, tcp);
    let mut back = vec![0; sent.len()];
    session.read_exact(&mut back).expect("it comes back");
    assert!(back == sent);
}

#[test]
fn half_a_record_costs_nothing_while_the_rest_is_waited_for() {
    let backend = Backend::echo();
    let (setup, clinch) = site(&backend, "");
    let mut session = setup.connect("a.example");
    session.echo(b"offloaded by now");
    let mut record = Vec::new();
    session
        .stream
        .conn
        .writer()
        .write_all(&bytes(7, 9_000))
        .expect("rustls takes it");
    session
        .stream
        .conn
        .write_tls(&mut record)
        .expect("a Vec takes all");
    session
        .stream
        .sock
        .write_all(&record[..4_000])
        .expect("open");
    let before = clinch.cpu_time();
    std::thread::sleep(Duration::from_secs(2));
    let spent = clinch.cpu_time() - before;
    assert!(spent < Duration::from_secs(1), "{spent:?} of two seconds");
    session
        .stream
        .sock
        .write_all(&record[4_000..])
        .expect("open");
    let mut back = vec![0; 9_000];
    session.stream.read_exact(&mut back).expect("it comes back");
    assert!(back == bytes(7, 9_000));
}

#[test]
fn what_is_no_record_is_answered_with_an_alert() {
    let backend = Backend::echo();
    let (setup, clinch) = site(&backend, "");
    let mut session = setup.connect("a.example");
    session.echo(b"offloaded by now");
    let mut garbage = vec![23, 3, 3, 0, 64];
    garbage.extend([9; 64]);
    session.stream.sock.write_all(&garbage).expect("open");
    let error = session.read_to_close().expect_err("no clean end");
    let alert = rustls::Error::AlertReceived(AlertDescription::BadRecordMac).to_string();
    assert_eq!(error.to_string(), alert);
    clinch.wait_for_count(ENDS, &["reason=\"client_protocol\""], 1.0);
}

#[test]
fn a_key_update_is_followed_or_ends_the_connection_with_a_count() {
    let backend = Backend::echo();
    let (setup, clinch) = site(&backend, "");
    let mut session = setup.connect("a.example");
    session.echo(&bytes(8, 100_000));
    let offloaded = kernel_has("aes128");
    for round in 1..=3 {
        session
            .stream
            .conn
            .refresh_traffic_keys()
            .expect("TLS 1.3 can");
        if offloaded && !kernel_has("rekey") {
            session.stream.write_all(b"lost").expect("open");
            let error = session.read_to_close().expect_err("no clean end");
            let alert = rustls::Error::AlertReceived(AlertDescription::InternalError).to_string();
            assert!(
                error.to_string() == alert || error.kind() == ErrorKind::ConnectionReset,
                "{error}"
            );
            clinch.wait_for_count(KEY_UPDATES, &["result=\"not_followed\""], 1.0);
            clinch.wait_for_count(ENDS, &["reason=\"ktls\""], 1.0);
            return;
        }
        session.echo(&bytes(round, 100_000));
    }
    if offloaded {
        let metrics = clinch.metrics();
        assert_eq!(metrics.sum(KEY_UPDATES, &["result=\"received\""]), 3.0);
        assert_eq!(metrics.sum(KEY_UPDATES, &["result=\"sent\""]), 3.0);
    }
}

#[test]
fn openssl_changes_its_keys_and_ends_as_it_likes() {
    let backend = Backend::echo();
    let (setup, clinch) = site(&backend, "");
    let program = format!(
        "exec openssl s_client -connect {} -servername a.example -tls1_3 -CAfile {} 2>&1",
        setup.address,
        setup.root_path().display()
    );
    let mut client = Command::new("sh")
        .args(["-c", &program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let mut to = client.stdin.take().expect("piped");
    let mut from = BufReader::new(client.stdout.take().expect("piped"));
    let mut say = |line: &str, answer: &str| {
        writeln!(to, "{line}").expect("it reads");
        let mut heard = String::new();
        while heard.trim_end() != answer {
            heard.clear();
            let n = from.read_line(&mut heard).expect("text");
            assert!(n > 0, "no {answer:?} to {line:?}");
        }
    };
    say("first", "first");
    if !kernel_has("aes128") || kernel_has("rekey") {
        // Each read of its input is a command or a line to send.
        say("k", "KEYUPDATE");
        say("second", "second");
        say("K", "KEYUPDATE");
        say("third", "third");
    }
    // Its own end: a close_notify, then the end of the stream.
    say("Q", "DONE");
    assert!(client.wait().expect("it ends").success());
    clinch.wait_for_count(ENDS, &["reason=\"finished\""], 1.0);
    assert_eq!(clinch.count("clinch_client_truncations_total", &[]), 0.0);
    assert_eq!(clinch.count(CONNECTIONS, &[outcome("aes128")]), 1.0);
}

#[test]
fn an_idle_connection_is_ended_with_a_farewell() {
    let backend = Backend::echo();
    let (setup, clinch) = site(&backend, "idle = \"1s\"\n");
    let mut session = setup.connect("a.example");
    session.echo(b"busy");
    assert!(session.read_to_close().expect("a close_notify").is_empty());
    clinch.wait_for_count(ENDS, &["reason=\"idle\""], 1.0);
}

#[test]
fn draining_ends_what_is_open_with_a_farewell() {
    let backend = Backend::echo();
    let (setup, clinch) = site(&backend, "");
    let mut session = setup.connect("a.example");
    session.echo(b"busy");
    let reader = std::thread::spawn(move || session.read_to_close());
    clinch.stop();
    let rest = reader.join().expect("no panic").expect("a close_notify");
    assert!(rest.is_empty());
}

#[test]
fn a_backend_that_vanishes_is_no_clean_end() {
    let backend = Backend::tcp(|mut stream| {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("one byte");
        stream.reset();
    });
    let (setup, clinch) = site(&backend, "");
    let mut session = setup.connect("a.example");
    session.stream.write_all(b"x").expect("open");
    session.read_to_close().expect_err("no close_notify");
    clinch.wait_for_count(ENDS, &["reason=\"backend_lost\""], 1.0);
}
