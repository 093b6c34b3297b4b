//! The rules in the kernel, through `nft`, or through `iptables` and `ipset`: put in, refilled,
//! looked after, taken out.
//!
//! What the rules say is [`Rules`]' business. The programs get their input on a pipe, no environment,
//! and a bounded time.

use std::io;
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::iptables::{self, Family};
use super::{Opening, Rules, nftables};
use crate::config::FirewallFormat;
use crate::limits::FIREWALL_PROGRAM_TIME;

/// A packet filter, and what it said that it holds.
#[derive(Debug)]
pub struct Kernel {
    format: FirewallFormat,
    /// The rules as listed right after they were put in.
    installed: Option<String>,
}

/// Why the rules are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The program is not there.
    #[error(
        "{program} cannot be run ({reason}); install the Debian package {package}, or choose another `firewall.format`"
    )]
    Absent {
        /// Its name.
        program: String,
        /// Which package has it.
        package: &'static str,
        /// The system's reason.
        reason: io::Error,
    },
    /// It did not end.
    #[error(
        "{program} did not end within {FIREWALL_PROGRAM_TIME:?}; another program may hold the lock of the packet filter"
    )]
    Stuck {
        /// Its name.
        program: String,
    },
    /// It refused.
    #[error(
        "{program} {arguments} failed: {reason}; it needs CAP_NET_ADMIN (iptables-legacy: root with CAP_NET_RAW, too)"
    )]
    Refused {
        /// Its name.
        program: String,
        /// What it was told.
        arguments: String,
        /// What it said.
        reason: String,
    },
    /// The pipes to it broke.
    #[error("{program} cannot be spoken to: {reason}")]
    System {
        /// Its name.
        program: String,
        /// The system's reason.
        reason: io::Error,
    },
}

impl Kernel {
    /// For a packet filter. Nothing is done yet.
    pub fn new(format: FirewallFormat) -> Self {
        Self {
            format,
            installed: None,
        }
    }

    /// Puts in the complete rules, in place of those that are there from an earlier time.
    pub async fn install(&mut self, rules: &Rules) -> Result<(), KernelError> {
        match self.format.program() {
            None => run("nft", &["-f", "-"], &nftables::table(rules)).await?,
            Some(program) => {
                let sets = iptables::refill(&rules.openings);
                run("ipset", &["restore", "-exist"], &sets).await?;
                for (family, program) in families(program) {
                    let present = run(&program, &["-w", "-S", "OUTPUT"], "").await?;
                    let text = iptables::chain(rules, family, &present);
                    restore(&program, &text).await?;
                }
                String::new()
            }
        };
        self.installed = self.listed().await;
        Ok(())
    }

    /// Exchanges what is open; rules and counters stay.
    pub async fn refill(&self, openings: &[Opening]) -> Result<(), KernelError> {
        match self.format.program() {
            None => run("nft", &["-f", "-"], &nftables::refill(openings)).await,
            Some(_) => {
                let sets = iptables::refill(openings);
                run("ipset", &["restore", "-exist"], &sets).await
            }
        }
        .map(drop)
    }

    /// Whether the rules are there as they were put in. What is open is not looked at.
    pub async fn in_place(&self) -> bool {
        self.installed.is_some() && self.listed().await == self.installed
    }

    /// Takes out all that was ever put in, and says what that was.
    pub async fn remove(&mut self) -> Result<Vec<String>, KernelError> {
        self.installed = None;
        let mut removed = Vec::new();
        let Some(program) = self.format.program() else {
            let tables = run("nft", &["list", "tables", "inet"], "").await?;
            if tables.lines().any(|line| line == TABLE_LINE) {
                run("nft", &["-f", "-"], nftables::REMOVAL).await?;
                removed.push(format!("table {}", nftables::TABLE));
            }
            return Ok(removed);
        };
        for (_, program) in families(program) {
            let absent = run(&program, &["-w", "-S", iptables::CHAIN], "")
                .await
                .is_err_and(|error| matches!(error, KernelError::Refused { .. }));
            // Also tells "no such chain" from "not permitted".
            let present = run(&program, &["-w", "-S", "OUTPUT"], "").await?;
            if !absent {
                restore(&program, &iptables::removal(&present)).await?;
                removed.push(format!("{program} chain {}", iptables::CHAIN));
            }
        }
        let sets = run("ipset", &["list", "-n"], "").await?;
        for family in Family::ALL {
            for set in [family.set().to_owned(), format!("{}-next", family.set())] {
                if sets.lines().any(|line| line == set) {
                    run("ipset", &["destroy", &set], "").await?;
                    removed.push(format!("ipset {set}"));
                }
            }
        }
        Ok(removed)
    }

    /// The rules, without counters and members; `None` where there are none, or no one says.
    async fn listed(&self) -> Option<String> {
        let Some(program) = self.format.program() else {
            let table = ["-s", "-t", "list", "table", "inet", "clinch_egress"];
            return run("nft", &table, "").await.ok();
        };
        let mut all = String::new();
        for (_, program) in families(program) {
            let output = run(&program, &["-w", "-S", "OUTPUT"], "").await.ok()?;
            for jump in iptables::jumps(&output) {
                all += jump;
            }
            all += &run(&program, &["-w", "-S", iptables::CHAIN], "")
                .await
                .ok()?;
        }
        Some(all)
    }
}

/// The programs of the families that this machine has.
fn families(program: &str) -> Vec<(Family, String)> {
    let mut families = vec![(Family::V4, program.to_owned())];
    if std::path::Path::new("/proc/net/if_inet6").exists() {
        families.push((Family::V6, iptables::six(program)));
    }
    families
}

async fn restore(program: &str, input: &str) -> Result<(), KernelError> {
    let program = format!("{program}-restore");
    run(&program, &["-w", "--noflush"], input).await.map(drop)
}

/// Runs a program to its end and gives what it wrote.
async fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, KernelError> {
    let talk = converse(program, arguments, input);
    let stuck = |_| KernelError::Stuck {
        program: program.to_owned(),
    };
    let output = timeout(FIREWALL_PROGRAM_TIME, talk)
        .await
        .map_err(stuck)??;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    Err(KernelError::Refused {
        program: program.to_owned(),
        arguments: arguments.join(" "),
        reason: lines.next().unwrap_or("it said nothing").to_owned(),
    })
}

async fn converse(program: &str, arguments: &[&str], input: &str) -> Result<Output, KernelError> {
    let system = |reason| KernelError::System {
        program: program.to_owned(),
        reason,
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|reason| KernelError::Absent {
            program: program.to_owned(),
            package: package(program),
            reason,
        })?;
    let mut pipe = child.stdin.take().expect("piped");
    // What it does not read tells less than what it then says.
    let _ = pipe.write_all(input.as_bytes()).await;
    drop(pipe);
    child.wait_with_output().await.map_err(system)
}

fn package(program: &str) -> &'static str {
    match program {
        "nft" => "nftables",
        "ipset" => "ipset",
        _ => "iptables",
    }
}

/// Our table, in a list of all.
const TABLE_LINE: &str = "table inet clinch_egress";

/// Where administrators' programs are; that of whoever started us may name others.
const PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";
