//! Very many sites, each visited from many connections: what the process holds afterwards, and what a
//! handshake costs, steered and not. Without steering both workers come to hold what each site needs
//! for its handshakes; with it, only the home does.

use anyhow::Result;
use clinch::cli::demo::authority::KeyAlgorithm;
use clinch_load::{Pace, Plan, Revocation};
use rustls::pki_types::ServerName;

use super::super::plan_for;
use super::server::{self, Sites};
use crate::bench::Bench;
use crate::report::Report;
use crate::rounds::{Contender, Ratio, Sample, Series, Summary, interleave};

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let count = bench.effort.certificates;
    let mut report = Report::new(
        "steering-sites",
        format!(
            "KiB of resident memory that a site takes once it is visited ({count} sites, one ECDSA certificate each, \
             every one visited {VISITS} times in turn), and µs of the server's CPU for a handshake in the last of these visits"
        ),
    );
    let mut sites = Sites::new(bench, "steering-sites")?;
    for n in 0..count {
        sites.add(&format!("s{n}.pile.test"), KeyAlgorithm::P256, "")?;
    }
    let mut contenders = Vec::new();
    for steered in [true, false] {
        let sites = &sites;
        let name = if steered { "steered" } else { "not steered" };
        contenders.push(Contender::new(name, move || measure(bench, sites, steered)));
    }
    let series = interleave(bench.effort.rounds.min(3), "KiB", &mut contenders)?;
    drop(contenders);
    report.ratios.push(series[0].over(&series[1]));
    let cpu: Vec<Series> = series.iter().map(cpu).collect();
    let (steered, not) = (cpu[0].values(), cpu[1].values());
    let ratio = Ratio::new("CPU per handshake, steered ÷ not", &steered, &not);
    report.ratios.push(ratio);
    report.series.extend(series);
    report.series.extend(cpu);
    let note = "cache misses are not in the record: this machine's kernel has no performance counters to read";
    if !std::path::Path::new("/sys/bus/event_source/devices/cpu").exists() {
        report.notes.push(note.to_owned());
    }
    Ok(report)
}

fn cpu(series: &Series) -> Series {
    let values = series.samples.iter().map(|sample| sample.detail[CPU]);
    Series {
        name: format!("CPU: {}", series.name),
        unit: "µs",
        summary: Summary::of(values.clone()),
        samples: values.map(Sample::from).collect(),
    }
}

fn measure(bench: &Bench, sites: &Sites, steered: bool) -> Result<Sample> {
    let name = if steered { "sites-on" } else { "sites-off" };
    let at = server::start(bench, name, sites, steered)?;
    let names = sites.list.iter();
    let names = names.map(|(name, _)| ServerName::try_from(name.clone()));
    let pace = Pace::Closed {
        clients: bench.effort.concurrency,
    };
    let plan = Plan {
        names: names.collect::<Result<_, _>>()?,
        revocation: Revocation::Ignore,
        count: Some(sites.list.len() as u64),
        duration: std::time::Duration::from_secs(120),
        ..plan_for(bench, at.address, pace)?
    };
    let fresh = at.server.resident_kib()? as f64;
    let mut cpu = 0.0;
    for _ in 0..VISITS {
        let before = bench.run(at.server.settled_cpu())?;
        let outcome = bench.generate(&plan)?;
        let after = bench.run(at.server.settled_cpu())?;
        let recorder = &outcome.recorder;
        let spent = after.since(&before, |_| true) as f64 / 1000.0;
        cpu = spent / recorder.counts.finished as f64;
    }
    let visited = at.server.resident_kib()? as f64;
    let mut sample = Sample::from((visited - fresh) / sites.list.len() as f64);
    sample.detail.extend([
        (CPU.to_owned(), cpu),
        ("MiB before the visits".to_owned(), fresh / 1024.0),
        ("MiB after the visits".to_owned(), visited / 1024.0),
    ]);
    Ok(sample)
}

/// So that without steering nearly every site has been on both workers.
const VISITS: usize = 5;
const CPU: &str = "µs per handshake";
