//! CPU per byte sent to the client, for long answers.

use anyhow::Result;
use rustls::NamedGroup;

use super::{installed, warm_up};
use crate::bench::{Bench, STAPLED};
use crate::client::Suite;
use crate::load::{Load, Pattern};
use crate::peers::{self, Peer, Running, Variant};
use crate::report::Report;
use crate::rounds::{Contender, interleave};

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "bulk",
        format!(
            "ns of CPU per byte to the client, {CONNECTIONS} connections of {} MiB each",
            bench.effort.bulk >> 20
        ),
    );
    let found = installed(&Peer::ALL, &mut report);
    let clinch = peers::clinch(bench, &Variant::default())?;
    let mut running = vec![("clinch".to_owned(), true, clinch)];
    for peer in found {
        running.push((peer.name(), peer.staples(), peer.start(bench)?));
    }
    for (suite, label) in [
        (Suite::Aes128Gcm, "AES-128-GCM"),
        (Suite::ChaCha20, "ChaCha20"),
    ] {
        let mut contenders = running
            .iter()
            // h2o of Debian 12 cannot be told to take ChaCha20 in TLS 1.3, and Go's TLS takes AES
            // where the machine has instructions for it.
            .filter(|(name, ..)| suite == Suite::Aes128Gcm || !name.starts_with("caddy"))
            .map(|(name, staple, at)| {
                per_byte(bench, format!("{label} {name}"), *staple, at, suite)
            })
            .collect::<Result<Vec<_>>>()?;
        let series = interleave(bench.effort.rounds, "ns", &mut contenders)?;
        for peer in &series[1..] {
            let ratio = series[0].over(peer);
            let promised = PROMISED.iter().find(|(name, _)| *name == peer.name);
            if let Some((_, at_most)) = promised {
                report.promise(ratio.name.clone(), *at_most, ratio.summary.median);
            }
            report.ratios.push(ratio);
        }
        report.series.extend(series);
    }
    Ok(report)
}

fn per_byte<'a>(
    bench: &'a Bench,
    name: String,
    staple: bool,
    at: &'a Running,
    suite: Suite,
) -> Result<Contender<'a>> {
    let load = Load {
        address: at.address,
        client: Some(bench.client(STAPLED, staple, suite, NamedGroup::X25519)?),
        pattern: Pattern::Bulk(bench.effort.bulk),
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

/// What clinch is to take at most of a peer's CPU for a byte.
const PROMISED: [(&str, f64); 3] = [
    ("AES-128-GCM nginx-stream", 0.85),
    ("AES-128-GCM h2o", 1.0),
    ("ChaCha20 nginx-stream", 1.05),
];
