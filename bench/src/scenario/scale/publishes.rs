//! Publishes a second, from none to 10,000, each of another site's staple: what they add to the
//! handshakes of a worker that takes every snapshot up meanwhile.

use anyhow::Result;

use super::{draw, grouped, handshakes, line};
use crate::bench::Bench;
use crate::crowd;
use crate::data_plane::Order;
use crate::peers;
use crate::report::Report;
use crate::rounds::{Contender, interleave};

pub(in super::super) fn run(bench: &Bench) -> Result<Report> {
    let sites = bench.effort.sites.div_ceil(100);
    let mut report = Report::new(
        "scale-publishes",
        format!(
            "µs of CPU of clinch's worker per stapled handshake, with so many publishes a second, each of \
             another of {} sites",
            grouped(sites)
        ),
    );
    let (running, publish_while) = peers::data_plane_with_crowd(bench, "publishes", sites)?;
    let effort = bench.effort.fine();
    let names = [crowd::name(0)];
    handshakes(bench, &running, &names, effort.count)?;
    let mut contenders = Vec::new();
    for per_second in RATES {
        let (running, publish_while, names) = (&running, &publish_while, &names);
        let name = format!("{} publishes/s", grouped(per_second));
        contenders.push(Contender::new(name, move || {
            let order = Order {
                per_second,
                watched: false,
            };
            if per_second > 0 {
                std::fs::write(publish_while, serde_json::to_vec(&order)?)?;
            }
            let sample = handshakes(bench, running, names, effort.count);
            if per_second > 0 {
                std::fs::remove_file(publish_while)?;
            }
            sample
        }));
    }
    let series = interleave(effort.rounds, "µs", &mut contenders)?;
    drop(contenders);
    for other in &series[1..] {
        let ratio = other.over(&series[0]);
        if other.name.starts_with("100 ") {
            report.promise(ratio.name.clone(), 1.03, ratio.summary.median);
        }
        report.ratios.push(ratio);
    }
    let points = series.iter().zip(RATES);
    let points = points.map(|(series, rate)| (f64::from(rate), series.summary.median));
    let curve = line("worker's CPU, with what it spends on snapshots", points);
    let title = "CPU of a stapled handshake by publishes a second";
    draw(
        &mut report,
        "scale-publishes",
        title,
        "publishes a second (none at 1)",
        "µs",
        vec![curve],
    );
    report.series = series;
    Ok(report)
}

const RATES: [u32; 5] = [0, 10, 100, 1000, 10_000];
