//! The results as a page: one row for each fault, one column for each server, and a summary.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::faults::{Fault, Kind};
use super::servers::Server;
use super::watch::{Cell, Seen};
use super::{Outcome, Times};

/// What is kept of a run, beside the page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    /// By the key of the server.
    pub servers: BTreeMap<String, Column>,
}

/// One server's results.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Column {
    /// What it said of itself.
    pub version: String,
    /// Seconds that each fault was on.
    pub fault_seconds: u64,
    /// Seconds that recovery was waited for.
    pub recovery_seconds: u64,
    /// In the order of the rows.
    pub outcomes: Vec<Outcome>,
}

impl Column {
    /// Of a run.
    pub fn new(server: Server, times: Times, outcomes: Vec<Outcome>) -> Self {
        Self {
            version: server.version(),
            fault_seconds: times.fault.as_secs(),
            recovery_seconds: times.recovery.as_secs(),
            outcomes,
        }
    }

    fn cell(&self, fault: &str) -> Option<&Cell> {
        let outcome = self.outcomes.iter().find(|outcome| outcome.fault == fault);
        outcome.map(|outcome| &outcome.cell)
    }
}

/// What clinch promised and did not keep, in words.
pub fn broken_promises(column: &Column) -> Vec<String> {
    let mut broken = Vec::new();
    for Outcome { fault, cell } in &column.outcomes {
        if let Some(wrong) = cell.seen.iter().find(|seen| is_wrong(seen)) {
            broken.push(format!("{fault}: a wrong staple ({wrong:?})"));
        }
        if let Some(stall) = cell.stall {
            broken.push(format!("{fault}: a handshake took {stall:?}"));
        }
    }
    broken
}

/// The page, in Markdown.
pub fn render(record: &Record) -> String {
    let servers: Vec<(Server, &Column)> = Server::ALL
        .iter()
        .filter_map(|server| Some((*server, record.servers.get(server.key())?)))
        .collect();
    let mut page = INTRODUCTION.to_owned();
    for (server, column) in &servers {
        let _ = writeln!(page, "- {}: {}", server.name(), column.version);
    }
    page.push_str(SUMMARY);
    summary(&mut page, &servers);
    page.push_str(READING);
    if let Some((_, column)) = servers.first() {
        let _ = writeln!(
            page,
            "Each fault was on for {} s; recovery was waited for {} s.\n",
            column.fault_seconds, column.recovery_seconds
        );
    }
    let mut faults = Fault::all();
    faults.retain(|fault| {
        servers
            .iter()
            .any(|(_, column)| column.cell(&fault.name).is_some())
    });
    for (kind, title) in SECTIONS {
        if faults.iter().all(|fault| fault.kind != kind) {
            continue;
        }
        let _ = writeln!(page, "## {title}\n");
        let names: Vec<&str> = servers.iter().map(|(server, _)| server.name()).collect();
        let _ = writeln!(page, "| fault | {} |", names.join(" | "));
        let _ = writeln!(page, "|---|{}", "---|".repeat(names.len()));
        for fault in faults.iter().filter(|fault| fault.kind == kind) {
            let cells: Vec<String> = servers
                .iter()
                .map(|(_, column)| match column.cell(&fault.name) {
                    Some(cell) => written(cell, column.recovery_seconds),
                    None => "not run".to_owned(),
                })
                .collect();
            let _ = writeln!(page, "| {} | {} |", fault.name, cells.join(" | "));
        }
        page.push('\n');
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn summary(page: &mut String, servers: &[(Server, &Column)]) {
    for (server, column) in servers {
        let count = |holds: &dyn Fn(&Cell) -> bool| {
            let cells = column.outcomes.iter().map(|outcome| &outcome.cell);
            cells.filter(|cell| holds(cell)).count()
        };
        let faults = Fault::all();
        let odd: Vec<&Cell> = faults
            .iter()
            .filter(|fault| fault.kind == Kind::Odd)
            .filter_map(|fault| column.cell(&fault.name))
            .collect();
        let at_once = odd.iter().filter(|cell| cell.seen == [Seen::Right]);
        let at_last = odd
            .iter()
            .filter(|cell| cell.seen.last() == Some(&Seen::Right));
        let mut recoveries: Vec<Option<Duration>> = column
            .outcomes
            .iter()
            .map(|outcome| outcome.cell.recovery)
            .collect();
        // Those that did not recover come last.
        recoveries.sort_by_key(|recovery| recovery.unwrap_or(Duration::MAX));
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {}, {} at once | {} | {} |",
            server.name(),
            count(&|cell| cell.seen.iter().any(is_wrong)),
            count(&|cell| cell.stall.is_some()),
            count(&|cell| cell.seen.contains(&Seen::Refused)),
            at_last.count(),
            at_once.count(),
            recoveries.iter().flatten().count(),
            match recoveries.get(recoveries.len() / 2) {
                Some(Some(median)) => seconds(*median),
                _ => format!("> {} s", column.recovery_seconds),
            },
        );
    }
}

fn written(cell: &Cell, bound: u64) -> String {
    let seen: Vec<String> = cell
        .seen
        .iter()
        .map(|seen| match seen {
            Seen::Right => "right".to_owned(),
            Seen::None => "none".to_owned(),
            Seen::Wrong(reason) => format!("**wrong: {reason}**"),
            Seen::Refused => "refused".to_owned(),
        })
        .collect();
    let mut text = seen.join(", then ");
    if let Some(stall) = cell.stall {
        let _ = write!(text, ", **stalled {}**", seconds(stall));
    }
    match cell.recovery {
        _ if cell.seen == [Seen::Right] => {}
        Some(time) => {
            let _ = write!(text, "; {}", seconds(time));
        }
        None => {
            let _ = write!(text, "; > {bound} s");
        }
    }
    text
}

fn is_wrong(seen: &Seen) -> bool {
    matches!(seen, Seen::Wrong(_))
}

fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        short if short < 0.95 => "< 1 s".to_owned(),
        long => format!("{long:.0} s"),
    }
}

const SECTIONS: [(Kind, &str); 4] = [
    (Kind::Wrong, "Answers from which nothing may be stapled"),
    (Kind::Stuck, "Answers that do not come to an end"),
    (Kind::Way, "The way to the responder"),
    (Kind::Odd, "Odd, and right: to be stapled"),
];

const INTRODUCTION: &str = "\
# What clients see when a responder misbehaves

Written by `make matrix`; the data are in [misbehaviour.json](misbehaviour.json), the faults in `tests/src/responder/` and
`tests/src/matrix/`, the configurations with their reasons in `tests/peers/`. Every pair of fault and server has a fresh
certificate, made alike, that names a responder of its own. The server starts while the fault is on; a client that was never
there before completes a handshake every 0.7 s and asks for a staple; then the responder becomes good.

All servers are those of Debian 12:
";

const SUMMARY: &str = "
Notes for a fair reading:
- nginx fetches only when a handshake asks, each worker for itself (here: one), and after a failure not again for 300 s.
- HAProxy 2.6 fetches nothing (`ocsp-update` came with 2.8). Beside it runs what operators use: `openssl ocsp`, and where that is
  content the response is handed over on the socket; here every 10 s, which is far more often than usual.
- Apache fetches inside a handshake. The second column has `SSLStaplingReturnResponderErrors` and `SSLStaplingFakeTryLater` off.
- Hitch and nginx verify only where told to, in their second columns. Hitch takes a fetched response into use when it notices a file
  that changed, which in repeated runs it sometimes did and sometimes did not.
- What is *wrong* is said by clinch's verifier with its defaults, which follow RFC 6960 to the letter: a client may be content with
  a response from the future, or with one that is a month old and names no nextUpdate.
- `in chunks` breaks the protocol towards clients of HTTP/1.0, which nginx and Apache are.
- A staple that says *revoked*, *unknown* or an error is counted as wrong although it may be true: no client can use it, and those
  that demand a staple refuse the site. Clinch does not serve a certificate that is revoked: its handshakes are *refused*, by
  default, and it asks again after an hour, since revocation is final but for a hold.

## In short
Of 66 faults, 8 of them odd and right:

| server | a wrong staple | a stalled handshake | a refused handshake | odd and stapled | recovered | median recovery |
|---|---|---|---|---|---|---|
";

const READING: &str = "
In the tables: what clients saw in the order in which they first saw it (*right* staple, *none*, a **wrong** one, a handshake that
was *refused*), the longest handshake if it took over 2 s (**stalled**), and, after the semicolon, the time from the moment the
responder became good to the first right staple.
";
