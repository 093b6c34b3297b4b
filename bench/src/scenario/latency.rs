//! Latency at fixed rates: open loop, random arrivals, from when a connection was due to the last byte of
//! its answer. Every server has one core; client and backend have the other.

use anyhow::Result;
use clinch_load::{Phase, Plan, Revocation, Work};

use super::{installed, open_loop, plan_for};
use crate::bench::Bench;
use crate::peers::{self, Peer, Running, Variant};
use crate::report::Report;
use crate::rounds::{Contender, Sample, interleave};

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "latency",
        "ms from when a connection was due to the last byte of its answer (median of each turn; other \
         percentiles are in the record), full TLS 1.3 handshake and a small request, open loop",
    );
    let found = installed(&Peer::ALL, &mut report);
    let clinch = peers::clinch(bench, &Variant::default())?;
    let mut running = vec![("clinch".to_owned(), true, clinch)];
    for peer in found {
        running.push((peer.name(), peer.staples(), peer.start(bench)?));
    }
    for rate in RATES {
        let mut contenders: Vec<Contender<'_>> = running
            .iter()
            .map(|(name, staple, at)| {
                Contender::new(format!("{rate}/s {name}"), move || {
                    measure(bench, at, rate, *staple)
                })
            })
            .collect();
        let series = interleave(bench.effort.rounds.min(3), "ms", &mut contenders)?;
        let ratios = series[1..].iter().map(|peer| series[0].over(peer));
        report.ratios.extend(ratios);
        report.series.extend(series);
    }
    Ok(report)
}

fn measure(bench: &Bench, at: &Running, rate: f64, staple: bool) -> Result<Sample> {
    let pace = open_loop(rate);
    let plan = Plan {
        work: Work::Request {
            path: "/".to_owned(),
            upload: 0,
        },
        revocation: if staple {
            Revocation::Staple
        } else {
            Revocation::Ignore
        },
        duration: bench.effort.turn / 2,
        warm_up: bench.effort.turn / 10,
        ..plan_for(bench, at.address, pace)?
    };
    let outcome = bench.generate(&plan)?;
    let recorder = &outcome.recorder;
    let whole = recorder.histogram(Phase::Whole);
    let ready = recorder.histogram(Phase::Ready);
    let ms = |nanos: u64| nanos as f64 / 1e6;
    let mut sample = Sample::from(ms(whole.value_at_quantile(0.5)));
    sample.detail.extend([
        ("p90 ms".to_owned(), ms(whole.value_at_quantile(0.9))),
        ("p99 ms".to_owned(), ms(whole.value_at_quantile(0.99))),
        ("p99.9 ms".to_owned(), ms(whole.value_at_quantile(0.999))),
        ("ready p50 ms".to_owned(), ms(ready.value_at_quantile(0.5))),
        ("ready p99 ms".to_owned(), ms(ready.value_at_quantile(0.99))),
    ]);
    Ok(sample)
}

/// Arrivals a second: few, and half of what the slowest server's core can do.
const RATES: [f64; 2] = [100.0, 400.0];
