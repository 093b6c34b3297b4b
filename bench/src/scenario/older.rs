//! What clients of yesterday cost: TLS 1.2 with an RSA certificate (2048 bits), stapled where a server can,
//! a small request relayed. The signature is most of it, and nobody has a way around that.

use anyhow::Result;

use super::{installed, per_connection, tls};
use crate::bench::{Bench, STAPLED};
use crate::load::Pattern;
use crate::peers::{self, Peer, Program, Variant};
use crate::report::Report;
use crate::rounds::{Contender, interleave};

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "older",
        "µs of CPU per connection: full TLS 1.2 handshake, ECDHE-RSA-AES128-GCM-SHA256, X25519, RSA 2048, \
         stapled where the server can, with a small request relayed",
    );
    let bench = &Bench::older(bench.clinch.clone(), bench.effort.clone())?;
    // stunnel, Apache and Caddy are dear enough with TLS 1.3.
    let among: Vec<Peer> = Peer::ALL
        .into_iter()
        .filter(|peer| AMONG.contains(&peer.program))
        .collect();
    let found = installed(&among, &mut report);
    let clinch = peers::clinch(bench, &Variant::default())?;
    let mut running = vec![("clinch".to_owned(), true, clinch)];
    for peer in found {
        running.push((peer.name(), peer.staples(), peer.start(bench)?));
    }
    let mut contenders: Vec<Contender<'_>> = Vec::new();
    for (name, staple, at) in &running {
        let load = tls(bench, at, STAPLED, *staple, Pattern::Request)?;
        let name = format!("TLS 1.2, RSA: {name}");
        contenders.push(per_connection(bench, name, at, load)?);
    }
    let series = interleave(bench.effort.rounds, "µs", &mut contenders)?;
    drop(contenders);
    report.ratios = series[1..]
        .iter()
        .map(|peer| series[0].over(peer))
        .collect();
    report.series = series;
    Ok(report)
}

const AMONG: [Program; 5] = [
    Program::NginxStream,
    Program::NginxHttp,
    Program::HaProxy,
    Program::Hitch,
    Program::H2o,
];
