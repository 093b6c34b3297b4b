//! From one site to a million, each with its own certificate, key and staple: what a handshake costs,
//! what the process holds, and how soon a published staple is with every worker.
//!
//! Three kinds of visitors: all to *one name*; to *1,000 names* in turn, spread over the table, which a core
//! keeps ready; and *each to another name*, so that every handshake makes its certificate ready from the
//! bytes that all cores share, and throws the least recently used one away.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clinch_load::Plan;

use super::super::{open_loop, plan_for};
use super::{draw, grouped, handshakes, line, server_names, single};
use crate::bench::Bench;
use crate::crowd;
use crate::data_plane::{Adoption, Order, Times};
use crate::peers::{self, Running};
use crate::report::Report;
use crate::rounds::{Contender, Sample, Series, Summary, interleave};

pub(in super::super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "scale-names",
        "clinch with as many sites, each with its own certificate (ECDSA P-256), key and staple: µs of CPU of \
         the worker per stapled handshake; KiB of resident memory per site; µs from a publish until \
         every worker (one on each core) serves from it",
    );
    let mut servers = Vec::new();
    for sites in sizes(bench.effort.sites) {
        servers.push(Scaled::start(bench, sites)?);
    }
    memory(&mut report, &servers)?;
    processor(bench, &mut report, &servers)?;
    adoption(bench, &mut report, &servers)?;
    Ok(report)
}

/// One, a thousandth, and all.
fn sizes(most: u32) -> Vec<u32> {
    let mut sizes = vec![1, most.div_ceil(1000), most];
    sizes.dedup();
    sizes
}

struct Scaled {
    sites: u32,
    running: Running,
    publish_while: PathBuf,
    resident_kib: f64,
}

impl Scaled {
    fn start(bench: &Bench, sites: u32) -> Result<Self> {
        let begun = Instant::now();
        let name = format!("crowd-{sites}");
        let (running, publish_while) = peers::data_plane_with_crowd(bench, &name, sites)?;
        let resident_kib = running.server.resident_kib()? as f64;
        eprintln!("  {} sites made in {:.1?}", grouped(sites), begun.elapsed());
        Ok(Self {
            sites,
            running,
            publish_while,
            resident_kib,
        })
    }

    /// So many names, spread over all sites.
    fn names(&self, count: u32) -> Vec<String> {
        let count = count.min(self.sites);
        let step = self.sites / count;
        (0..count).map(|n| crowd::name(n * step)).collect()
    }
}

fn memory(report: &mut Report, servers: &[Scaled]) -> Result<()> {
    let (one, rest) = servers.split_first().context("the smallest size")?;
    for server in rest {
        let per_site =
            (server.resident_kib - one.resident_kib) / f64::from(server.sites - one.sites);
        let name = format!("memory per site, {} sites", grouped(server.sites));
        report.series.push(single(name, "KiB", vec![per_site]));
    }
    Ok(())
}

/// Visitors to one name, to many, and each to another.
fn processor(bench: &Bench, report: &mut Report, servers: &[Scaled]) -> Result<()> {
    let effort = bench.effort.fine();
    let rounds = effort.rounds.div_ceil(4) * 3;
    let mut contenders = Vec::new();
    for server in servers {
        let visited = [1, READY.min(server.sites)];
        for &visited in &visited[..if server.sites > 1 { 2 } else { 1 }] {
            let names = server.names(visited);
            // All of them are ready before the first measurement.
            handshakes(
                bench,
                &server.running,
                &names,
                effort.count.max(2 * visited),
            )?;
            let name = format!(
                "{} sites, {} visited",
                grouped(server.sites),
                grouped(visited)
            );
            contenders.push(Contender::new(name, move || {
                handshakes(bench, &server.running, &names, effort.count)
            }));
        }
    }
    let largest = &servers[servers.len() - 1];
    let mut turn = 0;
    let name = format!("{} sites, every visit another", grouped(largest.sites));
    contenders.push(Contender::new(name, move || {
        turn += 1;
        let names = strangers(largest.sites, effort.count, turn);
        handshakes(bench, &largest.running, &names, effort.count)
    }));
    let series = interleave(rounds, "µs", &mut contenders)?;
    drop(contenders);
    for other in &series[1..] {
        report.ratios.push(other.over(&series[0]));
    }
    // The last is the visit to ever another name; before it are the largest size's two.
    let count = report.ratios.len();
    let promised = report.ratios[count.saturating_sub(3)..count - 1].iter();
    let promised: Vec<_> = promised
        .map(|r| (r.name.clone(), r.summary.median))
        .collect();
    for (name, median) in promised {
        report.promise(name, 1.05, median);
    }
    curve(report, &series, servers);
    report.series.extend(series);
    Ok(())
}

/// Names that were not asked for lately: a walk through the whole table.
fn strangers(sites: u32, count: u32, turn: u32) -> Vec<String> {
    let first = u64::from(turn) * u64::from(count);
    let at = |n: u32| (first + u64::from(n)) * WALK % u64::from(sites);
    (0..count).map(|n| crowd::name(at(n) as u32)).collect()
}

fn curve(report: &mut Report, series: &[Series], servers: &[Scaled]) {
    let visits = |label: &str, which: &dyn Fn(&str) -> bool| {
        let points = servers.iter().filter_map(|server| {
            let prefix = format!("{} sites, ", grouped(server.sites));
            let of_size = |series: &&Series| series.name.strip_prefix(&prefix).is_some_and(which);
            let found = series.iter().find(of_size)?;
            Some((f64::from(server.sites), found.summary.median))
        });
        line(label, points)
    };
    let lines = vec![
        visits("all visitors to one name", &|visits| visits == "1 visited"),
        visits("to 1,000 names in turn", &|visits| {
            visits.ends_with(" visited") && visits != "1 visited"
        }),
    ];
    let title = "CPU of a stapled handshake by the number of sites";
    draw(report, "scale-names", title, "sites", "µs", lines);
}

/// How soon a published staple is with the workers: at rest with both of them, and beside visitors with
/// the one that serves them. The other one has no core for itself then: the visitors are there.
fn adoption(bench: &Bench, report: &mut Report, servers: &[Scaled]) -> Result<()> {
    let mut worst: f64 = 0.0;
    let (mut at_rest, mut beside) = (Vec::new(), Vec::new());
    for server in servers {
        let sites = grouped(server.sites);
        let quiet = publish(bench, server, None)?;
        let name = format!("publish until both workers serve it, {sites} sites, at rest");
        report.series.push(times(name, &quiet.all));
        let name = format!("the publish itself, {sites} sites");
        report.series.push(times(name, &quiet.publish));
        let busy = publish(bench, server, Some(VISITORS))?;
        let name = format!("publish until served, {sites} sites, beside {VISITORS} handshakes/s");
        report.series.push(times(name, &busy.serving));
        worst = worst.max(quiet.all.p50).max(busy.serving.p50);
        at_rest.push((f64::from(server.sites), quiet.all.p50));
        beside.push((f64::from(server.sites), busy.serving.p50));
    }
    let text = "median in ms until a published staple is served, whatever the number of sites, at rest on \
                every core and beside visitors";
    report.promise(text, 1.0, worst / 1000.0);
    report.notes.push(
        "publishes: the figure is the median, and the second one in brackets the p99 of one measurement; workers \
         are looked at about every 80 µs"
            .to_owned(),
    );
    let lines = vec![
        line("at rest, until both workers serve it", at_rest),
        line("beside 200 handshakes a second, until it is served", beside),
    ];
    let title = "From a publish until it is served, median";
    draw(report, "scale-publish", title, "sites", "µs", lines);
    Ok(())
}

fn times(name: String, times: &Times) -> Series {
    let detail = [("p99", times.p99), ("slowest", times.most)];
    let detail = detail.map(|(name, value)| (name.to_owned(), value));
    Series {
        name,
        unit: "µs",
        summary: Summary {
            median: times.p50,
            least: times.p50,
            most: times.p99,
        },
        samples: vec![Sample {
            value: times.p50,
            detail: detail.into(),
        }],
    }
}

fn publish(bench: &Bench, server: &Scaled, rate: Option<f64>) -> Result<Adoption> {
    let order = Order {
        per_second: 100,
        watched: true,
    };
    let report = Adoption::path(&server.publish_while);
    std::fs::write(&server.publish_while, serde_json::to_vec(&order)?)?;
    match rate {
        None => std::thread::sleep(bench.effort.turn / 2),
        Some(rate) => beside_visitors(bench, server, rate)?,
    }
    std::fs::remove_file(&server.publish_while)?;
    let deadline = Instant::now() + Duration::from_secs(20);
    let found = wait_for(&report, deadline)?;
    std::fs::remove_file(&report)?;
    Ok(found)
}

fn beside_visitors(bench: &Bench, server: &Scaled, rate: f64) -> Result<()> {
    let pace = open_loop(rate);
    let plan = Plan {
        names: server_names(&server.names(READY))?,
        duration: bench.effort.turn / 2,
        ..plan_for(bench, server.running.address, pace)?
    };
    bench.generate(&plan)?;
    Ok(())
}

fn wait_for(report: &Path, deadline: Instant) -> Result<Adoption> {
    loop {
        match std::fs::read(report) {
            Ok(text) => return Ok(serde_json::from_slice(&text)?),
            Err(error) if Instant::now() > deadline => {
                bail!("the publisher did not report: {error}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Handshakes a second beside publishes.
const VISITORS: f64 = 200.0;
/// Names that a core keeps ready; it has room for 4,096.
const READY: u32 = 1000;
/// From a name to the next of a walk; a prime, so that it comes by all of them.
const WALK: u64 = 7919;
