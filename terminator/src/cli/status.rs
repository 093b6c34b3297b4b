//! `clinch status`: asks the running process how it is and prints it as tables, as JSON or as metrics.

use std::fmt::Write;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context;

use super::admin::Target;
use crate::clock;
use crate::control::Status;
use crate::control::status::{CertificateStatus, StapleStatus};
use crate::observability::report::{Report, WorkerReport};

/// Show what the running process serves and what it staples.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
        clinch status\n  \
        clinch status --json | jq '.control.certificates[] | {subject, staple, last_error}'\n  \
        clinch status --metrics | grep clinch_staplings\n\n\
        Exit codes:\n  \
        0  printed\n  \
        1  no running process answered\n  \
        2  wrong usage")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,

    /// Print everything as JSON
    #[arg(long)]
    json: bool,

    /// Print the metrics instead, as Prometheus reads them (OpenMetrics)
    #[arg(long, conflicts_with = "json")]
    metrics: bool,
}

/// Asks and prints.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let path = if args.metrics { "/metrics" } else { "/status" };
    let answer = args.target.ask_for(path)?;
    if args.json || args.metrics {
        std::io::stdout().write_all(&answer.body)?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = answer.read().context("--json prints it as it is")?;
    std::io::stdout().write_all(page(&report, clock::now()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn page(report: &Report, at: SystemTime) -> String {
    let mut page = heading(report);
    page.push('\n');
    page += &table(
        &[
            "worker",
            "core",
            "generation",
            "active",
            "handshakes",
            "resumed",
            "stapled",
            "failed",
            "up",
            "down",
        ],
        report.workers.iter().map(worker_row),
    );
    let Some(control) = &report.control else {
        return page + "\ncontrol does not answer: nothing is known of the certificates\n";
    };
    page.push('\n');
    page += &table(
        &[
            "certificate",
            "staple",
            "ends in",
            "next fetch",
            "expires in",
            "sites",
        ],
        control.certificates.iter().map(|c| certificate_row(c, at)),
    );
    page + &remarks(control)
}

fn heading(report: &Report) -> String {
    let phase = serde_json::to_value(report.phase);
    let phase = phase.as_ref().ok().and_then(|p| p.as_str()).unwrap_or("?");
    let mut text = format!(
        "clinch {}, process {}, {phase} for {}\n",
        report.version,
        report.pid,
        span(Duration::from_secs(report.uptime_seconds))
    );
    for listener in &report.listeners {
        let passed = match listener.passed {
            true => " (socket passed by the service manager)",
            false => "",
        };
        let _ = writeln!(
            text,
            "listen {} {}{passed}",
            listener.name, listener.address
        );
    }
    let _ = writeln!(text, "steering {}", report.steering_mode);
    if let Some(ktls) = &report.ktls {
        let taken: u64 = report.workers.iter().map(|worker| worker.ktls).sum();
        let _ = writeln!(text, "kTLS {ktls}; {taken} connections");
    }
    if let Some(control) = &report.control {
        let _ = writeln!(
            text,
            "snapshot generation {}, configuration {}, {} sites, egress {:?}",
            control.generation,
            control.epoch,
            control.sites.len(),
            control.egress
        );
    }
    text
}

fn worker_row(worker: &WorkerReport) -> Vec<String> {
    let index = match worker.alive {
        true => worker.index.to_string(),
        false => format!("{} ENDED", worker.index),
    };
    vec![
        index,
        worker.core.map_or("-".to_owned(), |core| core.to_string()),
        worker.generation.to_string(),
        format!("{}/{}", worker.active, worker.capacity),
        worker.handshakes.to_string(),
        worker.resumed.to_string(),
        worker.stapled.to_string(),
        worker.handshake_failures.to_string(),
        bytes(worker.bytes_up),
        bytes(worker.bytes_down),
    ]
}

fn certificate_row(certificate: &CertificateStatus, at: SystemTime) -> Vec<String> {
    let mut staple = match certificate.staple {
        StapleStatus::NotApplicable => "none to get",
        StapleStatus::Missing => "MISSING",
        StapleStatus::Stapled => "valid",
        StapleStatus::Expired => "EXPIRED",
        StapleStatus::Revoked => "REVOKED",
    }
    .to_owned();
    if certificate.must_staple {
        staple += " (must-staple)";
    }
    vec![
        certificate.subject.clone(),
        staple,
        until(certificate.staple_not_after, at),
        until(certificate.next_fetch, at),
        until(Some(certificate.not_after), at),
        certificate.sites.join(","),
    ]
}

fn remarks(control: &Status) -> String {
    let mut text = String::new();
    for certificate in &control.certificates {
        if let Some(error) = &certificate.last_error {
            let _ = writeln!(
                text,
                "{}: {} failures in a row: {error}",
                certificate.subject, certificate.failures
            );
        }
    }
    if let Some(error) = &control.last_reload_error {
        let _ = writeln!(text, "the last reload was refused: {error}");
    }
    match text.is_empty() {
        true => text,
        false => format!("\n{text}"),
    }
}

/// Columns as wide as their widest cell.
pub(super) fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head = head.iter().map(|cell| (*cell).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:width$}  "))
            .collect();
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

pub(super) fn until(instant: Option<SystemTime>, at: SystemTime) -> String {
    match instant.map(|instant| instant.duration_since(at)) {
        None => "-".to_owned(),
        Some(Ok(left)) => span(left),
        Some(Err(past)) => format!("past {}", span(past.duration())),
    }
}

/// A duration in its two largest units.
fn span(duration: Duration) -> String {
    let whole = humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string();
    let units: Vec<&str> = whole.split(' ').take(2).collect();
    units.join(" ")
}

fn bytes(n: u64) -> String {
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < BYTE_UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{n} B"),
        _ => format!("{value:.1} {}", BYTE_UNITS[unit]),
    }
}

const BYTE_UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observability::report::tests::{certificate, status};
    use crate::observability::{Instance, Phase, WorkerView};
    use std::sync::Arc;

    #[test]
    fn what_is_wrong_stands_out_with_its_reason() {
        let instance = Instance::new(
            vec![WorkerView::new(Some(0), 500, Arc::default())],
            Vec::new(),
            Arc::default(),
        );
        instance.enter(Phase::Serving);
        let mut missing = certificate(StapleStatus::Missing);
        missing.must_staple = true;
        missing.failures = 3;
        missing.last_error = Some("the responder timed out".to_owned());
        let mut control = status(vec![certificate(StapleStatus::Stapled), missing]);
        control.last_reload_error = Some("no such file".to_owned());
        let report = Report::of(&instance, Some(control));
        let page = page(&report, SystemTime::now());
        for part in [
            "serving for 0s",
            "steering reuseport",
            "0/500",
            "MISSING (must-staple)",
            "3 failures in a row: the responder timed out",
            "the last reload was refused: no such file",
            "egress Ready",
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "b".to_owned()]];
        assert_eq!(
            table(&["long", "x"], rows.into_iter()),
            "long  x\na     b\n"
        );
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(span(Duration::from_secs(90_061)), "1day 1h");
        let at = SystemTime::now();
        assert_eq!(until(Some(at - Duration::from_secs(5)), at), "past 5s");
        assert_eq!(until(None, at), "-");
    }
}
