//! The same certificate, staple and load for every terminator that is installed.

use anyhow::Result;

use super::{installed, per_connection, site, tls};
use crate::bench::{Bench, STAPLED};
use crate::load::Pattern;
use crate::peers::{self, Peer, Running, Variant};
use crate::report::Report;
use crate::rounds::{Contender, Series, interleave};

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "peers",
        "µs of CPU per connection: full TLS 1.3 handshake, X25519, ECDSA P-256, AES-128-GCM; \
         req with a small request relayed, hs without",
    );
    let found = installed(&Peer::ALL, &mut report);
    let running = found
        .iter()
        .map(|peer| Ok((*peer, peer.start(bench)?)))
        .collect::<Result<Vec<_>>>()?;
    let clinch = peers::clinch(bench, &Variant::default())?;
    for (pattern, label) in [(Pattern::Request, "req"), (Pattern::Handshake, "hs")] {
        let mut contenders = contenders(bench, &clinch, &running, pattern, label)?;
        let series = interleave(bench.effort.rounds, "µs", &mut contenders)?;
        conclude(&mut report, &series, label);
        report.series.extend(series);
    }
    for note in [
        "nginx-stream before 1.27.2 and stunnel before 5.73 cannot staple: they are measured without \
         one, and clinch both with and without",
        "hs: HTTP proxies open no backend connection; the TCP terminators open one after every handshake",
        "req: h2o keeps connections to the backend, which is its default; all others open one per request",
    ] {
        report.notes.push(note.to_owned());
    }
    Ok(report)
}

/// Clinch with and without a staple, then every peer.
fn contenders<'a>(
    bench: &'a Bench,
    clinch: &'a Running,
    running: &'a [(Peer, Running)],
    pattern: Pattern,
    label: &str,
) -> Result<Vec<Contender<'a>>> {
    let mut contenders = Vec::new();
    for staple in [true, false] {
        let load = tls(bench, clinch, site(staple), staple, pattern)?;
        let name = format!("{label} clinch {}", stapled(staple));
        contenders.push(per_connection(bench, name, clinch, load)?);
    }
    for (peer, at) in running {
        let load = tls(bench, at, STAPLED, peer.staples(), pattern)?;
        let name = format!("{label} {} {}", peer.name(), stapled(peer.staples()));
        contenders.push(per_connection(bench, name, at, load)?);
    }
    Ok(contenders)
}

fn stapled(staple: bool) -> &'static str {
    if staple { "stapled" } else { "unstapled" }
}

fn conclude(report: &mut Report, series: &[Series], label: &str) {
    let (clinch, peers) = series.split_at(2);
    for peer in peers {
        let ratio = clinch[0].over(peer);
        let promised = PROMISED
            .iter()
            .find(|(name, _)| peer.name.starts_with(name));
        if let Some((_, at_most)) = promised {
            report.promise(ratio.name.clone(), *at_most, ratio.summary.median);
        }
        report.ratios.push(ratio);
        if peer.name.starts_with(&format!("{label} nginx-stream")) {
            report.ratios.push(clinch[1].over(peer));
        }
    }
}

/// What clinch is to take at most of a peer's CPU. The first that fits counts.
const PROMISED: [(&str, f64); 6] = [
    ("req nginx-stream-trixie", 0.45),
    ("req haproxy-trixie", 0.45),
    ("req hitch-trixie", 0.45),
    ("req nginx-stream", 0.55),
    ("req haproxy", 0.55),
    ("hs h2o", 0.75),
];
