//! One page for one run or for several beside each other: plots, tables, what to know before
//! believing them. It needs nothing but itself.

use std::fmt::Write as _;

use crate::plot::{self, Line, escape};
use crate::record::Phase;
use crate::report::Report;

/// The page.
pub fn page(title: &str, reports: &[Report]) -> String {
    let mut body = format!("<h1>{}</h1>\n", escape(title));
    body += "<p>Latency until the client may trust and use the connection (<i>ready</i>), counted from when it \
             was due. Each step to the right is one nine more; lower is better.</p>\n";
    for phase in [Phase::Ready, Phase::FirstByte, Phase::Whole] {
        body += &phase_plot(phase, reports);
    }
    body += &table(reports);
    for report in reports {
        body += &one(report);
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{}</title>\n\
         <style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n",
        escape(title)
    )
}

fn phase_plot(phase: Phase, reports: &[Report]) -> String {
    let found = reports
        .iter()
        .filter_map(|report| Some((report.label.clone(), &report.phase(phase)?.curve)));
    let curves: Vec<_> = found.collect();
    if curves.is_empty() || is_over_when_ready(phase, reports) {
        return String::new();
    }
    plot::percentiles(&format!("Until {}", what(phase)), &curves)
}

/// Whether nothing came after the handshake, so that the plot of the whole would be that of *ready* again.
fn is_over_when_ready(phase: Phase, reports: &[Report]) -> bool {
    let curve = |report: &Report, phase| report.phase(phase).map(|found| found.curve.clone());
    let same = |report: &Report| curve(report, Phase::Whole) == curve(report, Phase::Ready);
    phase == Phase::Whole && reports.iter().all(same)
}

fn what(phase: Phase) -> &'static str {
    match phase {
        Phase::Ready => "the handshake is trusted (ready)",
        Phase::FirstByte => "the first byte, from the request",
        Phase::Whole => "the whole answer, from when it was due",
        other => other.name(),
    }
}

fn table(reports: &[Report]) -> String {
    let mut text = String::from(
        "<h2>Until ready, ms</h2>\n<table><tr><th></th><th>finished</th><th>failed</th><th>per s</th>\
         <th>mean</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>p99.99</th><th>max</th></tr>\n",
    );
    for report in reports {
        let _ = write!(
            text,
            "<tr><th>{}</th><td>{}</td><td>{}</td><td>{:.1}</td>",
            escape(&report.label),
            report.counts.finished,
            report.counts.failed,
            report.rate
        );
        if let Some(ready) = report.phase(Phase::Ready) {
            let _ = write!(text, "<td>{:.3}</td>", ready.mean);
            for (_, ms) in &ready.quantiles {
                let _ = write!(text, "<td>{ms:.3}</td>");
            }
        }
        text += "</tr>\n";
    }
    text + "</table>\n"
}

fn one(report: &Report) -> String {
    let mut text = format!(
        "<section><h2>{}</h2>\n<p>{}</p><p><code>{}</code></p>\n",
        escape(&report.label),
        escape(&report.what),
        escape(&report.command.join(" "))
    );
    for warning in &report.warnings {
        let _ = writeln!(text, "<p class=\"warning\">{}</p>", escape(warning));
    }
    let curves: Vec<_> = report
        .phases
        .iter()
        .map(|phase| (phase.name.clone(), &phase.curve))
        .collect();
    if !curves.is_empty() {
        text += &plot::percentiles("Phases", &curves);
    }
    if report.series.len() > 1 {
        text += &plot::over(
            "Each second: latency until ready",
            "second",
            "milliseconds",
            &[
                line(report, "p50", |second| second.p50),
                line(report, "p99", |second| second.p99),
            ],
        );
        text += &plot::over(
            "Each second: connections",
            "second",
            "per second",
            &[
                line(report, "finished", |second| second.finished as f64),
                line(report, "failed", |second| second.failed as f64),
            ],
        );
    }
    let _ = writeln!(text, "<pre>{}</pre></section>", escape(&report.table()));
    text
}

fn line(report: &Report, label: &str, of: impl Fn(&crate::SecondReport) -> f64) -> Line {
    let seconds = report.series.iter().enumerate();
    Line {
        label: label.to_owned(),
        points: seconds
            .map(|(at, second)| (at as f64, of(second)))
            .collect(),
    }
}

const STYLE: &str = "body{font:15px/1.45 sans-serif;max-width:860px;margin:2em auto;padding:0 1em;color:#222}\
    table{border-collapse:collapse;font-size:13px}td,th{padding:3px 8px;text-align:right;border-bottom:1px solid #ddd}\
    th:first-child{text-align:left}pre{font-size:12px;overflow-x:auto;background:#f6f6f6;padding:8px}\
    svg{max-width:100%;height:auto;display:block;margin:1em 0}.warning{background:#fff3cd;padding:6px 10px}\
    code{font-size:12px;overflow-wrap:anywhere}";
