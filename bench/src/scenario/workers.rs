//! Whether a second worker makes handshakes dearer, as it would if workers shared what they write.

use anyhow::Result;

use super::{per_connection, tls};
use crate::bench::{Bench, STAPLED};
use crate::load::Pattern;
use crate::machine::{CLIENT_CORE, SERVER_CORE};
use crate::peers::{self, Running, Variant};
use crate::report::Report;
use crate::rounds::{Ratio, interleave};

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "workers",
        "µs of CPU per connection (req, stapled) of clinch with one worker and with two",
    );
    let effort = bench.effort.fine();
    let one = start(bench, "one", 1, SERVER_CORE)?;
    let crowded = start(bench, "crowded", 1, CLIENT_CORE)?;
    let two = start(bench, "two", 2, SERVER_CORE)?;
    let mut contenders = Vec::new();
    for (name, at) in [
        ("one worker", &one),
        ("one worker on the client's core", &crowded),
        ("two workers", &two),
    ] {
        let mut load = tls(bench, at, STAPLED, true, Pattern::Request)?;
        load.count = effort.count;
        contenders.push(per_connection(bench, name, at, load)?);
    }
    let series = interleave(effort.rounds, "µs", &mut contenders)?;
    drop(contenders);
    let ratio = series[2].over(&series[0]);
    report.promise(ratio.name.clone(), 1.1, ratio.summary.median);
    report.ratios.push(ratio);
    let alone = series[0].values();
    let beside = series[1].values();
    let mean: Vec<f64> = alone
        .iter()
        .zip(&beside)
        .map(|(a, b)| (a + b) / 2.0)
        .collect();
    let name = "two workers ÷ mean of one worker on either core";
    report
        .ratios
        .push(Ratio::new(name, &series[2].values(), &mean));
    report.series = series;
    let note = "for want of a third core the second worker shares core 1 with client and backend; \
                the ratio to the mean leaves that out";
    report.notes.push(note.to_owned());
    Ok(report)
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
