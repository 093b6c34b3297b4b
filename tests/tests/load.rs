//! The load generator against the real server: that it demands what it says, counts what fails, and
//! charges a stall to everybody who came meanwhile. Function only; nothing here measures.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clinch_load::{
    Arrivals, Check, Outcome, Pace, Phase, Plan, Report, Resolver, Revocation, Version, Work,
};
use clinch_tests::backend::Backend;
use clinch_tests::process::binary;
use clinch_tests::setup::Setup;
use clinch_tests::{PROMPT, eventually};
use rustix::process::{Pid, Signal};
use rustls::NamedGroup;
use rustls::pki_types::ServerName;

/// Handshakes of four clients, as many as `count`, verified staple and chain.
fn plan(setup: &Setup, names: &[&str], count: u64) -> Plan {
    let name = |name: &&str| ServerName::try_from((*name).to_owned()).expect("a name");
    Plan {
        address: setup.address,
        names: names.iter().map(name).collect(),
        revocation: Revocation::Staple,
        roots: vec![setup.authority.root().clone()],
        check: Check::Every,
        version: Version::Tls13,
        group: None,
        suite: None,
        resume: false,
        work: Work::Handshake,
        pace: Pace::Closed { clients: 4 },
        duration: PROMPT,
        warm_up: Duration::ZERO,
        count: Some(count),
        deadline: PROMPT,
        threads: vec![None, None],
        sources: Vec::new(),
    }
}

fn run(plan: &Plan) -> Outcome {
    clinch_load::run(plan, &AtomicBool::new(false), |_| ()).expect("the run begins")
}

/// `finished` connections, and no other.
#[track_caller]
fn assert_finished(outcome: &Outcome, finished: u64) {
    let recorder = &outcome.recorder;
    assert_eq!(
        (recorder.counts.finished, &recorder.failures),
        (finished, &std::collections::BTreeMap::new())
    );
}

#[test]
fn a_staple_is_verified_and_its_absence_counted() {
    let echo = Backend::echo();
    let (mut setup, _) = Setup::with_site("a.example", echo.written());
    setup.site("plain.example", echo.written(), "ocsp = false\n");
    let clinch = setup.start();
    for (version, group) in [
        (Version::Tls13, Some(NamedGroup::X25519MLKEM768)),
        (Version::Tls12, None),
    ] {
        let outcome = run(&Plan {
            version,
            group,
            ..plan(&setup, &["a.example"], 20)
        });
        assert_finished(&outcome, 20);
        assert_eq!(outcome.staples, 20);
        assert_eq!(outcome.recorder.histogram(Phase::Ready).len(), 20);
    }
    // Every other connection is for the site without a staple, on each of the two threads.
    let outcome = run(&plan(&setup, &["a.example", "plain.example"], 20));
    assert_eq!(outcome.recorder.counts.finished, 10);
    assert_eq!(outcome.recorder.failures["staple: none"], 10);
    let plain = Plan {
        revocation: Revocation::Ignore,
        ..plan(&setup, &["plain.example"], 20)
    };
    assert_finished(&run(&plain), 20);
    clinch.stop();
}

#[test]
fn another_authority_is_not_trusted() {
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    let stranger = Plan {
        roots: vec![Setup::new().authority.root().clone()],
        ..plan(&setup, &["a.example"], 5)
    };
    let failures = run(&stranger).recorder.failures;
    // Both authorities have the same name, so it is the signature that tells.
    assert_eq!(failures["certificate: bad signature"], 5, "{failures:?}");
    clinch.stop();
}

#[test]
fn a_client_without_a_staple_asks_the_responder_itself_every_time() {
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    let before = setup.responder.count();
    let outcome = run(&Plan {
        revocation: Revocation::Client(Resolver::System),
        ..plan(&setup, &["a.example"], 12)
    });
    assert_finished(&outcome, 12);
    assert_eq!(outcome.recorder.histogram(Phase::Revocation).len(), 12);
    assert_eq!(setup.responder.count() - before, 12);
    clinch.stop();
}

#[test]
fn sessions_are_resumed_in_both_versions() {
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    for version in [Version::Tls13, Version::Tls12] {
        let outcome = run(&Plan {
            version,
            resume: true,
            ..plan(&setup, &["a.example"], 40)
        });
        assert_finished(&outcome, 40);
        assert_eq!(outcome.recorder.counts.resumed, 40);
    }
    clinch.stop();
}

#[test]
fn a_stall_is_charged_to_everybody_who_came_meanwhile() {
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    let rate = 100.0;
    let open = Plan {
        pace: Pace::Open {
            rate,
            arrivals: Arrivals::Even,
            most: 1000,
        },
        count: Some(200),
        check: Check::Distinct,
        ..plan(&setup, &["a.example"], 0)
    };
    let stall = Duration::from_secs(1);
    let outcome = std::thread::scope(|scope| {
        let running = scope.spawn(|| run(&open));
        // In the midst of it the whole server stands still.
        clinch.wait_for_count("clinch_handshakes_total", &[], 20.0);
        clinch.signal(Signal::STOP);
        std::thread::sleep(stall);
        clinch.signal(Signal::CONT);
        running.join().expect("no panic")
    });
    assert_finished(&outcome, 200);
    // Arrivals went on: about a hundred came while it stood, and half of them waited half of it.
    let ready = outcome.recorder.histogram(Phase::Ready);
    let long = ready.len() - ready.count_between(0, stall.as_nanos() as u64 / 2);
    assert!(long >= 25, "{long} of {} waited long", ready.len());
    clinch.stop();
}

#[test]
fn arrivals_that_find_no_place_are_counted() {
    // Accepts, and says nothing: every place stays taken until the deadline.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let (mut setup, _) = Setup::with_site("a.example", "127.0.0.1:9");
    setup.address = silent.local_addr().expect("bound");
    let outcome = run(&Plan {
        pace: Pace::Open {
            rate: 200.0,
            arrivals: Arrivals::Even,
            most: 2,
        },
        duration: Duration::from_millis(500),
        deadline: Duration::from_millis(300),
        count: None,
        ..plan(&setup, &["a.example"], 0)
    });
    let failures = &outcome.recorder.failures;
    assert_eq!(outcome.recorder.counts.finished, 0);
    assert!(failures["deadline: handshake"] >= 2, "{failures:?}");
    let kind = "never started: too many connections were open";
    assert!(failures[kind] >= 50 && outcome.held >= 50, "{failures:?}");
}

#[test]
fn idle_connections_are_held_and_slow_ones_served() {
    let echo = Backend::echo();
    let (mut setup, _) = Setup::with_site("a.example", echo.written());
    setup.timeouts.push_str("idle = \"1s\"\n");
    let clinch = setup.start();
    let idle = |duration| Plan {
        work: Work::Idle,
        pace: Pace::Closed { clients: 30 },
        duration,
        count: None,
        ..plan(&setup, &["a.example"], 0)
    };
    assert_finished(&run(&idle(Duration::from_millis(300))), 30);
    // Longer than the server's patience: its closing is noticed.
    let failures = run(&idle(PROMPT / 5)).recorder.failures;
    assert_eq!(failures["idle: the server closed"], 30, "{failures:?}");
    clinch.stop();
}

/// A running `clinch demo --target`, and what it said it is.
struct Target {
    demo: Child,
    address: String,
    root: PathBuf,
    metrics: SocketAddr,
}

impl Target {
    fn start() -> Self {
        // The port is exact: the first pair of neighbours that is free is found by trying.
        let mut port = 20_000 + (std::process::id() % 20_000) as u16;
        loop {
            port += 2;
            let mut demo = Command::new(binary())
                .args(["demo", "--target", "--port", &port.to_string()])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("clinch runs");
            let mut said = BufReader::new(demo.stdout.take().expect("piped")).lines();
            let mut value = |word: &str| {
                let line = said.next()?.expect("text");
                Some(line.strip_prefix(word)?.trim().to_owned())
            };
            if let Some(address) = value("target") {
                value("names").expect("names");
                let root = value("root").expect("root");
                value("paths").expect("paths");
                let metrics = value("metrics").expect("metrics");
                let metrics = metrics.trim_start_matches("http://");
                let metrics = metrics.trim_end_matches("/metrics");
                return Self {
                    demo,
                    address: address.split(' ').next().expect("an address").to_owned(),
                    root: root.into(),
                    metrics: metrics.parse().expect("an address"),
                };
            }
            demo.wait().expect("it ended");
        }
    }

    /// The metrics, over HTTP.
    fn metrics(&self) -> String {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(self.metrics).expect("it listens");
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("text");
        text
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.demo.id().cast_signed()).expect("a child");
        let _ = rustix::process::kill_process(pid, Signal::TERM);
        let _ = self.demo.wait();
    }
}

/// The built generator: beside clinch, built now unless `make test` did it.
fn generator() -> PathBuf {
    if std::env::var_os("CLINCH_BIN").is_none() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args([
                "build",
                "--workspace",
                "--bin",
                "clinch-load",
                "--locked",
                "--quiet",
            ])
            .status()
            .expect("cargo runs");
        assert!(built.success(), "clinch-load builds");
    }
    binary().with_file_name("clinch-load")
}

#[test]
fn the_demo_is_a_target_and_the_reports_say_what_was_done_to_it() {
    let target = Target::start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| dir.path().join(name);
    let load = |label: &str, arguments: &[&str]| -> (Option<i32>, Report) {
        let json = at(&format!("{label}.json"));
        let output = Command::new(generator())
            .args(["run", &target.address, "--quiet", "--label", label, "--ca"])
            .arg(&target.root)
            .args(["--duration", "20s", "--warm-up", "0s", "--json"])
            .arg(&json)
            .args(arguments)
            .output()
            .expect("it runs");
        let table = String::from_utf8_lossy(&output.stdout);
        assert!(table.contains(label), "{output:?}");
        let text = std::fs::read(&json).expect("it wrote JSON");
        (
            output.status.code(),
            serde_json::from_slice(&text).expect("a report"),
        )
    };
    let name = ["--name", "ecdsa.clinch.test"];

    let page = at("page.html").display().to_string();
    let prefix = at("run").display().to_string();
    let files = [
        "--html", &page, "--hgrm", &prefix, "--rate", "200", "--count", "50",
    ];
    let (code, report) = load("open", &[&name[..], &files].concat());
    assert_eq!((code, report.counts.finished), (Some(0), 50));
    assert!(
        report
            .phase(Phase::FirstByte)
            .is_some_and(|phase| phase.count == 50)
    );
    let page = std::fs::read_to_string(page).expect("a page");
    assert!(page.contains("<svg") && page.ends_with("</html>\n") && !page.contains("NaN"));
    let hgrm = std::fs::read_to_string(at("run.ready.hgrm")).expect("percentiles");
    assert!(hgrm.contains("Total count    =           50"), "{hgrm}");

    let bulk = ["--count", "3", "--clients", "1", "--threads", "1"];
    let down = ["--path", "/bytes/3000000"];
    let (_, report) = load("down", &[&name[..], &bulk, &down].concat());
    assert_eq!(
        (report.counts.finished, report.counts.bytes_down),
        (3, 9_000_000)
    );
    let up = ["--upload", "3000000"];
    let (_, report) = load("up", &[&name[..], &bulk, &up].concat());
    assert_eq!(
        (report.counts.finished, report.counts.bytes_up),
        (3, 9_000_000)
    );
    let slow = [
        "--work", "slow", "--piece", "60", "--pause", "1ms", "--check", "every",
    ];
    let (code, _) = load("slow", &[&name[..], &bulk, &slow].concat());
    assert_eq!(code, Some(0));

    let (code, report) = load("plain", &["--name", "plain.clinch.test", "--count", "4"]);
    assert_eq!((code, report.failures["staple: none"]), (Some(1), 4));

    let page = at("all.html");
    let put = Command::new(generator())
        .args(["report", "--html"])
        .args([&page, &at("open.json"), &at("down.json")])
        .output()
        .expect("it runs");
    assert!(put.status.success(), "{put:?}");
    assert!(
        std::fs::read_to_string(page)
            .expect("a page")
            .contains("down")
    );
    eventually("metrics tell of the load", PROMPT, || {
        target
            .metrics()
            .contains("clinch_handshakes_total")
            .then_some(())
    });
}

#[test]
fn what_cannot_begin_is_told_and_is_no_report() {
    for arguments in [
        &["run", "nowhere"][..],
        &["run", "127.0.0.1:1", "--rate", "0"],
        &["run", "127.0.0.1:1", "--work", "idle", "--rate", "5"],
        &["run", "127.0.0.1:1", "--ca", "/nowhere.pem"],
        &["run", "127.0.0.1:1", "--resume"],
        &["report", "/nowhere.json"],
    ] {
        let output = Command::new(generator()).args(arguments).output();
        let output = output.expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}

#[test]
fn a_demo_that_is_killed_takes_its_server_along() {
    let mut target = Target::start();
    target.demo.kill().expect("killed");
    target.demo.wait().expect("it ended");
    eventually("nobody listens", PROMPT, || {
        std::net::TcpStream::connect(&target.address)
            .is_err()
            .then_some(())
    });
    // The killed could not take its files away; the root certificate lies among them.
    let files = target.root.parent().expect("a directory");
    std::fs::remove_dir_all(files).expect("removed");
}
