//! Whether one clinch is dearer than another: two programs, alike but for their revision, taking turns.
//!
//! The verdict rests on the ratios within rounds and on their distribution-free confidence interval
//! (see [`crate::rounds::Interval`]). A *regression* is a ratio over [`TOLERANCE`] whose whole interval
//! lies over 1; both conditions, because a small sure difference is no news, and a large unsure one is noise.

use std::path::Path;

use anyhow::Result;
use rustls::NamedGroup;

use super::{per_connection, tls, warm_up};
use crate::bench::{Bench, STAPLED};
use crate::client::Suite;
use crate::load::{Load, Pattern};
use crate::machine;
use crate::peers::{self, Running, Variant};
use crate::report::Report;
use crate::rounds::{Contender, Ratio, Series, interleave};

/// The ratio over which a difference counts as a regression.
pub const TOLERANCE: f64 = 1.05;

/// Compares `bench.clinch` with the program `base`.
pub fn run(bench: &Bench, base: &Path) -> Result<Report> {
    let mut report = Report::new(
        "compare",
        format!(
            "CPU of {} over that of {}, one core each, ratios within a round with their 95 % interval",
            bench.clinch.display(),
            base.display()
        ),
    );
    for (name, program) in [("new", bench.clinch.as_path()), ("base", base)] {
        let version = machine::output(program, &["--version"]);
        let line = format!("{name}: {version} ({})", program.display());
        report.environment.versions.push(line);
    }
    let new = start(bench, "new", &bench.clinch)?;
    let base = start(bench, "base", base)?;
    let effort = bench.effort.fine();
    for (pattern, label) in [
        (Pattern::Request, "handshake and request"),
        (Pattern::Handshake, "handshake"),
    ] {
        let mut contenders = Vec::new();
        for (which, at) in [("new", &new), ("base", &base)] {
            let mut load = tls(bench, at, STAPLED, true, pattern)?;
            load.count = effort.count;
            contenders.push(per_connection(bench, format!("{label} {which}"), at, load)?);
        }
        conclude(
            &mut report,
            interleave(effort.rounds, "µs", &mut contenders)?,
        );
    }
    let mut contenders = vec![
        per_byte(bench, "bulk to the client new", &new)?,
        per_byte(bench, "bulk to the client base", &base)?,
    ];
    let rounds = (effort.rounds / 3).max(1);
    conclude(&mut report, interleave(rounds, "ns", &mut contenders)?);
    drop(contenders);
    let mut verdicts: Vec<String> = report.ratios.iter().map(verdict).collect();
    report.notes.append(&mut verdicts);
    Ok(report)
}

/// The ratios of a report that are regressions.
pub fn regressions(report: &Report) -> impl Iterator<Item = &Ratio> {
    report.ratios.iter().filter(|ratio| is_regression(ratio))
}

fn is_regression(ratio: &Ratio) -> bool {
    let interval = ratio.interval();
    ratio.summary.median > TOLERANCE && interval.is_some_and(|interval| interval.low > 1.0)
}

fn verdict(ratio: &Ratio) -> String {
    let median = ratio.summary.median;
    let Some(interval) = ratio.interval() else {
        return format!("{}: too few rounds to judge", ratio.name);
    };
    let word = if is_regression(ratio) {
        "REGRESSION"
    } else if interval.low > 1.0 {
        "dearer, within the tolerance"
    } else if interval.high < 1.0 {
        "cheaper"
    } else {
        "no difference outside the noise"
    };
    format!(
        "{}: {median:.3}, 95 % interval {:.3} … {:.3}: {word}",
        ratio.name, interval.low, interval.high
    )
}

fn conclude(report: &mut Report, series: Vec<Series>) {
    report.ratios.push(series[0].over(&series[1]));
    report.series.extend(series);
}

fn start(bench: &Bench, name: &str, program: &Path) -> Result<Running> {
    let variant = Variant {
        name: format!("clinch-{name}"),
        program: Some(program.to_owned()),
        ..Variant::default()
    };
    peers::clinch(bench, &variant)
}

fn per_byte<'a>(bench: &'a Bench, name: &str, at: &'a Running) -> Result<Contender<'a>> {
    let client = bench.client(STAPLED, true, Suite::Aes128Gcm, NamedGroup::X25519)?;
    let load = Load {
        address: at.address,
        client: Some(client),
        pattern: Pattern::Bulk(bench.effort.bulk / 2),
        count: CONNECTIONS,
        concurrency: CONNECTIONS,
    };
    warm_up(bench, at, &load)?;
    Ok(Contender::new(name, move || {
        let (outcome, before, after) = bench.load(&at.server, &load)?;
        Ok((after.since(&before, |_| true) as f64 / outcome.bytes as f64).into())
    }))
}

const CONNECTIONS: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(values: &[f64]) -> Ratio {
        Ratio::new("new ÷ base", values, &vec![1.0; values.len()])
    }

    #[test]
    fn only_a_large_and_sure_difference_is_a_regression() {
        let sure = ratio(&[1.08, 1.10, 1.09, 1.07, 1.11, 1.10, 1.09, 1.08]);
        let noisy = ratio(&[0.7, 1.5, 0.8, 1.6, 1.1, 1.09, 1.2, 0.9]);
        let small = ratio(&[1.02, 1.03, 1.02, 1.03, 1.02, 1.03, 1.02, 1.03]);
        assert!(is_regression(&sure));
        assert!(!is_regression(&noisy));
        assert!(!is_regression(&small));
        assert!(verdict(&small).contains("within the tolerance"));
    }

    #[test]
    fn one_round_judges_nothing() {
        assert!(!is_regression(&ratio(&[3.0])));
        assert!(verdict(&ratio(&[3.0])).contains("too few rounds"));
    }
}
