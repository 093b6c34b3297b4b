//! What a visitor waits: handshakes with a staple, without any check, and with client-side OCSP at
//! three distances of the responder, in open and closed loop, taking turns; and the server's CPU for each.
//!
//! The distance is made in DNS server and responder, each of which answers one round trip late. A real
//! network takes a third one, for the TCP connection between the two, which the loopback cannot delay
//! here: client-side OCSP is spared it. Every staple and answer is verified (each distinct one once, see
//! [`clinch_load::Check::Distinct`]), and so is the chain.

use std::time::Duration;

use anyhow::Result;
use clinch_load::{Outcome, Pace, Phase, Plan, Report as LoadReport, Resolver, Revocation, html};
use rustls::pki_types::ServerName;

use super::{open_loop, plan_for};
use crate::bench::{Bench, PLAIN, STAPLED};
use crate::peers::{self, Running, Variant};
use crate::report::Report;
use crate::rounds::{Contender, Ratio, Sample, Series, interleave};

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "headline",
        format!(
            "ms until the client may trust the connection (median of each turn of {:?}): full TLS 1.3 handshake, \
             X25519; open loop of {RATE}/s, random arrivals; closed loop of {CLIENTS} clients",
            bench.effort.turn
        ),
    );
    let clinch = peers::clinch(bench, &Variant::default())?;
    for (label, pace) in [
        ("open", open_loop(RATE)),
        ("closed", Pace::Closed { clients: CLIENTS }),
    ] {
        one_pace(bench, &clinch, label, pace, &mut report)?;
    }
    bench.distance.set(Duration::ZERO);
    Ok(report)
}

/// Who waits for what.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Staple,
    Nothing,
    /// Client-side OCSP over so many milliseconds.
    Client(u64),
}

const ALL: [Who; 5] = [
    Who::Staple,
    Who::Nothing,
    Who::Client(5),
    Who::Client(20),
    Who::Client(80),
];

impl Who {
    fn name(self) -> String {
        match self {
            Self::Staple => "with staple".to_owned(),
            Self::Nothing => "without".to_owned(),
            Self::Client(ms) => format!("client-side OCSP, {ms} ms"),
        }
    }

    fn plan(self, bench: &Bench, clinch: &Running, pace: Pace) -> Result<Plan> {
        let site = &bench.sites[if self == Self::Nothing {
            PLAIN
        } else {
            STAPLED
        }];
        Ok(Plan {
            names: vec![ServerName::try_from(site.name.clone())?],
            revocation: match self {
                Self::Staple => Revocation::Staple,
                Self::Nothing => Revocation::Ignore,
                Self::Client(_) => Revocation::Client(Resolver::Server(bench.dns)),
            },
            warm_up: bench.effort.turn / 8,
            ..plan_for(bench, clinch.address, pace)?
        })
    }
}

fn one_pace(
    bench: &Bench,
    clinch: &Running,
    label: &str,
    pace: Pace,
    report: &mut Report,
) -> Result<()> {
    let mut outcomes: Vec<Option<Outcome>> = ALL.iter().map(|_| None).collect();
    let mut contenders = Vec::new();
    for (who, all) in ALL.into_iter().zip(&mut outcomes) {
        let plan = who.plan(bench, clinch, pace)?;
        let name = format!("{label} {}", who.name());
        contenders.push(Contender::new(name, move || {
            turn(bench, clinch, who, &plan, all)
        }));
    }
    // A turn is long, so there are few.
    let series = interleave(bench.effort.rounds.min(ROUNDS), "ms", &mut contenders)?;
    drop(contenders);
    conclude(report, label, &series);
    report.series.extend(series);
    let mut runs = Vec::new();
    for (who, outcome) in ALL.into_iter().zip(&outcomes) {
        let outcome = outcome.as_ref().expect("every contender had a turn");
        let plan = who.plan(bench, clinch, pace)?;
        let run = LoadReport::new(&who.name(), &plan, outcome);
        let doubts = run.warnings.iter();
        report
            .notes
            .extend(doubts.map(|doubt| format!("{label} {}: {doubt}", who.name())));
        let ready = outcome.recorder.histogram(Phase::Ready);
        let name = match who {
            Who::Staple => "staple".to_owned(),
            Who::Nothing => "without".to_owned(),
            Who::Client(ms) => format!("client-{ms}"),
        };
        let file = format!("headline-{label}-{name}.hgrm");
        report.files.push((file, clinch_load::hgrm(ready)));
        runs.push(run);
    }
    attach(report, label, &runs)
}

/// One turn: the median is the figure, percentiles and the server's CPU are details.
fn turn(
    bench: &Bench,
    clinch: &Running,
    who: Who,
    plan: &Plan,
    all: &mut Option<Outcome>,
) -> Result<Sample> {
    bench.distance.set(match who {
        Who::Client(ms) => Duration::from_millis(ms),
        _ => Duration::ZERO,
    });
    let before = bench.run(clinch.server.settled_cpu())?;
    let outcome = bench.generate(plan)?;
    let after = bench.run(clinch.server.settled_cpu())?;
    let recorder = &outcome.recorder;
    let ready = recorder.histogram(Phase::Ready);
    let ms = |q| ready.value_at_quantile(q) as f64 / 1e6;
    let mut sample = Sample::from(ms(0.5));
    // The warm-up's handshakes cost as much, and are no part of the counts.
    let share = plan.duration.as_secs_f64() / (plan.duration + plan.warm_up).as_secs_f64();
    let cpu = after.since(&before, |_| true) as f64 / 1000.0;
    let handshakes = recorder.counts.finished as f64 / share;
    sample.detail.extend([
        ("p90 ms".to_owned(), ms(0.9)),
        ("p99 ms".to_owned(), ms(0.99)),
        ("p99.9 ms".to_owned(), ms(0.999)),
        ("finished".to_owned(), recorder.counts.finished as f64),
        (CPU.to_owned(), cpu / handshakes),
    ]);
    match all {
        Some(all) => all.follow(&outcome),
        None => *all = Some(outcome),
    }
    Ok(sample)
}

fn conclude(report: &mut Report, label: &str, series: &[Series]) {
    let [staple, without, rest @ ..] = series else {
        return;
    };
    let p50 = staple.over(without);
    let cpu = |series: &Series| -> Vec<f64> {
        let samples = series.samples.iter();
        samples.map(|sample| sample.detail[CPU]).collect()
    };
    let name = format!("{label}: CPU with staple ÷ without");
    let cpu = Ratio::new(name, &cpu(staple), &cpu(without));
    report.ratios.extend([p50, cpu]);
    for (client, who) in rest.iter().zip(&ALL[2..]) {
        let ratio = staple.over(client);
        if label == "open" && *who == Who::Client(20) {
            let text = "p50 with a staple ÷ client-side OCSP at 20 ms (one thirtieth)";
            report.promise(text, 1.0 / 30.0, ratio.summary.median);
        }
        report.ratios.push(ratio);
    }
}

/// The page and the raw distributions; pictures are made of these.
fn attach(report: &mut Report, label: &str, runs: &[LoadReport]) -> Result<()> {
    let title = format!("Handshakes with clinch, {label} loop");
    let json = serde_json::to_string_pretty(runs)? + "\n";
    report.files.extend([
        (format!("headline-{label}.html"), html::page(&title, runs)),
        (format!("headline-{label}-runs.json"), json),
    ]);
    Ok(())
}

/// Arrivals a second: a third of what one core of the slowest machine measured so far can serve, so
/// that no queue adds to the latency.
const RATE: f64 = 200.0;
/// Clients of the closed loop.
const CLIENTS: u32 = 8;
/// Turns of each contender.
const ROUNDS: u32 = 3;
/// Detail of a sample.
const CPU: &str = "server µs of CPU per handshake";
