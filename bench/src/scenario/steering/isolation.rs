//! What visitors of one site wait while another has more to do than a core can take. The busy site has an
//! RSA key: its handshakes are dear for the server and cheap for the client, which shares a core with the
//! quiet site's worker.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use clinch::cli::demo::authority::KeyAlgorithm;
use clinch_load::{Pace, Phase, Plan, Revocation};
use rustls::pki_types::ServerName;

use super::super::{open_loop, plan_for};
use super::server::{self, Sites};
use crate::bench::Bench;
use crate::peers::Running;
use crate::report::Report;
use crate::rounds::{Contender, Sample, Series, Summary, interleave};

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "steering-isolation",
        format!(
            "ms until a handshake with the quiet site (ECDSA, {RATE}/s, open loop) is complete, p99 of each turn, while \
             the busy site (RSA-2048, closed loop of {CLIENTS} clients) saturates its core; both confined to a core of their own"
        ),
    );
    let mut sites = Sites::new(bench, "steering-isolation")?;
    sites.add(BUSY, KeyAlgorithm::Rsa2048, "cores = [0]\n")?;
    sites.add(QUIET, KeyAlgorithm::P256, "cores = [1]\n")?;
    let on = server::start(bench, "isolation-on", &sites, true)?;
    let off = server::start(bench, "isolation-off", &sites, false)?;
    let mut contenders = Vec::new();
    for (name, at, busy) in [
        ("alone", &on, false),
        ("beside the busy site, steered", &on, true),
        ("beside the busy site, not steered", &off, true),
    ] {
        contenders.push(Contender::new(name, move || measure(bench, at, busy)));
    }
    let series = interleave(bench.effort.rounds.min(5), "ms", &mut contenders)?;
    drop(contenders);
    report.ratios.extend([
        series[1].over(&series[0]),
        series[2].over(&series[0]),
        series[2].over(&series[1]),
    ]);
    let medians: Vec<Series> = series.iter().map(median).collect();
    report.series.extend(series);
    report.series.extend(medians);
    let note = "the client of both sites runs on core 1 beside the quiet site's worker, which is why even a steered site notices the busy one";
    report.notes.push(note.to_owned());
    Ok(report)
}

fn median(series: &Series) -> Series {
    let values = series.samples.iter().map(|sample| sample.detail["p50 ms"]);
    Series {
        name: format!("p50: {}", series.name),
        unit: "ms",
        summary: Summary::of(values.clone()),
        samples: values.map(Sample::from).collect(),
    }
}

fn plan(bench: &Bench, at: &Running, name: &str, pace: Pace) -> Result<Plan> {
    Ok(Plan {
        names: vec![ServerName::try_from(name.to_owned())?],
        revocation: Revocation::Ignore,
        ..plan_for(bench, at.address, pace)?
    })
}

fn measure(bench: &Bench, at: &Running, busy: bool) -> Result<Sample> {
    let pace = open_loop(RATE);
    let mut quiet = plan(bench, at, QUIET, pace)?;
    quiet.warm_up = bench.effort.turn / 10;
    let mut crowd = plan(bench, at, BUSY, Pace::Closed { clients: CLIENTS })?;
    // It ends when it is told to.
    crowd.duration = bench.effort.turn * 20;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let crowd = busy.then(|| scope.spawn(|| clinch_load::run(&crowd, &stop, |_| ())));
        let outcome = bench.generate(&quiet);
        stop.store(true, Ordering::Relaxed);
        let crowd = crowd.map(|crowd| crowd.join().ok().context("the crowd panicked"));
        let outcome = outcome?;
        let recorder = &outcome.recorder;
        let ready = recorder.histogram(Phase::Ready);
        let ms = |q| ready.value_at_quantile(q) as f64 / 1e6;
        let mut sample = Sample::from(ms(0.99));
        sample.detail.extend([
            ("p50 ms".to_owned(), ms(0.5)),
            ("p90 ms".to_owned(), ms(0.9)),
            ("p99.9 ms".to_owned(), ms(0.999)),
        ]);
        if let Some(crowd) = crowd {
            let finished = crowd??.recorder.counts.finished as f64;
            let seconds = (quiet.duration + quiet.warm_up).as_secs_f64();
            let name = "handshakes a second of the busy site";
            sample.detail.insert(name.to_owned(), finished / seconds);
        }
        Ok(sample)
    })
}

const BUSY: &str = "busy.bench.test";
const QUIET: &str = "quiet.bench.test";
const RATE: f64 = 200.0;
const CLIENTS: u32 = 32;
