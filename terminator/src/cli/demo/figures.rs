//! The figures of the running demo: a table that is drawn over on a terminal, or a line now and then.

use std::time::SystemTime;

use crate::control::status::{CertificateStatus, StapleStatus};
use crate::observability::report::{Report, WorkerReport};

/// Remembers what was drawn, so that it can be drawn over.
#[derive(Default)]
pub(super) struct Shown {
    lines: usize,
}

impl Shown {
    /// The text to print next: on a terminal it takes the place of the last one.
    pub(super) fn next(&mut self, report: &Report, queries: u64, live: bool) -> String {
        if !live {
            return line(report, queries);
        }
        let table = table(report, queries, SystemTime::now());
        // Cursor up and erase to the end of the screen (ECMA-48 CUU and ED).
        let back = match self.lines {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        };
        self.lines = table.lines().count();
        back + &table
    }
}

fn line(report: &Report, queries: u64) -> String {
    let sum = |of: fn(&WorkerReport) -> u64| report.workers.iter().map(of).sum::<u64>();
    let (valid, wanted) = report.stapled_at(SystemTime::now());
    format!(
        "handshakes {} (stapled {}, resumed {}, failed {}), open {}, bytes up {} down {}, generation {}, staples {valid} of {wanted}, queries to the responder {queries}\n",
        sum(|w| w.handshakes),
        sum(|w| w.stapled),
        sum(|w| w.resumed),
        sum(|w| w.handshake_failures),
        sum(|w| w.active),
        sum(|w| w.bytes_up),
        sum(|w| w.bytes_down),
        report
            .control
            .as_ref()
            .map_or(0, |control| control.generation),
    )
}

fn table(report: &Report, queries: u64, now: SystemTime) -> String {
    let mut lines = vec![format!(
        "{:>6} {:>4} {:>10} {:>7} {:>7} {:>6} {:>5} {:>11} {:>11}",
        "worker", "core", "handshakes", "stapled", "resumed", "failed", "open", "bytes up", "down"
    )];
    lines.extend(report.workers.iter().map(|w| {
        let core = w.core.map_or("-".to_owned(), |core| core.to_string());
        format!(
            "{:>6} {core:>4} {:>10} {:>7} {:>7} {:>6} {:>5} {:>11} {:>11}",
            w.index,
            w.handshakes,
            w.stapled,
            w.resumed,
            w.handshake_failures,
            w.active,
            w.bytes_up,
            w.bytes_down
        )
    }));
    let control = report.control.iter();
    lines.extend(
        control
            .flat_map(|control| &control.certificates)
            .map(|certificate| format!("{:22} {}", certificate.subject, staple(certificate, now))),
    );
    lines.push(format!(
        "generation {}, queries to the responder: {queries}",
        report
            .control
            .as_ref()
            .map_or(0, |control| control.generation)
    ));
    // A line that wraps would be two on the screen, and the next drawing one too low.
    lines
        .into_iter()
        .map(|line| line.chars().take(COLUMNS).chain(['\n']).collect::<String>())
        .collect()
}

fn staple(certificate: &CertificateStatus, now: SystemTime) -> String {
    let until = |at: Option<SystemTime>| at.and_then(|at| at.duration_since(now).ok());
    match certificate.staple {
        StapleStatus::Stapled => {
            let left = until(certificate.next_update).map_or(0, |left| left.as_secs());
            let fetch = until(certificate.next_fetch)
                .map_or("now".to_owned(), |left| format!("in {} s", left.as_secs()));
            format!("stapled, nextUpdate in {left} s, asked again {fetch}")
        }
        StapleStatus::NotApplicable => "nothing to staple".to_owned(),
        StapleStatus::Revoked => "revoked".to_owned(),
        StapleStatus::Missing | StapleStatus::Expired => format!(
            "no valid staple: {}",
            certificate.last_error.as_deref().unwrap_or("not asked yet")
        ),
    }
}

/// Width of a terminal that everybody has.
const COLUMNS: usize = 79;
