//! What a staple costs: two sites of one clinch, alike but for the staple, taking turns.

use anyhow::Result;

use super::{per_connection, site, tls};
use crate::bench::Bench;
use crate::load::Pattern;
use crate::peers::{self, Variant};
use crate::report::Report;
use crate::rounds::interleave;

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "staple",
        "µs of CPU per connection of one clinch, for its site with a staple and its site without",
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
        report.promise(ratio.name.clone(), 1.03, ratio.summary.median);
        report.ratios.push(ratio);
        report.series.extend(series);
    }
    Ok(report)
}
