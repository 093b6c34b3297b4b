//! CPU per resumed handshake: the same servers with one ticket for each handshake, and clients that use it.

use std::time::Duration;

use anyhow::{Result, ensure};
use clinch_load::{Pace, Plan, Revocation, Work};

use super::{installed, plan_for};
use crate::bench::Bench;
use crate::peers::{self, Peer, Program, Running, Variant};
use crate::report::Report;
use crate::rounds::{Contender, Sample, interleave};

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "resumed",
        "µs of CPU per resumed TLS 1.3 handshake (psk_dhe_ke, X25519), one ticket each, without a request",
    );
    let found = installed(&Peer::ALL, &mut report);
    let variant = Variant {
        name: "clinch-resumed".to_owned(),
        tickets: 1,
        ..Variant::default()
    };
    let mut running = vec![("clinch".to_owned(), peers::clinch(bench, &variant)?)];
    for peer in found {
        if peer.program == Program::H2o {
            let note = "h2o left out: of Debian 12's, only some of the sessions are resumed";
            report.notes.push(note.to_owned());
            continue;
        }
        running.push((peer.name(), peer.start_with(bench, 1)?));
    }
    let mut contenders: Vec<Contender<'_>> = Vec::new();
    for (name, at) in &running {
        // Whoever cannot resume as it is configured is named, and the others are measured.
        match measure(bench, at, bench.effort.count.min(200)) {
            Ok(_) => contenders.push(Contender::new(name.clone(), move || {
                measure(bench, at, bench.effort.count)
            })),
            Err(error) => report.notes.push(format!("{name} left out: {error:#}")),
        }
    }
    let series = interleave(bench.effort.rounds, "µs", &mut contenders)?;
    drop(contenders);
    if let Some((clinch, peers)) = series.split_first() {
        report.ratios = peers.iter().map(|peer| clinch.over(peer)).collect();
    }
    report.series = series;
    Ok(report)
}

fn measure(bench: &Bench, at: &Running, count: u32) -> Result<Sample> {
    let clients = bench.effort.concurrency.min(CLIENTS);
    let plan = Plan {
        resume: true,
        work: Work::Handshake,
        revocation: Revocation::Ignore,
        count: Some(count.into()),
        duration: Duration::from_secs(120),
        ..plan_for(bench, at.address, Pace::Closed { clients })?
    };
    let before = bench.run(at.server.settled_cpu())?;
    let outcome = bench.generate(&plan)?;
    let after = bench.run(at.server.settled_cpu())?;
    let counts = outcome.recorder.counts;
    ensure!(
        counts.resumed == u64::from(count),
        "{} of {count} were resumed",
        counts.resumed
    );
    // The few full handshakes that bring the first tickets are counted as resumed ones: an error
    // below one per cent, the same for all.
    Ok((after.since(&before, |_| true) as f64 / 1000.0 / f64::from(count)).into())
}

const CLIENTS: u32 = 16;
