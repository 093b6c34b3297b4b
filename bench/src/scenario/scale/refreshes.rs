//! Refreshes a second, from none to 200: fetched by egress over HTTP, verified and published by control,
//! each with a new signature. What they take of the processor, and what handshakes cost beside them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};
use clinch::cli::demo::authority::{Authority, HashAlgorithm, LeafSpec, OcspAnswer};
use clinch_load::Plan;

use super::super::{open_loop, plan_for};
use super::{by_detail, draw, grouped, line, server_names};
use crate::bench::{self, Bench, free_address};
use crate::machine::SERVER_CORE;
use crate::peers::Running;
use crate::process::{Launch, STARTS_WITHIN, Server};
use crate::report::Report;
use crate::responder::{self, Distance};
use crate::rounds::{Contender, Sample, interleave};

pub(in super::super) fn run(bench: &Bench) -> Result<Report> {
    let count = bench.effort.refreshed;
    let mut report = Report::new(
        "scale-refreshes",
        format!(
            "clinch with {count} certificates whose responses are refreshed so many times a second in all: µs of \
             CPU of the worker per stapled handshake ({RATE}/s); µs of CPU of control and egress per refresh"
        ),
    );
    let refreshed = Refreshed::make(bench, count)?;
    let mut contenders = Vec::new();
    for per_second in RATES {
        let refreshed = &refreshed;
        let name = format!("{} refreshes/s", grouped(per_second));
        contenders.push(Contender::new(name, move || {
            measure(bench, refreshed, per_second)
        }));
    }
    let series = interleave(bench.effort.rounds.min(5), "µs", &mut contenders)?;
    drop(contenders);
    for other in &series[1..] {
        report.ratios.push(other.over(&series[0]));
    }
    let curve = |label: &str, of: &dyn Fn(&Sample) -> f64| {
        let points = series.iter().zip(RATES).map(|(series, rate)| {
            let values = series.samples.iter().map(of);
            (f64::from(rate), crate::rounds::Summary::of(values).median)
        });
        line(label, points)
    };
    let lines = vec![
        curve("worker, for each handshake", &|sample| sample.value),
        curve("control and egress, for each refresh", &|sample| {
            sample.detail[REFRESH]
        }),
    ];
    let title = "CPU by refreshes a second";
    draw(
        &mut report,
        "scale-refreshes",
        title,
        "refreshes a second (none at 1)",
        "µs",
        lines,
    );
    for (one, rate) in series.iter().zip(RATES).skip(1) {
        let name = format!("control and egress for a refresh, {}/s", grouped(rate));
        report.series.push(by_detail(one, REFRESH, name, "µs"));
        let name = format!("refreshes counted at {}/s", grouped(rate));
        report
            .series
            .push(by_detail(one, COUNTED, name, "per second"));
    }
    report.series.splice(0..0, series);
    Ok(report)
}

/// Certificates in files, and a responder that signs an answer whenever one is asked for.
struct Refreshed {
    /// The tables of a configuration.
    sites: String,
    first: String,
    /// How long answers hold, ms.
    validity: Arc<AtomicU64>,
    answered: Arc<AtomicU64>,
    count: u32,
}

impl Refreshed {
    fn make(bench: &Bench, count: u32) -> Result<Self> {
        let authority = Authority::new(SystemTime::now())?;
        let listener = bench::listener()?;
        let port = listener.local_addr()?.port();
        let directory = bench.directory.path().join("refreshed");
        std::fs::create_dir(&directory)?;
        let mut sites = String::new();
        let mut serials = Vec::new();
        for index in 0..count {
            let issued = authority.issue(&LeafSpec {
                names: vec![name(index)],
                ocsp_urls: vec![format!("http://localhost:{port}/{index}")],
                ..LeafSpec::default()
            })?;
            let at = |kind: &str| directory.join(format!("{index}.{kind}"));
            crate::pki::write(&at("pem"), issued.chain_pem.as_bytes(), 0o644)?;
            crate::pki::write(&at("key"), issued.key_pem.as_bytes(), 0o600)?;
            sites += &format!(
                "[[site]]\nnames = [\"{}\"]\ncert = \"{}\"\nkey = \"{}\"\nbackend = [\"{}\"]\n",
                name(index),
                at("pem").display(),
                at("key").display(),
                bench.backend,
            );
            serials.push(issued.serial);
        }
        let (validity, answered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (holds, counted) = (Arc::clone(&validity), Arc::clone(&answered));
        let answer = move |index: usize| {
            let now = SystemTime::now();
            let answer = OcspAnswer {
                this_update: now,
                produced_at: now,
                next_update: Some(now + Duration::from_millis(holds.load(Relaxed))),
                ..OcspAnswer::good(now)
            };
            counted.fetch_add(1, Relaxed);
            let serial = serials.get(index)?;
            authority
                .respond_about(&answer, serial, HashAlgorithm::Sha1)
                .ok()
        };
        responder::start(listener, answer, Distance::default())?;
        Ok(Self {
            sites,
            first: name(0),
            validity,
            answered,
            count,
        })
    }

    /// A clinch whose certificates have all been fetched once.
    fn start(&self, bench: &Bench, per_second: u32) -> Result<Running> {
        // Half of the validity is the margin.
        let validity = match per_second {
            0 => WEEK,
            rate => (Duration::from_secs(2) * self.count / rate).max(SHORTEST),
        };
        self.validity.store(validity.as_millis() as u64, Relaxed);
        let before = self.answered.load(Relaxed);
        let address = free_address()?;
        let text = format!(
            "workers = 1\ncache_dir = false\n[ocsp]\nmargin = 0.5\n[listen.bench]\naddress = [\"{address}\"]\n\
             min_version = \"1.3\"\ntickets = 0\n[egress]\nallow = [\"127.0.0.1\"]\nports = [\"1024-65535\"]\n\
             pace = \"0s\"\nburst = 100000\n[admin]\nlisten = false\n{}",
            self.sites
        );
        let directory = bench.directory.path();
        let configuration = directory.join("refreshed.toml");
        std::fs::write(&configuration, text)?;
        let mut server = Server::start(&Launch {
            name: "refreshed".to_owned(),
            program: bench.clinch.clone(),
            arguments: vec![
                "run".to_owned(),
                "-c".to_owned(),
                configuration.display().to_string(),
            ],
            environment: Vec::new(),
            log: directory.join("refreshed.log"),
            cores: vec![SERVER_CORE],
            whole_process: false,
        })?;
        server.wait_until_listening(address, STARTS_WITHIN)?;
        let deadline = Instant::now() + STARTS_WITHIN;
        while self.answered.load(Relaxed) < before + u64::from(self.count) {
            ensure!(
                Instant::now() < deadline,
                "not all were fetched: {}",
                server.output()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Running { server, address })
    }
}

fn measure(bench: &Bench, refreshed: &Refreshed, per_second: u32) -> Result<Sample> {
    let at = refreshed.start(bench, per_second)?;
    let pace = open_loop(RATE);
    let plan = Plan {
        names: server_names(std::slice::from_ref(&refreshed.first))?,
        duration: bench.effort.turn,
        ..plan_for(bench, at.address, pace)?
    };
    let (before, asked) = (at.server.cpu()?, refreshed.answered.load(Relaxed));
    let begun = Instant::now();
    let outcome = bench.generate(&plan)?;
    let took = begun.elapsed().as_secs_f64();
    let (after, asked) = (at.server.cpu()?, refreshed.answered.load(Relaxed) - asked);
    let recorder = &outcome.recorder;
    let worker = after.since(&before, |name| name.starts_with("worker-"));
    let rest = after.since(&before, |name| !name.starts_with("worker-"));
    let finished = recorder.counts.finished as f64;
    let mut sample = Sample::from(worker as f64 / 1000.0 / finished);
    let per_refresh = match asked {
        0 => 0.0,
        asked => rest as f64 / 1000.0 / asked as f64,
    };
    sample.detail.extend([
        (REFRESH.to_owned(), per_refresh),
        (COUNTED.to_owned(), asked as f64 / took),
        (
            "control and egress, ms per second".to_owned(),
            rest as f64 / 1e6 / took,
        ),
    ]);
    Ok(sample)
}

fn name(index: u32) -> String {
    format!("r{index}.refreshed.test")
}

const RATES: [u32; 4] = [0, 10, 50, 200];
/// Handshakes a second.
const RATE: f64 = 200.0;
/// Shorter, and the schedule's own shortest pause would set the pace. Few certificates are refreshed less
/// often than they should be, then; the record has how often.
const SHORTEST: Duration = Duration::from_secs(4);
const WEEK: Duration = Duration::from_secs(7 * 86_400);
const REFRESH: &str = "µs of control and egress per refresh";
const COUNTED: &str = "refreshes per second";
