//! mimalloc against the system's allocator, under the same workers: the choice that clinch made once.

use std::path::Path;

use anyhow::{Result, ensure};

use super::{idle, per_connection, tls};
use crate::bench::{Bench, STAPLED};
use crate::load::Pattern;
use crate::peers;
use crate::report::Report;
use crate::rounds::{Contender, interleave};

/// Measures this program's workers beside those of `other`: this program built with the feature
/// `system-allocator`.
pub fn run(bench: &Bench, other: &Path) -> Result<Report> {
    ensure!(other.exists(), "no program at {}", other.display());
    let mut report = Report::new(
        "allocator",
        "clinch's workers with mimalloc and with the allocator of the system (glibc): µs of CPU \
         per connection, KiB per idle connection",
    );
    let own = std::env::current_exe()?;
    let programs = [("mimalloc", own.as_path()), ("system", other)];
    let running = programs
        .iter()
        .map(|(name, program)| Ok((*name, peers::data_plane(bench, name, program)?.0)))
        .collect::<Result<Vec<_>>>()?;
    let mut contenders = Vec::new();
    for (name, at) in &running {
        let load = tls(bench, at, STAPLED, true, Pattern::Request)?;
        contenders.push(per_connection(bench, format!("{name} req"), at, load)?);
    }
    let cpu = interleave(bench.effort.rounds, "µs", &mut contenders)?;
    drop(contenders);
    drop(running);
    let mut contenders: Vec<_> = programs
        .iter()
        .map(|(name, program)| {
            Contender::new(format!("{name} idle"), move || {
                let (at, _) = peers::data_plane(bench, &format!("{name}-idle"), program)?;
                idle::measure(bench, &at, true)
            })
        })
        .collect();
    let memory = interleave(bench.effort.rounds.min(3), "KiB", &mut contenders)?;
    drop(contenders);
    report.ratios = vec![cpu[0].over(&cpu[1]), memory[0].over(&memory[1])];
    report.series = cpu.into_iter().chain(memory).collect();
    Ok(report)
}
