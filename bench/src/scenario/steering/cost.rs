//! CPU per handshake and latency with steering on against off, two workers each. The server's own CPU
//! does not show what happens to packets in the kernel, which on a loopback is done on the client's
//! time; so the CPU of the whole machine is measured, too.

use anyhow::{Context, Result, ensure};
use clinch::cli::demo::authority::KeyAlgorithm;
use clinch_load::{Pace, Phase, Plan, Revocation};
use rustls::pki_types::ServerName;

use super::super::{open_loop, plan_for};
use super::server::{self, Sites};
use crate::bench::Bench;
use crate::peers::Running;
use crate::process::Awake;
use crate::report::Report;
use crate::rounds::{Contender, Ratio, Sample, interleave};

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "steering",
        "µs of the server's CPU per connection (full TLS 1.3 handshake, X25519, closed loop, two workers, two \
         names on either's core), and ms until the handshake is complete at 400/s (open loop, random arrivals), also with \
         cores that never halt",
    );
    let mut sites = Sites::new(bench, "steering-cost")?;
    for (name, core) in [("a.bench.test", 0), ("b.bench.test", 1)] {
        sites.add(name, KeyAlgorithm::P256, &format!("cores = [{core}]\n"))?;
    }
    let on = server::start(bench, "steering-on", &sites, true)?;
    let off = server::start(bench, "steering-off", &sites, false)?;
    let both = [("on", &on), ("off", &off)];
    let mut contenders = Vec::new();
    for (name, at) in both {
        cpu(bench, at, &sites)?;
        let sites = &sites;
        contenders.push(Contender::new(format!("CPU, steering {name}"), move || {
            cpu(bench, at, sites)
        }));
    }
    let rounds = match bench.effort.rounds {
        1 => 1,
        rounds => rounds * FINER,
    };
    let series = interleave(rounds, "µs", &mut contenders)?;
    drop(contenders);
    let ratio = series[0].over(&series[1]);
    report.promise("the server's CPU, on ÷ off", 1.03, ratio.summary.median);
    let whole = |at: usize| -> Vec<f64> {
        let samples = series[at].samples.iter();
        samples.map(|sample| sample.detail[MACHINE]).collect()
    };
    let name = "CPU of the whole machine, client and kernel included, on ÷ off";
    let all = Ratio::new(name, &whole(0), &whole(1));
    report.ratios.extend([ratio, all]);
    report.series.extend(series);

    waits(bench, &sites, both, rounds, "", &mut report)?;
    let awake = Awake::start()?;
    waits(bench, &sites, both, rounds, ", cores awake", &mut report)?;
    drop(awake);
    Ok(report)
}

/// The waits of both in turns, and what was promised of them.
fn waits(
    bench: &Bench,
    sites: &Sites,
    both: [(&str, &Running); 2],
    rounds: u32,
    how: &str,
    report: &mut Report,
) -> Result<()> {
    let mut contenders = both.map(|(name, at)| {
        let name = format!("wait, steering {name}{how}");
        Contender::new(name, move || wait(bench, at, sites))
    });
    let series = interleave(rounds, "ms", &mut contenders)?;
    let ratio = series[0].over(&series[1]);
    let name = format!("p50 of the wait{how}, on ÷ off");
    report.promise(name, 1.05, ratio.summary.median);
    report.ratios.push(ratio);
    report.series.extend(series);
    Ok(())
}

fn plan(bench: &Bench, at: &Running, sites: &Sites, pace: Pace) -> Result<Plan> {
    let names = sites.list.iter();
    let names = names.map(|(name, _)| ServerName::try_from(name.clone()));
    Ok(Plan {
        names: names.collect::<Result<_, _>>()?,
        revocation: Revocation::Ignore,
        ..plan_for(bench, at.address, pace)?
    })
}

fn cpu(bench: &Bench, at: &Running, sites: &Sites) -> Result<Sample> {
    let pace = Pace::Closed {
        clients: bench.effort.concurrency,
    };
    let mut plan = plan(bench, at, sites, pace)?;
    plan.count = Some(u64::from(bench.effort.count.div_ceil(2)));
    plan.duration = std::time::Duration::from_secs(60);
    let (before, busy) = (bench.run(at.server.settled_cpu())?, busy_micros()?);
    let outcome = bench.generate(&plan)?;
    let (busy, after) = (busy_micros()? - busy, bench.run(at.server.settled_cpu())?);
    let recorder = &outcome.recorder;
    let finished = recorder.counts.finished as f64;
    let mut sample = Sample::from(after.since(&before, |_| true) as f64 / 1000.0 / finished);
    sample.detail.insert(MACHINE.to_owned(), busy / finished);
    sample.detail.insert("finished".to_owned(), finished);
    Ok(sample)
}

fn wait(bench: &Bench, at: &Running, sites: &Sites) -> Result<Sample> {
    let pace = open_loop(400.0);
    let mut plan = plan(bench, at, sites, pace)?;
    plan.duration = bench.effort.turn / 6;
    plan.warm_up = bench.effort.turn / 30;
    let outcome = bench.generate(&plan)?;
    let recorder = &outcome.recorder;
    let ready = recorder.histogram(Phase::Ready);
    let ms = |q| ready.value_at_quantile(q) as f64 / 1e6;
    let mut sample = Sample::from(ms(0.5));
    sample.detail.extend([
        ("p90 ms".to_owned(), ms(0.9)),
        ("p99 ms".to_owned(), ms(0.99)),
    ]);
    for (phase, name) in [(Phase::Connect, "connect"), (Phase::Handshake, "handshake")] {
        let median = recorder.histogram(phase).value_at_quantile(0.5) as f64 / 1e6;
        sample.detail.insert(format!("{name} p50 ms"), median);
    }
    Ok(sample)
}

/// What all cores spent on anything but idling, from /proc/stat, in µs; it counts ticks of 10 ms.
fn busy_micros() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks = line.split_whitespace().skip(1).map(str::parse::<f64>);
    let ticks: Vec<f64> = ticks.collect::<Result<_, _>>()?;
    ensure!(ticks.len() > 6, "/proc/stat: {line}");
    // user, nice, system, then idle and iowait, then irq and softirq.
    Ok((ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) * 10_000.0)
}

/// Turns are this many times as many as rounds were asked for, and short: what is looked for is a few
/// per cent, and the machine drifts by more.
const FINER: u32 = 4;

const MACHINE: &str = "µs of the machine";
