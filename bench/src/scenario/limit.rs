//! How far clinch is from what cannot be avoided: the handshake itself, and the kernel's TCP.

use std::time::Duration;

use anyhow::{Result, anyhow};
use rustls::{HandshakeKind, NamedGroup};

use super::{per_connection, tls};
use crate::bench::{Bench, STAPLED};
use crate::client::Suite;
use crate::limit;
use crate::load::Pattern;
use crate::machine::{self, SERVER_CORE};
use crate::peers::{self, Variant};
use crate::relay::Runtime;
use crate::report::Report;
use crate::rounds::{Contender, Ratio, interleave};

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "limit",
        "µs of CPU per connection: clinch (req, stapled) beside the server's side of a rustls \
         handshake in memory and a TCP relay without TLS",
    );
    let clinch = peers::clinch(bench, &Variant::default())?;
    let relays = [
        ("plain relay, tokio-uring", Runtime::Uring, false),
        ("plain relay, epoll", Runtime::Epoll, false),
        ("relay after two flights, tokio-uring", Runtime::Uring, true),
        ("relay after two flights, epoll", Runtime::Epoll, true),
    ];
    let mut running = Vec::new();
    for (name, runtime, flights) in relays {
        running.push((name, peers::plain_relay(bench, runtime, flights)?, flights));
    }
    let load = tls(bench, &clinch, STAPLED, true, Pattern::Request)?;
    let mut contenders = vec![
        per_connection(bench, "clinch req stapled", &clinch, load)?,
        in_memory(bench, true),
        in_memory(bench, false),
    ];
    for (name, relay, flights) in &running {
        let pattern = if *flights {
            Pattern::FlightsAndRequest
        } else {
            Pattern::Request
        };
        let load = bench.ordinary(relay.address, None, pattern);
        contenders.push(per_connection(bench, *name, relay, load)?);
    }
    let series = interleave(bench.effort.rounds, "µs", &mut contenders)?;
    drop(contenders);

    let (clinch, memory) = (series[0].values(), series[1].values());
    for relay in &series[3..] {
        let relayed = relay.values();
        let sum: Vec<f64> = memory.iter().zip(&relayed).map(|(m, r)| m + r).collect();
        let name = format!("clinch ÷ (in-memory handshake + {})", relay.name);
        report.ratios.push(Ratio::new(name, &clinch, &sum));
    }
    // The cheaper relay is the limit, so the larger of the two ratios counts. Those with flights say what
    // of the distance is the kernel's part in a handshake, which neither half of the limit has.
    let ratios = report.ratios[..2].iter().map(|ratio| ratio.summary.median);
    let worst = ratios.fold(0.0, f64::max);
    let text = "clinch ÷ (in-memory handshake + cheapest plain relay)";
    report.promise(text, 1.0 / 0.85, worst);
    report.ratios.push(series[1].over(&series[2]));
    report.series = series;
    Ok(report)
}

/// The handshake in memory, on a thread of its own that sits on the server's core.
fn in_memory(bench: &Bench, staple: bool) -> Contender<'_> {
    let what = if staple { "stapled" } else { "unstapled" };
    let count = bench.effort.count;
    Contender::new(format!("in-memory handshake {what}"), move || {
        let server = limit::server(&bench.sites[STAPLED], staple, NamedGroup::X25519)?;
        let client = bench.client(STAPLED, staple, Suite::Aes128Gcm, NamedGroup::X25519)?;
        let measured = std::thread::scope(|scope| {
            let thread = scope.spawn(|| -> Result<Duration> {
                machine::pin(SERVER_CORE)?;
                limit::server_time(&server, &client, count.div_ceil(8), HandshakeKind::Full)?;
                limit::server_time(&server, &client, count, HandshakeKind::Full)
            });
            thread.join()
        });
        let spent = measured.map_err(|_| anyhow!("the measuring thread panicked"))??;
        Ok((spent.as_secs_f64() * 1e6 / f64::from(count)).into())
    })
}
