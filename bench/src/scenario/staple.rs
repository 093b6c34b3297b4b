//! What a staple costs: two sites of one clinch, alike but for the staple, taking turns. The server's CPU,
//! and what a visitor waits at a fixed rate, in turns so short and so many that the machine's drift is
//! the same for both.

use anyhow::Result;
use clinch_load::{Phase, Plan, Revocation};
use rustls::pki_types::ServerName;

use super::{open_loop, per_connection, plan_for, site, tls};
use crate::bench::Bench;
use crate::load::Pattern;
use crate::peers::{self, Running, Variant};
use crate::report::Report;
use crate::rounds::{Contender, Sample, interleave};

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "staple",
        format!(
            "one clinch, its site with a staple and its site without: µs of CPU per connection; ms until a \
             visitor trusts the handshake at {RATE}/s, random arrivals, median of each turn"
        ),
    );
    let effort = bench.effort.fine();
    let clinch = peers::clinch(bench, &Variant::default())?;
    for (pattern, label) in [(Pattern::Request, "req"), (Pattern::Handshake, "hs")] {
        let mut contenders = Vec::new();
        for staple in [true, false] {
            let mut load = tls(bench, &clinch, site(staple), staple, pattern)?;
            load.count = effort.count;
            let name = format!("{label} {} staple", if staple { "with" } else { "without" });
            contenders.push(per_connection(bench, name, &clinch, load)?);
        }
        let series = interleave(effort.rounds, "µs", &mut contenders)?;
        let ratio = series[0].over(&series[1]);
        report.promise(ratio.name.clone(), 1.02, ratio.summary.median);
        report.ratios.push(ratio);
        report.series.extend(series);
    }
    let mut contenders = Vec::new();
    for staple in [true, false] {
        let clinch = &clinch;
        let name = if staple {
            "p50 with staple"
        } else {
            "p50 without staple"
        };
        contenders.push(Contender::new(name, move || wait(bench, clinch, staple)));
    }
    let series = interleave(effort.rounds, "ms", &mut contenders)?;
    let ratio = series[0].over(&series[1]);
    report.promise(ratio.name.clone(), 1.03, ratio.summary.median);
    report.ratios.push(ratio);
    report.series.extend(series);
    Ok(report)
}

fn wait(bench: &Bench, at: &Running, staple: bool) -> Result<Sample> {
    let pace = open_loop(RATE);
    let plan = Plan {
        names: vec![ServerName::try_from(
            bench.sites[site(staple)].name.clone(),
        )?],
        revocation: if staple {
            Revocation::Staple
        } else {
            Revocation::Ignore
        },
        duration: bench.effort.turn / 7,
        warm_up: bench.effort.turn / 70,
        ..plan_for(bench, at.address, pace)?
    };
    let outcome = bench.generate(&plan)?;
    let recorder = &outcome.recorder;
    let ready = recorder.histogram(Phase::Ready).value_at_quantile(0.5);
    Ok((ready as f64 / 1e6).into())
}

/// Visitors a second: no queue adds to the latency.
const RATE: f64 = 200.0;
