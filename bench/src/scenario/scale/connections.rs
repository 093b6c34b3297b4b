//! Connections held, from none to 50,000: what they take of memory and of the processor while nothing
//! happens on them, and what handshakes cost beside them. Two servers take turns, alike but for that one
//! of them holds connections.
//!
//! Client and backend of every connection are in this process, hence its need of descriptors, which takes
//! root; and the loopback's ports are spread over several addresses of 127.0.0.0/8.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use rustls::NamedGroup;

use super::super::idle;
use super::{draw, grouped, handshakes, line, single};
use crate::bench::{Bench, STAPLED, free_address};
use crate::client::{Connection, Suite};
use crate::machine::{FileLimit, SERVER_CORE};
use crate::peers::Running;
use crate::process::{Launch, STARTS_WITHIN, Server};
use crate::report::Report;
use crate::rounds::{Contender, Ratio, interleave};

pub(in super::super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "scale-connections",
        format!(
            "clinch while it holds so many TLS connections, each with its backend's: KiB of resident memory for \
             each, idle for {:?}; ms of CPU in a second in which nothing happens; µs of CPU of the worker per \
             stapled handshake, beside a clinch that holds none",
            bench.effort.idle_for
        ),
    );
    let limit = FileLimit::raise(u64::from(bench.effort.held) * 2 + SPARE);
    let most = bench
        .effort
        .held
        .min(((limit.current() - SPARE) / 2) as u32);
    if most < bench.effort.held {
        let note = format!(
            "stopped at {} for want of descriptors: run it as root",
            grouped(most)
        );
        report.notes.push(note);
    }
    let backend =
        bench.run(async { crate::backend::start_at(SocketAddr::from(([0, 0, 0, 0], 0))) })?;
    let holder = start(bench, "holder", backend.port())?;
    let empty = start(bench, "empty", backend.port())?;
    let mut held = Vec::new();
    let mut found = Vec::new();
    let fresh = resident(bench, &holder)?;
    let own = descriptors(&holder)?;
    for count in sizes(most) {
        hold(bench, &holder, &mut held, count)?;
        found.push(Found {
            count,
            kib: (resident(bench, &holder)? - fresh) / f64::from(count.max(1)),
            at_rest: at_rest(bench, &holder)?,
            cpu: beside(bench, &mut report, &holder, &empty, count)?,
        });
        let (open, least) = (descriptors(&holder)?, own + count as usize * 2);
        // A client learns only when it speaks again that the server let go of it.
        ensure!(
            open >= least,
            "{open} descriptors where {count} connections make {least}; {}",
            holder.server.output()
        );
    }
    conclude(&mut report, &found);
    bench.run(async {
        let mut buffer = vec![0; 16 * 1024];
        for connection in held {
            let closed = connection.close(&mut buffer).await;
            closed.with_context(|| format!("ending what was held; {}", holder.server.output()))?;
        }
        anyhow::Ok(())
    })?;
    drop(limit);
    Ok(report)
}

/// None, a fiftieth, a tenth, two fifths, and all.
fn sizes(most: u32) -> [u32; 5] {
    [0, most / 50, most / 10, most / 5 * 2, most]
}

/// At one size.
struct Found {
    count: u32,
    /// KiB for each connection.
    kib: f64,
    /// ms of CPU in a second.
    at_rest: f64,
    /// Handshakes beside them ÷ beside none.
    cpu: Ratio,
}

/// A clinch on several addresses of the loopback, with as many of one backend.
fn start(bench: &Bench, name: &str, backend: u16) -> Result<Running> {
    let address = free_address()?;
    let site = &bench.sites[STAPLED];
    let list = |port: u16| -> String {
        let all = addresses(port).into_iter();
        let quoted: Vec<String> = all.map(|address| format!("\"{address}\"")).collect();
        quoted.join(", ")
    };
    let text = format!(
        "workers = 1\ncache_dir = false\n[timeouts]\nidle = \"1h\"\n[listen.bench]\naddress = [{}]\n\
         min_version = \"1.3\"\ntickets = 0\n[[site]]\nnames = [\"{}\"]\ncert = \"{}\"\nkey = \"{}\"\n\
         backend = [{}]\n[egress]\nallow = [\"127.0.0.1\"]\nports = [\"1024-65535\"]\n[admin]\nlisten = false\n",
        list(address.port()),
        site.name,
        site.cert.display(),
        site.key.display(),
        list(backend),
    );
    let directory = bench.directory.path();
    let configuration = directory.join(format!("{name}.toml"));
    std::fs::write(&configuration, text)?;
    let mut server = Server::start(&Launch {
        name: name.to_owned(),
        program: bench.clinch.clone(),
        arguments: ["run", "-c"]
            .map(str::to_owned)
            .into_iter()
            .chain([configuration.display().to_string()])
            .collect(),
        environment: Vec::new(),
        log: directory.join(format!("{name}.log")),
        cores: vec![SERVER_CORE],
        whole_process: false,
    })?;
    server.wait_until_listening(address, STARTS_WITHIN)?;
    Ok(Running { server, address })
}

fn addresses(port: u16) -> Vec<SocketAddr> {
    (1..=ADDRESSES)
        .map(|host| SocketAddr::from(([127, 0, 0, host], port)))
        .collect()
}

/// Opens connections until there are `count`.
fn hold(bench: &Bench, at: &Running, held: &mut Vec<Connection>, count: u32) -> Result<()> {
    let client = bench.client(STAPLED, true, Suite::Aes128Gcm, NamedGroup::X25519)?;
    let more = count.saturating_sub(u32::try_from(held.len())?);
    let to = addresses(at.address.port());
    let opened = bench.run(idle::open(bench, to, more, &client));
    held.extend(opened.with_context(|| format!("of {count} connections; {}", at.server.output()))?);
    Ok(())
}

/// Open ones of the whole process tree.
fn descriptors(at: &Running) -> Result<usize> {
    let mut open = 0;
    for pid in at.server.pids()? {
        open += std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    }
    Ok(open)
}

fn resident(bench: &Bench, at: &Running) -> Result<f64> {
    bench.run(async { tokio::time::sleep(bench.effort.idle_for).await });
    Ok(at.server.resident_kib()? as f64)
}

/// ms of CPU of the whole process in a second without a byte.
fn at_rest(bench: &Bench, at: &Running) -> Result<f64> {
    let watched = bench.effort.turn / 3;
    let before = bench.run(at.server.settled_cpu())?;
    bench.run(async { tokio::time::sleep(watched).await });
    let after = at.server.cpu()?;
    Ok(after.since(&before, |_| true) as f64 / 1e6 / watched.as_secs_f64())
}

/// Handshakes with the server that holds connections and with the one that does not.
fn beside(
    bench: &Bench,
    report: &mut Report,
    holder: &Running,
    empty: &Running,
    count: u32,
) -> Result<Ratio> {
    let names = [bench.sites[STAPLED].name.clone()];
    let share = bench.effort.count.div_ceil(8);
    let one = |name: String, at| {
        let names = &names;
        Contender::new(name, move || handshakes(bench, at, names, share))
    };
    let mut contenders = [
        one(format!("handshake beside {} held", grouped(count)), holder),
        one(
            format!("handshake beside none, turns with {}", grouped(count)),
            empty,
        ),
    ];
    for contender in &mut contenders {
        (contender.measure)()?;
    }
    let rounds = bench.effort.rounds;
    let rounds = if rounds > 1 { rounds * 2 } else { 1 };
    let series = interleave(rounds, "µs", &mut contenders)?;
    let ratio = series[0].over(&series[1]);
    report.series.extend(series);
    Ok(ratio)
}

fn conclude(report: &mut Report, found: &[Found]) {
    let points = found.iter();
    let points = points.map(|at| (f64::from(at.count), at.cpu.summary.median));
    let cpu = line("CPU per handshake ÷ the same beside none", points);
    let title = "Handshakes beside connections that are held";
    draw(
        report,
        "scale-connections",
        title,
        "connections held (none at 1)",
        "ratio",
        vec![cpu],
    );
    for at in found {
        let held = grouped(at.count);
        if at.count > 0 {
            let name = format!("memory per connection, {held} held");
            report.series.push(single(name, "KiB", vec![at.kib]));
        }
        let name = format!("CPU in a second at rest, {held} held");
        report.series.push(single(name, "ms", vec![at.at_rest]));
        report.ratios.push(at.cpu.clone());
    }
}

/// Of the loopback: each has some 28,000 ports.
const ADDRESSES: u8 = 8;
/// Descriptors for all but the connections held.
const SPARE: u64 = 1000;
