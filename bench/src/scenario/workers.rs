//! Whether a second worker makes handshakes dearer, as it would if workers shared what they write.
//!
//! A worker that has much to do takes many completions per wake, and each handshake is the cheaper for
//! it. So one worker is compared with two at the same rate *for each worker*. The same load in all,
//! which fills one worker and leaves two half idle, is measured too: it shows what waking costs.

use anyhow::Result;
use clinch_load::{Plan, Work};

use super::{open_loop, per_connection, plan_for, tls};
use crate::bench::{Bench, STAPLED};
use crate::load::Pattern;
use crate::machine::{CLIENT_CORE, SERVER_CORE};
use crate::peers::{self, Running, Variant};
use crate::report::Report;
use crate::rounds::{Contender, Ratio, Sample, Series, interleave};

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "workers",
        "µs of CPU per connection (req, stapled) of clinch with one worker and with two",
    );
    let one = start(bench, "one", 1, SERVER_CORE)?;
    let crowded = start(bench, "crowded", 1, CLIENT_CORE)?;
    let two = start(bench, "two", 2, SERVER_CORE)?;
    let contenders = [
        ("one worker", &one, 1),
        ("one worker on the client's core", &crowded, 1),
        ("two workers", &two, 2),
    ];

    let mut by_rate = Vec::new();
    for (name, at, workers) in contenders {
        let rate = RATE * f64::from(workers);
        by_rate.push(Contender::new(format!("{name}, {rate}/s"), move || {
            at_rate(bench, at, rate)
        }));
    }
    let rounds = bench.effort.rounds;
    let rounds = if rounds > 1 { rounds * 3 } else { 1 };
    let series = interleave(rounds, "µs", &mut by_rate)?;
    drop(by_rate);
    let name = "at one rate for each worker, two workers ÷ mean of one worker on either core";
    let ratio = Ratio::new(name, &series[2].values(), &mean(&series));
    report.promise(name, 1.1, ratio.summary.median);
    report.ratios.push(ratio);
    report.series = series;

    let effort = bench.effort.fine();
    let mut by_load = Vec::new();
    for (name, at, _) in contenders {
        let mut load = tls(bench, at, STAPLED, true, Pattern::Request)?;
        load.count = effort.count;
        by_load.push(per_connection(
            bench,
            format!("{name}, 64 clients"),
            at,
            load,
        )?);
    }
    let series = interleave(effort.rounds, "µs", &mut by_load)?;
    drop(by_load);
    report.ratios.push(series[2].over(&series[0]));
    let name = "at 64 clients in all, two workers ÷ mean of one worker on either core";
    let ratio = Ratio::new(name, &series[2].values(), &mean(&series));
    report.ratios.push(ratio);
    report.series.extend(series);
    let notes = [
        "for want of a third core the second worker shares core 1 with client and backend, hence the mean",
        "64 clients fill one worker, which then takes many completions per wake; they leave two workers half \
         idle, which wake for nearly every event",
    ];
    report.notes.extend(notes.map(str::to_owned));
    Ok(report)
}

/// The second worker of two shares its core with client and backend; so does one of these.
fn mean(series: &[Series]) -> Vec<f64> {
    let (alone, beside) = (series[0].values(), series[1].values());
    let pairs = alone.iter().zip(&beside);
    pairs.map(|(a, b)| f64::midpoint(*a, *b)).collect()
}

fn at_rate(bench: &Bench, at: &Running, rate: f64) -> Result<Sample> {
    let pace = open_loop(rate);
    let plan = Plan {
        work: Work::Request {
            path: "/".to_owned(),
            upload: 0,
        },
        duration: bench.effort.turn / 3,
        ..plan_for(bench, at.address, pace)?
    };
    let before = bench.run(at.server.settled_cpu())?;
    let outcome = bench.generate(&plan)?;
    let after = bench.run(at.server.settled_cpu())?;
    let recorder = &outcome.recorder;
    let finished = recorder.counts.finished as f64;
    let mut sample = Sample::from(after.since(&before, |_| true) as f64 / 1000.0 / finished);
    sample.detail.insert("finished".to_owned(), finished);
    Ok(sample)
}

fn start(bench: &Bench, name: &str, workers: usize, first_core: usize) -> Result<Running> {
    let variant = Variant {
        name: format!("clinch-{name}"),
        workers,
        first_core,
        ..Variant::default()
    };
    peers::clinch(bench, &variant)
}

/// Arrivals a second for each worker, at which client, backend and a worker fit on one core.
const RATE: f64 = 300.0;
