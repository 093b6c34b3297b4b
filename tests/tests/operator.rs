//! What an operator does with a running clinch: reload, stop, bound its resources, ask for its state.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use clinch_tests::backend::{Backend, Stream};
use clinch_tests::client::Session;
use clinch_tests::peers::{Said, present};
use clinch_tests::process::{Clinch, Start, clinch};
use clinch_tests::responder::Mode;
use clinch_tests::setup::{Setup, assert_stapled, set_mode};
use clinch_tests::{PROMPT, eventually, skip};
use rustix::process::Signal;

const RELOADS: &str = "clinch_reloads_total";

/// Runs a command of clinch that talks to the running one.
#[track_caller]
fn ask(running: &Clinch, command: &str, more: &[&str]) -> Said {
    let admin = format!("unix:{}", running.admin().display());
    clinch(&[&[command, "--admin", &admin], more].concat())
}

/// A site served, a connection open, and a second site written into the configuration.
struct Reload {
    clinch: Clinch,
    setup: Setup,
    held: Session,
    first: clinch::cli::demo::authority::Issued,
    second: clinch::cli::demo::authority::Issued,
    _echo: Backend,
}

impl Reload {
    fn prepare() -> Self {
        let echo = Backend::echo();
        let (mut setup, first) = Setup::with_site("a.example", echo.written());
        let clinch = setup.start();
        let mut held = setup.connect("a.example");
        held.echo(b"before the reload");
        let second = setup.site("b.example", echo.written(), "");
        Self {
            clinch,
            setup,
            held,
            first,
            second,
            _echo: echo,
        }
    }

    /// Asserts that the second site is served, the open connection too, and no staple was fetched
    /// again.
    #[track_caller]
    fn took_effect(mut self) {
        self.clinch
            .wait_for_count(RELOADS, &["result=\"applied\""], 1.0);
        let second = eventually("the second site is stapled", PROMPT, || {
            let session = self
                .setup
                .client()
                .connect(self.setup.address, "b.example")
                .ok()?;
            session.staple.is_some().then_some(session)
        });
        assert_stapled(&second, &self.second);
        assert_stapled(&self.setup.connect("a.example"), &self.first);
        self.held.echo(b"after the reload, on the same connection");
        assert_eq!(
            self.setup.responder.count(),
            2,
            "one query for each certificate"
        );
        self.clinch.stop_after(vec![self.held]);
    }
}

#[test]
fn sighup_brings_new_sites_and_touches_no_connection() {
    let reload = Reload::prepare();
    reload.setup.write_config();
    reload.clinch.signal(Signal::HUP);
    reload.took_effect();
}

#[test]
fn the_reload_command_brings_new_sites_and_says_so() {
    let reload = Reload::prepare();
    reload.setup.write_config();
    let said = ask(&reload.clinch, "reload", &[]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    said.has("2 sites");
    reload.took_effect();
}

#[test]
fn a_changed_file_is_noticed() {
    let reload = Reload::prepare();
    reload.setup.write_config();
    reload.took_effect();
}

#[test]
fn a_renewed_certificate_is_picked_up_with_its_own_staple() {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    let old = setup
        .authority
        .issue(&setup.leaf("a.example"))
        .expect("sound");
    let files = setup.write(&old);
    setup.site_of(&["a.example"], &files, &[echo.written()], "");
    let clinch = setup.start();
    assert_stapled(&setup.connect("a.example"), &old);
    let new = setup
        .authority
        .issue(&setup.leaf("a.example"))
        .expect("sound");
    // Key first, then certificate: between the two they do not match, which must harm nothing.
    std::fs::write(&files.key, &new.key_pem).expect("our own file");
    set_mode(&files.key, 0o600);
    std::fs::write(&files.cert, &new.chain_pem).expect("our own file");
    let session = eventually("the new certificate is served", PROMPT, || {
        let session = setup.connect("a.example");
        if session.chain[0] == old.leaf {
            assert_stapled(&session, &old);
            return None;
        }
        Some(session)
    });
    assert_eq!(session.chain[0], new.leaf);
    let session = eventually("and stapled", PROMPT, || {
        Some(setup.connect("a.example")).filter(|session| session.staple.is_some())
    });
    assert_stapled(&session, &new);
    clinch.stop();
}

#[test]
fn a_bad_reload_changes_nothing_and_says_why() {
    let echo = Backend::echo();
    let (mut setup, issued) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    let mut held = setup.connect("a.example");
    setup.site("b.example", echo.written(), "");
    setup.timeouts.push_str("handshaek = \"5s\"\n");
    setup.write_config();
    let said = ask(&clinch, "reload", &[]);
    assert_eq!(said.code, Some(3), "{}", said.text);
    said.has("handshaek");
    clinch.signal(Signal::HUP);
    clinch.wait_for_count(RELOADS, &["result=\"refused\""], 2.0);
    held.echo(b"the same connection");
    assert_stapled(&setup.connect("a.example"), &issued);
    setup
        .client()
        .connect(setup.address, "b.example")
        .err()
        .expect("not in force");
    let status = clinch.status();
    let error = status["control"]["last_reload_error"]
        .as_str()
        .unwrap_or_default();
    assert!(error.contains("handshaek"), "{status}");
    assert_eq!(clinch.count(RELOADS, &["result=\"applied\""]), 0.0);
    clinch.stop_after(vec![held]);
}

#[test]
fn a_site_taken_out_is_refused_from_then_on() {
    let echo = Backend::echo();
    let (mut setup, _) = Setup::with_site("a.example", echo.written());
    setup.site("b.example", echo.written(), "");
    let clinch = setup.start();
    let mut held = setup.connect("a.example");
    setup.clear_sites();
    let issued = setup.site("b.example", echo.written(), "");
    setup.write_config();
    assert_eq!(ask(&clinch, "reload", &[]).code, Some(0));
    eventually("the site is gone", PROMPT, || {
        setup.client().connect(setup.address, "a.example").err()
    });
    held.echo(b"what was open goes on");
    let session = eventually("the other is served", PROMPT, || {
        Some(setup.connect("b.example")).filter(|session| session.staple.is_some())
    });
    assert_stapled(&session, &issued);
    clinch.stop_after(vec![held]);
}

#[test]
fn handshakes_go_on_through_many_reloads() {
    let echo = Backend::echo();
    let (setup, issued) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    setup.responder.set(Mode::Refused);
    for _ in 0..20 {
        assert_eq!(ask(&clinch, "reload", &[]).code, Some(0));
        assert_stapled(&setup.connect("a.example"), &issued);
    }
    let status = clinch.status();
    assert_eq!(status["control"]["epoch"], 21, "{status}");
    clinch.stop();
}

#[test]
fn sigterm_drains_what_is_open_and_takes_nothing_new() {
    let echo = Backend::echo();
    let (mut setup, _) = Setup::with_site("a.example", echo.written());
    setup.timeouts = "drain = \"60s\"\n".to_owned();
    let mut clinch = setup.start();
    let mut held = setup.connect("a.example");
    held.echo(b"open");
    clinch.signal(Signal::TERM);
    eventually("nobody listens any more", PROMPT, || {
        TcpStream::connect(setup.address).err()
    });
    held.echo(b"still served while draining");
    assert!(!clinch.has_ended(), "it ended with a connection open");
    held.finish().expect("open");
    held.read_to_close().expect("a close_notify");
    drop(held);
    let begun = Instant::now();
    assert!(clinch.wait(PROMPT).success());
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn draining_ends_at_its_timeout() {
    let echo = Backend::echo();
    let (mut setup, _) = Setup::with_site("a.example", echo.written());
    setup.timeouts = "drain = \"1s\"\n".to_owned();
    let mut clinch = setup.start();
    let mut held = setup.connect("a.example");
    held.echo(b"open and never closed");
    clinch.signal(Signal::TERM);
    let begun = Instant::now();
    let status = clinch.wait(PROMPT);
    assert!(status.success(), "{status}");
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    held.read_to_close().expect("a close_notify even then");
}

#[test]
fn the_egress_process_ends_with_clinch_even_after_a_crash() {
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    let children = children(clinch.pid());
    assert_eq!(children.len(), 1, "one egress process");
    clinch.crash();
    eventually("the egress process ends", PROMPT, || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", children[0]));
        stat.map_or(true, |stat| stat.contains(") Z "))
            .then_some(())
    });
}

#[test]
fn an_egress_process_that_dies_is_started_again() {
    let echo = Backend::echo();
    let (setup, issued) = Setup::with_site("a.example", echo.written());
    setup.responder.set(Mode::Refused);
    let clinch = setup.start();
    let egress = children(clinch.pid())[0];
    let egress = rustix::process::Pid::from_raw(egress.cast_signed()).expect("a process id");
    rustix::process::kill_process(egress, Signal::KILL).expect("a child of our own child");
    clinch.wait_for_count("clinch_egress_starts_total", &[], 2.0);
    setup.responder.says(clinch_tests::responder::Answer::Good);
    let session = eventually("a staple by the new one", PROMPT * 2, || {
        Some(setup.connect("a.example")).filter(|session| session.staple.is_some())
    });
    assert_stapled(&session, &issued);
    clinch.stop();
}

#[test]
fn without_descriptors_it_waits_and_serves_again() {
    if !present("prlimit") {
        skip!("prlimit is not installed");
    }
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    // At start clinch reckons with the limit, so it has to fall while it runs.
    let before = clinch.descriptors();
    clinch.limit_descriptors(before + 8);
    let held: Vec<TcpStream> = (0..40)
        .map(|_| TcpStream::connect(setup.address).expect("the kernel takes it"))
        .collect();
    let reason = ["reason=\"no_descriptors\""];
    eventually("it runs out", PROMPT, || {
        (clinch.descriptors() >= before + 8).then_some(())
    });
    drop(held);
    eventually("it serves again", PROMPT, || {
        let mut session = setup.client().connect(setup.address, "a.example").ok()?;
        session.stream.write_all(b"hello").ok()?;
        let mut back = [0; 5];
        session.stream.read_exact(&mut back).ok()
    });
    clinch.wait_for_count("clinch_accept_failures_total", &reason, 1.0);
    clinch.stop();
}

#[test]
fn more_connections_than_descriptors_can_carry_are_refused_at_start() {
    if !present("prlimit") {
        skip!("prlimit is not installed");
    }
    let echo = Backend::echo();
    let (mut setup, _) = Setup::with_site("a.example", echo.written());
    setup.tables = "[limits]\nconnections_per_worker = 4000\n".to_owned();
    let how = Start {
        descriptors: Some(256),
        impatient: true,
        ..Start::default()
    };
    let mut clinch = setup.start_as(&how);
    // With CAP_SYS_RESOURCE clinch raises the limit, however hard, and all is well.
    let raised = eventually("refused, or the limit raised", PROMPT, || {
        let serves = setup.client().connect(setup.address, "a.example").is_ok();
        (serves || clinch.has_ended()).then_some(serves)
    });
    if raised {
        clinch.stop();
        return;
    }
    assert_eq!(clinch.wait(PROMPT).code(), Some(2));
    let log = clinch.log();
    assert!(log.contains("LimitNOFILE=16224"), "the remedy: {log}");
}

#[test]
fn a_worker_holds_no_more_connections_than_it_may() {
    let echo = Backend::echo();
    let (mut setup, _) = Setup::with_site("a.example", echo.written());
    setup.top = setup.top.replace("workers = 2", "workers = 1");
    setup
        .tables
        .push_str("[limits]\nconnections_per_worker = 4\n");
    let clinch = setup.start();
    let mut held: Vec<Session> = (0..4).map(|_| setup.connect("a.example")).collect();
    let waiting = TcpStream::connect(setup.address).expect("the kernel takes it");
    clinch.wait_for_count("clinch_accept_pauses_total", &[], 1.0);
    assert_eq!(clinch.count("clinch_connections_active", &[]), 4.0);
    for session in &mut held {
        session.echo(b"served all the while");
    }
    drop(held.pop());
    let mut session = setup
        .client()
        .over(waiting, "a.example")
        .expect("its turn has come");
    session.echo(b"served at last");
    clinch.stop_after(vec![held.pop(), Some(session)]);
}

#[test]
fn a_client_address_holds_no_more_connections_than_it_may() {
    let echo = Backend::echo();
    let (mut setup, _) = Setup::with_site("a.example", echo.written());
    setup.top = setup.top.replace("workers = 2", "workers = 1");
    setup
        .tables
        .push_str("[limits]\nconnections_per_client = 3\n");
    let clinch = setup.start();
    let mut held: Vec<Session> = (0..3).map(|_| setup.connect("a.example")).collect();
    setup
        .client()
        .connect(setup.address, "a.example")
        .err()
        .expect("one too many");
    let reason = ["reason=\"client_limit\""];
    clinch.wait_for_count("clinch_accept_failures_total", &reason, 1.0);
    held.iter_mut()
        .for_each(|session| session.echo(b"unharmed"));
    drop(held);
    eventually("there is room again", PROMPT, || {
        setup.client().connect(setup.address, "a.example").ok()
    });
    clinch.stop();
}

#[test]
fn status_and_health_tell_what_is() {
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    assert_eq!(clinch.ask("/healthz").status, 200);
    assert_eq!(clinch.ask("/readyz").status, 200);
    setup.connect("a.example").echo(b"counted");
    let said = ask(&clinch, "status", &[]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    said.has("a.example");
    ask(&clinch, "status", &["--metrics"])
        .has("\nclinch_handshakes_total{kind=\"tls13_full\"} 1\n")
        .has("\n# EOF\n");
    let said = ask(&clinch, "status", &["--json"]);
    let status: serde_json::Value = serde_json::from_str(&said.text).expect("JSON");
    assert_eq!(
        status["control"]["certificates"][0]["staple"], "stapled",
        "{status}"
    );
    let generation = status["control"]["generation"].as_u64().expect("a number");
    assert!(generation >= 1);
    eventually(
        "each worker serves from the published generation",
        PROMPT,
        || {
            let status = clinch.status();
            let workers = status["workers"].as_array()?.clone();
            let generation = status["control"]["generation"].clone();
            workers
                .iter()
                .all(|worker| worker["generation"] == generation)
                .then_some(())
        },
    );
    clinch.stop();
}

#[test]
fn probe_says_what_was_stapled() {
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let running = setup.start();
    let address = setup.address.to_string();
    let root = setup.root_path().display().to_string();
    let said = clinch(&["probe", &address, "--name", "a.example", "--ca", &root]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    said.has("good");
    running.stop();
}

#[test]
fn a_log_in_json_is_one_object_a_line() {
    let echo = Backend::echo();
    let (mut setup, _) = Setup::with_site("a.example", echo.written());
    setup.log = "format = \"json\"\nlevel = \"debug\"\n".to_owned();
    let clinch = setup.start();
    setup.connect("a.example").echo(b"something to log");
    let log = clinch.stop();
    assert!(log.lines().count() > 3, "{log}");
    for line in log.lines() {
        let event: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(
            event["level"].is_string() && event["timestamp"].is_string(),
            "{line}"
        );
    }
}

#[test]
fn no_key_is_in_the_log_or_in_the_status() {
    let held = Backend::tcp(|mut stream: Stream| {
        let _ = stream.read(&mut [0; 16]);
    });
    let mut setup = Setup::new();
    let issued = setup.site("a.example", held.written(), "");
    let clinch = setup.start();
    drop(setup.connect("a.example"));
    let secret = issued.key_pem.lines().nth(1).expect("a body").to_owned();
    let status = clinch.ask("/status").body;
    let log = clinch.stop();
    assert!(!log.contains(&secret) && !status.contains(&secret));
    assert!(!log.contains("PRIVATE KEY") && !status.contains("PRIVATE KEY"));
}

/// Process ids of the children of a process.
fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).expect("it runs");
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}
