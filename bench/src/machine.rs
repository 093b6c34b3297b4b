//! The machine a measurement ran on: cores, and the facts recorded beside every figure.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::process::Resource;
use rustix::thread::CpuSet;
use serde::Serialize;

/// The core of the server under test.
pub const SERVER_CORE: usize = 0;
/// The core of client, backend and responder.
pub const CLIENT_CORE: usize = 1;

/// Moves the calling thread, and the threads it will start, to one core.
pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| {
        format!("cannot use core {core}: the measurements need cores 0 and 1 for themselves")
    })
}

/// Raises the soft limit of open files to the hard one: thousands of connections are held here, and
/// the servers under test inherit the limit.
pub fn raise_file_limit() -> Result<()> {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(Resource::Nofile, limit).context("cannot raise the file limit")
}

/// A higher limit of open files than the ordinary one, as long as this lives: root may raise the hard
/// limit, too. It is for one scenario: some servers make tables by it.
pub struct FileLimit {
    before: rustix::process::Rlimit,
}

impl FileLimit {
    /// Raises it to `files` if it is lower and that is allowed; ask [`FileLimit::current`].
    pub fn raise(files: u64) -> Self {
        let before = rustix::process::getrlimit(Resource::Nofile);
        let higher = |limit: Option<u64>| limit.map(|limit| limit.max(files));
        let raised = rustix::process::Rlimit {
            current: higher(before.current),
            maximum: higher(before.maximum),
        };
        let _ = rustix::process::setrlimit(Resource::Nofile, raised);
        Self { before }
    }

    /// The limit in force.
    pub fn current(&self) -> u64 {
        let limit = rustix::process::getrlimit(Resource::Nofile).current;
        limit.unwrap_or(u64::MAX)
    }
}

impl Drop for FileLimit {
    fn drop(&mut self) {
        let _ = rustix::process::setrlimit(Resource::Nofile, self.before);
    }
}

/// What a reader needs to judge or repeat a measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    /// Start of the run, UTC.
    pub date: String,
    /// `uname -a` without the host name.
    pub kernel: String,
    /// Model of the CPU.
    pub cpu: String,
    /// Cores online.
    pub cores: usize,
    /// Load averages over 1, 5 and 15 minutes when the run started.
    pub load_at_start: String,
    /// The same when it ended.
    pub load_at_end: Option<String>,
    /// The command line.
    pub command: Vec<String>,
    /// Revision of the source tree, with `+` where it was changed.
    pub revision: String,
    /// Versions of what took part, one line each.
    pub versions: Vec<String>,
}

impl Environment {
    /// Looks around.
    pub fn observe() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown", |(_, model)| model);
        Self {
            date: now(),
            kernel: output("uname", &["-srvm"]),
            cpu: cpu.to_owned(),
            cores: cpuinfo.matches("processor\t").count(),
            load_at_start: load(),
            load_at_end: None,
            command: std::env::args().collect(),
            revision: revision(),
            versions: Vec::new(),
        }
    }

    /// A name for the kind of machine, fit for a directory: cores and CPU model.
    pub fn slug(&self) -> String {
        let words = format!("{}x {}", self.cores, self.cpu).to_lowercase();
        let dashed: String = words
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        dashed.trim_matches('-').to_owned()
    }
}

/// The load averages, as the kernel writes them.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// First line of a program's output (either stream), or why there is none.
pub fn output(program: impl AsRef<Path>, arguments: &[&str]) -> String {
    let program = program.as_ref();
    match Command::new(program).args(arguments).output() {
        Ok(output) => {
            let bytes = if output.stdout.is_empty() {
                output.stderr
            } else {
                output.stdout
            };
            let text = String::from_utf8_lossy(&bytes);
            text.lines().next().unwrap_or_default().trim().to_owned()
        }
        Err(error) => format!("{}: {error}", program.display()),
    }
}

fn revision() -> String {
    let head = output("git", &["rev-parse", "--short=12", "HEAD"]);
    let changes = output("git", &["status", "--porcelain", "--untracked-files=no"]);
    if changes.is_empty() {
        head
    } else {
        format!("{head}+")
    }
}

fn now() -> String {
    time::OffsetDateTime::now_utc()
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default()
}
