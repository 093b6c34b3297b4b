//! What the program `steer` takes for each class of packets, as the kernel measures it
//! (`kernel.bpf_stats_enabled`): segments made by hand, thousands of one class, none of which belongs
//! to a connection.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clinch::cli::demo::authority::KeyAlgorithm;
use clinch_load::segments::{ACK, RST, SYN, Segment, Sender};
use rustls::NamedGroup;

use super::server::{self, Sites};
use crate::bench::Bench;
use crate::peers::Running;
use crate::report::Report;
use crate::rounds::{Contender, Sample, interleave};

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "steering-program",
        "ns per run of the program steer, by packet class, as the kernel counts them; the two readings of the clock \
         are included. A SYN with timestamps is answered, and the reset that comes back for it is a run, too: that \
         line is the mean of both",
    );
    let mut sites = Sites::new(bench, "steering-program")?;
    sites.add(KNOWN, KeyAlgorithm::P256, "")?;
    let at = server::start(bench, "steering-program", &sites, true)?;
    let stats = Stats::enable()?;
    let mut contenders = Vec::new();
    for class in classes()? {
        let at = &at;
        contenders.push(Contender::new(class.name, move || {
            measure(bench, at, &class)
        }));
    }
    report.series = interleave(bench.effort.rounds, "ns", &mut contenders)?;
    drop((contenders, stats));
    Ok(report)
}

struct Class {
    name: &'static str,
    flags: u8,
    timestamps: bool,
    payload: Vec<u8>,
}

fn classes() -> Result<Vec<Class>> {
    let class = |name, flags, timestamps, payload| Class {
        name,
        flags,
        timestamps,
        payload,
    };
    let small = |name: &str| hello(name, NamedGroup::X25519);
    let known = small(KNOWN)?;
    let at = known
        .windows(KNOWN.len())
        .position(|part| part == KNOWN.as_bytes());
    let cut = known[..at.context("the name is in the hello")?].to_vec();
    let mut large = hello(KNOWN, NamedGroup::X25519MLKEM768)?;
    large.truncate(1448);
    Ok(vec![
        class(
            "SYN with timestamps, and the reset for its answer",
            SYN,
            true,
            Vec::new(),
        ),
        class("reset", RST, false, Vec::new()),
        class("SYN without timestamps", SYN, false, Vec::new()),
        class("no payload", ACK, true, Vec::new()),
        class("ClientHello with a known name", ACK, true, known),
        class(
            "first segment of a post-quantum ClientHello",
            ACK,
            true,
            large,
        ),
        class(
            "ClientHello with an unknown name",
            ACK,
            true,
            small("nobody.test")?,
        ),
        class("ClientHello cut before its name", ACK, true, cut),
        class("HTTP", ACK, true, b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        class("anything else", ACK, true, vec![0x80; 1000]),
    ])
}

/// A ClientHello as rustls makes it, with one group.
fn hello(name: &str, group: NamedGroup) -> Result<Vec<u8>> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups.retain(|known| known.name() == group);
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned())?;
    let mut connection = rustls::ClientConnection::new(config.into(), name)?;
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes)?;
    Ok(bytes)
}

fn measure(bench: &Bench, at: &Running, class: &Class) -> Result<Sample> {
    let SocketAddr::V4(target) = at.address else {
        bail!("the server listens on IPv4");
    };
    let sender = Sender::open().context("raw sockets need root")?;
    let wanted = u64::from(bench.effort.count) * 2;
    let (before_ns, before_runs) = runs(at.server.pid())?;
    for n in 0..wanted {
        sender.send(&Segment {
            source: SocketAddrV4::new(SOURCE, 1024 + (n % 60_000) as u16),
            target,
            sequence: n as u32,
            acknowledged: 1,
            flags: class.flags,
            timestamps: class.timestamps.then_some((1, 0)),
            payload: &class.payload,
        })?;
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    let (ns, runs) = loop {
        let (ns, runs) = runs(at.server.pid())?;
        if runs - before_runs >= wanted {
            break (ns - before_ns, runs - before_runs);
        }
        ensure!(
            Instant::now() < deadline,
            "{} runs for {wanted} packets",
            runs - before_runs
        );
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut sample = Sample::from(ns as f64 / runs as f64);
    sample.detail.insert("runs".to_owned(), runs as f64);
    Ok(sample)
}

/// Nanoseconds and runs of the server's sk_reuseport program.
fn runs(pid: u32) -> Result<(u64, u64)> {
    for file in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        let text = std::fs::read_to_string(file.path()).unwrap_or_default();
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().parse::<u64>().ok()
        };
        if value("prog_type:") == Some(BPF_PROG_TYPE_SK_REUSEPORT) {
            let both = value("run_time_ns:").zip(value("run_cnt:"));
            return both.context("the kernel tells no times of its programs");
        }
    }
    bail!("the server has no steering program")
}

/// While this lives, the kernel measures its programs.
struct Stats(String);

impl Stats {
    fn enable() -> Result<Self> {
        let before = std::fs::read_to_string(SWITCH)?;
        std::fs::write(SWITCH, "1").context("measuring programs needs root")?;
        Ok(Self(before))
    }
}

impl Drop for Stats {
    fn drop(&mut self) {
        let _ = std::fs::write(SWITCH, self.0.trim());
    }
}

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
const BPF_PROG_TYPE_SK_REUSEPORT: u64 = 21;
const KNOWN: &str = "a.bench.test";
/// Nobody else in the run has it.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 9, 9, 9);
