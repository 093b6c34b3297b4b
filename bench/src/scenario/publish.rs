//! Whether publishing disturbs handshakes: the same workers, with and without 100 publishes a second
//! of the very staple that they are sending. Only the workers' CPU time counts here.

use anyhow::Result;

use super::{tls, warm_up};
use crate::bench::{Bench, STAPLED};
use crate::data_plane::Order;
use crate::load::Pattern;
use crate::peers;
use crate::report::Report;
use crate::rounds::{Contender, Sample, interleave};

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "publish",
        format!(
            "µs of CPU per connection (req, stapled) of clinch's worker thread, with and without \
             {} publishes a second of the staple in use",
            ORDER.per_second
        ),
    );
    let (workers, publish_while) =
        peers::data_plane(bench, "data-plane", &std::env::current_exe()?)?;
    let effort = bench.effort.fine();
    let mut load = tls(bench, &workers, STAPLED, true, Pattern::Request)?;
    load.count = effort.count;
    warm_up(bench, &workers, &load)?;
    let measure = |publishing: bool| -> Result<Sample> {
        let (before, after) = bench.run(async {
            // At rest before and after: what the worker spends on publishes counts as long as there
            // are connections, not while readings settle.
            let before = workers.server.settled_cpu().await?;
            if publishing {
                std::fs::write(&publish_while, serde_json::to_vec(&ORDER)?)?;
            }
            let loaded = load.run().await;
            if publishing {
                std::fs::remove_file(&publish_while)?;
            }
            loaded?;
            anyhow::Ok((before, workers.server.settled_cpu().await?))
        })?;
        let spent = after.since(&before, |name| name.starts_with("worker-"));
        Ok((spent as f64 / 1000.0 / f64::from(load.count)).into())
    };
    let mut contenders = vec![
        Contender::new("publishing", || measure(true)),
        Contender::new("not publishing", || measure(false)),
    ];
    let series = interleave(effort.rounds, "µs", &mut contenders)?;
    drop(contenders);
    let ratio = series[0].over(&series[1]);
    report.promise(ratio.name.clone(), 1.03, ratio.summary.median);
    report.ratios.push(ratio);
    report.series = series;
    Ok(report)
}

/// What the publisher does.
const ORDER: Order = Order {
    per_second: 100,
    watched: false,
};
