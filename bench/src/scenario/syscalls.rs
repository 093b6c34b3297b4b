//! System calls per connection, counted by strace over the whole process tree: a full handshake, a small
//! request, its answer, close. Counts, not times: a traced server is slow.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use super::{installed, tls};
use crate::bench::{Bench, STAPLED};
use crate::load::{Load, Pattern};
use crate::peers::{self, Peer, Running, Variant};
use crate::report::Report;
use crate::rounds::{Contender, interleave};

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "syscalls",
        "system calls of the server per connection (strace -c over its processes and threads)",
    );
    if Command::new("strace").arg("-V").output().is_err() {
        report.notes.push("left out: install strace".to_owned());
        return Ok(report);
    }
    let found = installed(&Peer::ALL, &mut report);
    let clinch = peers::clinch(bench, &Variant::default())?;
    let mut running = vec![("clinch".to_owned(), true, clinch)];
    for peer in found {
        running.push((peer.name(), peer.staples(), peer.start(bench)?));
    }
    let mut contenders = Vec::new();
    for (name, staple, at) in &running {
        let mut load = tls(bench, at, STAPLED, *staple, Pattern::Request)?;
        load.count = bench.effort.count.div_ceil(8);
        load.concurrency = load.concurrency.min(16);
        contenders.push(Contender::new(name.clone(), move || {
            let calls = count(bench, at, &load)?;
            Ok((calls as f64 / f64::from(load.count)).into())
        }));
    }
    // Counts hardly vary.
    let series = interleave(bench.effort.rounds.min(2), "calls", &mut contenders)?;
    drop(contenders);
    let ratios = series[1..].iter().map(|peer| series[0].over(peer));
    report.ratios = ratios.collect();
    report.series = series;
    Ok(report)
}

fn count(bench: &Bench, at: &Running, load: &Load) -> Result<u64> {
    let pids = at.server.pids()?;
    let file = bench.directory.path().join("strace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-q", "-o"]).arg(&file);
    for pid in &pids {
        strace.args(["-p", &pid.to_string()]);
    }
    let mut strace = strace.stderr(Stdio::null()).spawn().context("strace")?;
    wait_until_traced(&pids)?;
    let outcome = bench.run(load.run());
    // The last closes are counted too, as far as they come at once.
    std::thread::sleep(Duration::from_millis(100));
    let pid = Pid::from_raw(strace.id().cast_signed()).context("a child's number")?;
    rustix::process::kill_process(pid, Signal::INT)?;
    strace.wait()?;
    outcome?;
    let table = std::fs::read_to_string(&file)?;
    let total = table.lines().rev().find(|line| line.ends_with(" total"));
    let calls = total.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    calls.with_context(|| format!("strace counted nothing: {table}"))
}

fn wait_until_traced(pids: &[u32]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let traced = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        !status.contains("TracerPid:\t0\n")
    };
    while !pids.iter().all(traced) {
        if Instant::now() > deadline {
            bail!("strace does not attach: it needs root, and ptrace allowed");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
