//! How cost grows: with names, with connections held, with publishes and with refreshes a second. (With
//! workers: `workers`.) Each scenario draws a curve of what it found.

mod connections;
mod names;
mod publishes;
mod refreshes;

use anyhow::{Result, ensure};
use clinch_load::{Pace, Plan, Revocation};
use rustls::pki_types::ServerName;

use super::plan_for;
use crate::bench::Bench;
use crate::peers::Running;
use crate::pictures::Curve;
use crate::report::Report;
use crate::rounds::{Sample, Series, Summary};

/// CPU per handshake, memory, and time until a staple is published, for 1 to 1,000,000 sites.
pub(super) fn names(bench: &Bench) -> Result<Report> {
    names::run(bench)
}

/// CPU per handshake and memory beside up to 50,000 connections that are held.
pub(super) fn connections(bench: &Bench) -> Result<Report> {
    connections::run(bench)
}

/// CPU per handshake beside up to 10,000 publishes a second.
pub(super) fn publishes(bench: &Bench) -> Result<Report> {
    publishes::run(bench)
}

/// CPU per handshake beside up to 100 refreshes a second, and what a refresh takes.
pub(super) fn refreshes(bench: &Bench) -> Result<Report> {
    refreshes::run(bench)
}

/// Stapled handshakes in a closed loop, one name after the other: CPU of the workers for each, µs. The
/// client wants a staple and does not verify it: that would make it slow where names are many, and a
/// worker that waits for its clients wakes more often and is the dearer for it.
fn handshakes(bench: &Bench, at: &Running, names: &[String], count: u32) -> Result<Sample> {
    let clients = bench.effort.concurrency;
    let plan = Plan {
        names: server_names(names)?,
        revocation: Revocation::Ignore,
        count: Some(count.into()),
        duration: std::time::Duration::from_secs(120),
        ..plan_for(bench, at.address, Pace::Closed { clients })?
    };
    let before = bench.run(at.server.settled_cpu())?;
    let outcome = bench.generate(&plan)?;
    let after = bench.run(at.server.settled_cpu())?;
    let recorder = &outcome.recorder;
    ensure!(
        outcome.staples == recorder.counts.finished,
        "{} staples in {} handshakes",
        outcome.staples,
        recorder.counts.finished
    );
    let spent = after.since(&before, |name| name.starts_with("worker-"));
    Ok((spent as f64 / 1000.0 / recorder.counts.finished as f64).into())
}

fn server_names(names: &[String]) -> Result<Vec<ServerName<'static>>> {
    let names = names.iter();
    let names = names.map(|name| ServerName::try_from(name.clone()));
    Ok(names.collect::<Result<_, _>>()?)
}

/// A detail of each sample as a series of its own.
fn by_detail(series: &Series, detail: &str, name: String, unit: &'static str) -> Series {
    let values = series.samples.iter().map(|sample| sample.detail[detail]);
    single(name, unit, values.collect())
}

fn single(name: String, unit: &'static str, values: Vec<f64>) -> Series {
    Series {
        name,
        unit,
        summary: Summary::of(values.iter().copied()),
        samples: values.into_iter().map(Sample::from).collect(),
    }
}

/// A curve over a logarithmic axis, for the report.
fn draw(report: &mut Report, file: &str, title: &str, x: &str, y: &str, lines: Vec<Line>) {
    report.curves.push(Curve {
        file: file.to_owned(),
        title: title.to_owned(),
        x: x.to_owned(),
        y: y.to_owned(),
        lines,
    });
}

/// Label and points.
type Line = (String, Vec<(f64, f64)>);

fn line(label: &str, points: impl IntoIterator<Item = (f64, f64)>) -> Line {
    (label.to_owned(), points.into_iter().collect())
}

/// 1,000,000 as people read it.
fn grouped(value: u32) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
