//! Many certificates: how long until a server with them serves, what memory it takes, and how long a reload
//! takes, from the signal until a handshake shows the certificate that was exchanged. Nobody staples here.
//!
//! nginx serves them as an HTTP proxy, since its `stream` has no choice by name before 1.25.5.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clinch::cli::demo::authority::{Authority, Issued, LeafSpec};
use rustix::process::{Pid, Signal};
use rustls::NamedGroup;
use rustls::pki_types::CertificateDer;

use super::installed;
use crate::bench::Bench;
use crate::client::{Client, Connection, Suite};
use crate::peers::{self, Many, Peer, Program, Running};
use crate::report::Report;
use crate::rounds::{Contender, Ratio, Sample, Series, Summary, interleave};

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let names = bench.effort.certificates;
    let mut report = Report::new(
        "certificates",
        format!(
            "with {names} certificates, one name each, no stapling: seconds from a reload's signal to a handshake \
             with the exchanged certificate; seconds from the start to the first handshake; MiB of resident memory"
        ),
    );
    let among = [Program::NginxHttp, Program::HaProxy, Program::Hitch];
    let mut found = installed(&among.map(Peer::installed), &mut report);
    found.extend(installed(&among.map(Peer::trixie), &mut report));
    let pile = Pile::make(bench, names)?;
    let mut contenders = vec![Contender::new("clinch", || measure(bench, &pile, None))];
    for peer in found {
        let pile = &pile;
        // Whoever cannot do it as it is configured is named, and the others are measured.
        if let Err(error) = measure(bench, pile, Some(peer)) {
            report
                .notes
                .push(format!("{} left out: {error:#}", peer.name()));
            continue;
        }
        contenders.push(Contender::new(peer.name(), move || {
            measure(bench, pile, Some(peer))
        }));
    }
    let series = interleave(bench.effort.rounds.min(3), "s", &mut contenders)?;
    drop(contenders);
    report.ratios = ratios(&series, "reload");
    for (detail, unit) in [
        (START, "s"),
        (MEMORY, "MiB"),
        (PER_NAME, "KiB"),
        (RELOADED, "MiB"),
    ] {
        let of: Vec<Series> = series.iter().map(|s| by_detail(s, detail, unit)).collect();
        report.ratios.extend(ratios(&of, detail));
        report.series.extend(of);
    }
    report.series.splice(0..0, series);
    Ok(report)
}

fn ratios(series: &[Series], what: &str) -> Vec<Ratio> {
    let contender = |series: &Series| series.name.rsplit(": ").next().map(str::to_owned);
    let named = |peer: &Series| {
        let names = [&series[0], peer].map(|series| contender(series).unwrap_or_default());
        Ratio {
            name: format!("{what}: {} ÷ {}", names[0], names[1]),
            ..series[0].over(peer)
        }
    };
    series[1..].iter().map(named).collect()
}

fn by_detail(series: &Series, detail: &str, unit: &'static str) -> Series {
    let values = series.samples.iter().map(|sample| sample.detail[detail]);
    Series {
        name: format!(
            "{detail}: {}",
            series.name.rsplit(": ").next().unwrap_or_default()
        ),
        unit,
        summary: Summary::of(values.clone()),
        samples: values.map(Sample::from).collect(),
    }
}

/// The certificates, in files for every server.
struct Pile {
    directory: PathBuf,
    names: Vec<String>,
    authority: Authority,
}

impl Pile {
    fn make(bench: &Bench, count: u32) -> Result<Self> {
        let pile = Self {
            directory: bench.directory.path().join("pile"),
            names: (0..count).map(|n| format!("s{n}.pile.test")).collect(),
            authority: Authority::new(std::time::SystemTime::now())?,
        };
        for part in ["", "combined"] {
            std::fs::create_dir(pile.directory.join(part))?;
        }
        for name in &pile.names {
            pile.exchange(name)?;
        }
        Ok(pile)
    }

    /// Writes a new certificate for a name.
    fn exchange(&self, name: &str) -> Result<CertificateDer<'static>> {
        let issued: Issued = self.authority.issue(&LeafSpec {
            names: vec![name.to_owned()],
            ..LeafSpec::default()
        })?;
        let combined = issued.chain_pem.clone() + &issued.key_pem;
        write(
            &self.directory.join(format!("{name}.pem")),
            &issued.chain_pem,
        )?;
        write(&self.directory.join(format!("{name}.key")), &issued.key_pem)?;
        let path = self.directory.join("combined").join(format!("{name}.pem"));
        write(&path, &combined)?;
        Ok(issued.leaf)
    }
}

/// In place of an older one as a whole, readable by its owner alone.
fn write(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&new, path)?;
    Ok(())
}

fn measure(bench: &Bench, pile: &Pile, peer: Option<Peer>) -> Result<Sample> {
    let (first, last) = (&pile.names[0], &pile.names[pile.names.len() - 1]);
    let leaf = pile.exchange(last)?;
    let many = Many {
        directory: &pile.directory,
        names: &pile.names,
    };
    let begun = Instant::now();
    let running = peers::start_many(bench, peer, &many)?;
    wait_for(bench, &running, last, &leaf)?;
    let start = begun.elapsed();
    let memory = running.server.resident_kib()? as f64;

    let leaf = pile.exchange(first)?;
    let signal = match peer.map(|peer| peer.program) {
        // HAProxy's master takes USR2; it was started as one.
        Some(Program::HaProxy) => Signal::USR2,
        _ => Signal::HUP,
    };
    if signal == Signal::USR2 {
        wait_for_master(bench, &running)?;
    }
    let begun = Instant::now();
    let pid = Pid::from_raw(running.server.pid().cast_signed()).context("a child's number")?;
    rustix::process::kill_process(pid, signal)?;
    wait_for(bench, &running, first, &leaf)?;
    let mut sample = Sample::from(begun.elapsed().as_secs_f64());
    // What is left of the old generation goes when its connections have: there are none.
    std::thread::sleep(bench.effort.idle_for);
    let reloaded = running.server.resident_kib()? as f64;
    sample.detail.extend([
        (START.to_owned(), start.as_secs_f64()),
        (MEMORY.to_owned(), memory / 1024.0),
        (PER_NAME.to_owned(), memory / pile.names.len() as f64),
        (RELOADED.to_owned(), reloaded / 1024.0),
    ]);
    Ok(sample)
}

/// Waits until HAProxy's master attends to signals: when its worker serves it executes itself once more,
/// with this in its environment, and what it was sent before is lost.
fn wait_for_master(bench: &Bench, at: &Running) -> Result<()> {
    let deadline = Instant::now() + bench.effort.patience;
    let process = PathBuf::from(format!("/proc/{}", at.server.pid()));
    loop {
        let environment = std::fs::read_to_string(process.join("environ"))?;
        let status = std::fs::read_to_string(process.join("status"))?;
        let has = |set: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(set));
            let mask = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            mask.is_some_and(|mask| mask & 1 << (Signal::USR2.as_raw() - 1) != 0)
        };
        if environment.contains("HAPROXY_MWORKER_WAIT_ONLY=") && has("SigCgt:") && !has("SigBlk:") {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("its master does not wait: {}", at.server.output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Handshakes until the server shows this certificate for this name.
fn wait_for(bench: &Bench, at: &Running, name: &str, leaf: &CertificateDer<'static>) -> Result<()> {
    let client = Client::new(name, leaf, None, Suite::Aes128Gcm, NamedGroup::X25519)?;
    let deadline = Instant::now() + bench.effort.patience;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match bench.run(Connection::open(at.address, Some(&client), &mut buffer)) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                bail!(
                    "not within {:?}: {error:#}; {}",
                    bench.effort.patience,
                    at.server.output()
                );
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

const START: &str = "start to first handshake";
const MEMORY: &str = "memory";
const PER_NAME: &str = "memory per certificate, all told";
const RELOADED: &str = "memory after a reload";
