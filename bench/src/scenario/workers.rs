//! Whether a second worker makes handshakes dearer, as it would if workers shared what they write.

use anyhow::Result;

use super::{per_connection, tls};
use crate::bench::{Bench, STAPLED};
use crate::load::Pattern;
use crate::peers::{self, Variant};
use crate::report::Report;
use crate::rounds::interleave;

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "workers",
        "µs of CPU per connection (req, stapled) of clinch with one worker and with two",
    );
    let one = peers::clinch(bench, &Variant::default())?;
    let two = Variant {
        name: "clinch-two".to_owned(),
        workers: 2,
        program: None,
    };
    let two = peers::clinch(bench, &two)?;
    let mut contenders = Vec::new();
    for (name, at) in [("one worker", &one), ("two workers", &two)] {
        let load = tls(bench, at, STAPLED, true, Pattern::Request)?;
        contenders.push(per_connection(bench, name, at, load)?);
    }
    let series = interleave(bench.effort.rounds, "µs", &mut contenders)?;
    drop(contenders);
    let ratio = series[1].over(&series[0]);
    report.promise(ratio.name.clone(), 1.1, ratio.summary.median);
    report.ratios.push(ratio);
    report.series = series;
    let note = "the second worker shares core 1 with client and backend, for want of a third core";
    report.notes.push(note.to_owned());
    Ok(report)
}
