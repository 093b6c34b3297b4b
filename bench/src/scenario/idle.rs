//! Memory per connection that nobody uses: resident memory of the process tree before and after
//! many connections were opened, and again after each made one request. Each figure is taken after
//! the connections have been idle for a while; a server may hold more while bytes move.

use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::Result;
use rustls::NamedGroup;

use super::{installed, warm_up};
use crate::bench::{Bench, STAPLED};
use crate::client::{Client, Connection, Suite};
use crate::load::Pattern;
use crate::peers::{self, Peer, Running, Variant};
use crate::report::Report;
use crate::rounds::{Contender, Sample, Series, Summary, interleave};

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "idle",
        format!(
            "KiB of resident memory per connection idle for {:?}, over {} connections, in servers \
             started afresh",
            bench.effort.idle_for, bench.effort.idle
        ),
    );
    let among: Vec<Peer> = Peer::ALL
        .into_iter()
        .filter(|peer| peer.holds_idle())
        .collect();
    let found = installed(&among, &mut report);
    let note = "apache left out: it ties a thread to each connection that has not asked yet";
    report.notes.push(note.to_owned());
    let mut contenders = vec![Contender::new("clinch", || {
        measure(bench, &peers::clinch(bench, &Variant::default())?, true)
    })];
    contenders.extend(found.iter().map(|peer| {
        Contender::new(peer.name(), || {
            measure(bench, &peer.start(bench)?, peer.staples())
        })
    }));
    // Memory hardly varies; more rounds would only take longer.
    let series = interleave(bench.effort.rounds.min(3), "KiB", &mut contenders)?;
    drop(contenders);

    let requested: Vec<Series> = series.iter().map(after_request).collect();
    for (series, which) in [(&series[0], "fresh"), (&requested[0], "after one request")] {
        let text = format!("clinch, KiB per idle connection, {which}");
        report.promise(text, 6.0, series.summary.median);
    }
    for (mine, all) in [(&series[0], &series), (&requested[0], &requested)] {
        for peer in &all[1..] {
            let ratio = mine.over(peer);
            if peer.name.starts_with("nginx-http") {
                report.promise(ratio.name.clone(), 0.25, ratio.summary.median);
            }
            report.ratios.push(ratio);
        }
    }
    report.series = series.into_iter().chain(requested).collect();
    Ok(report)
}

/// Memory per connection: fresh ones as the value, after one request as a detail.
pub(super) fn measure(bench: &Bench, at: &Running, staple: bool) -> Result<Sample> {
    let client = bench.client(STAPLED, staple, Suite::Aes128Gcm, NamedGroup::X25519)?;
    let load = bench.ordinary(at.address, Some(client.clone()), Pattern::Request);
    warm_up(bench, at, &load)?;
    bench.run(async {
        let resident = async || -> Result<f64> {
            tokio::time::sleep(bench.effort.idle_for).await;
            Ok(at.server.resident_kib()? as f64)
        };
        let before = resident().await?;
        let mut held = open(bench, vec![at.address], bench.effort.idle, &client).await?;
        let fresh = resident().await?;
        let mut buffer = vec![0; BUFFER];
        for connection in &mut held {
            connection.request("/", &mut buffer).await?;
        }
        let requested = resident().await?;
        let per_connection = |kib: f64| (kib - before) / held.len() as f64;
        let mut sample = Sample::from(per_connection(fresh));
        sample.detail.extend([
            (REQUESTED.to_owned(), per_connection(requested)),
            ("KiB resident before".to_owned(), before),
        ]);
        for connection in held {
            connection.close(&mut buffer).await?;
        }
        Ok(sample)
    })
}

/// Opens so many connections, a few at a time, to the addresses in turn.
pub(super) async fn open(
    bench: &Bench,
    to: Vec<SocketAddr>,
    count: u32,
    client: &Client,
) -> Result<Vec<Connection>> {
    let to: Rc<[SocketAddr]> = to.into();
    let client = Rc::new(client.clone());
    let lanes: Vec<_> = (0..bench.effort.concurrency)
        .map(|lane| {
            let share = (lane..count).step_by(bench.effort.concurrency as usize);
            let (client, to) = (Rc::clone(&client), Rc::clone(&to));
            tokio::task::spawn_local(async move {
                let mut buffer = vec![0; BUFFER];
                let mut held = Vec::new();
                for index in share {
                    let address = to[index as usize % to.len()];
                    held.push(Connection::open(address, Some(&client), &mut buffer).await?);
                }
                anyhow::Ok(held)
            })
        })
        .collect();
    let mut held = Vec::new();
    for lane in lanes {
        held.extend(lane.await??);
    }
    Ok(held)
}

fn after_request(fresh: &Series) -> Series {
    let values = fresh.samples.iter().map(|sample| sample.detail[REQUESTED]);
    Series {
        name: format!("{} after one request", fresh.name),
        unit: fresh.unit,
        summary: Summary::of(values.clone()),
        samples: values.map(Sample::from).collect(),
    }
}

const REQUESTED: &str = "KiB per connection after one request";
const BUFFER: usize = 16 * 1024;
