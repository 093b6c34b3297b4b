//! A server under test: started on its cores, its CPU time and memory read from `/proc`, ended.
//!
//! CPU time is that of the whole process tree, per thread, from `schedstat` (nanoseconds on a CPU).
//! The kernel brings the figure of a running thread up to date only when it leaves the CPU, so the
//! caller waits for [`Server::settled_cpu`] rather than read in the midst of work.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

/// An ordinary server listens by then.
pub const STARTS_WITHIN: Duration = Duration::from_secs(20);

/// How to start a server.
pub struct Launch {
    /// What it is called in tables.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Added to its environment.
    pub environment: Vec<(String, String)>,
    /// Where its output goes.
    pub log: PathBuf,
    /// Cores it may run on.
    pub cores: Vec<usize>,
    /// Take CPU time from whole processes, in ticks of 10 ms, not from their threads: for a server
    /// whose threads end, which takes their times away.
    pub whole_process: bool,
}

/// A running server. Dropping it ends it.
pub struct Server {
    name: String,
    child: Child,
    log: PathBuf,
    whole_process: bool,
}

/// CPU time per thread of a process tree.
#[derive(Clone, Debug, Default)]
pub struct Cpu {
    threads: BTreeMap<(u32, u32), (String, u64)>,
}

impl Cpu {
    /// Nanoseconds spent since `earlier`, over all threads whose name `which` takes.
    pub fn since(&self, earlier: &Self, which: impl Fn(&str) -> bool) -> u64 {
        self.threads
            .iter()
            .filter(|(_, (name, _))| which(name))
            .map(|(thread, (_, now))| {
                now - earlier.threads.get(thread).map_or(0, |(_, before)| *before)
            })
            .sum()
    }

    /// Nanoseconds spent since `earlier` by thread name.
    pub fn by_name(&self, earlier: &Self) -> BTreeMap<String, u64> {
        let mut names = BTreeMap::new();
        for (name, _) in self.threads.values() {
            names
                .entry(name.clone())
                .or_insert_with(|| self.since(earlier, |other| other == name));
        }
        names
    }
}

impl Server {
    /// Starts a server; it ends with this process, however this process ends.
    pub fn start(launch: &Launch) -> Result<Self> {
        let output = std::fs::File::create(&launch.log)?;
        let cores: Vec<String> = launch.cores.iter().map(ToString::to_string).collect();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "taskset", "-c", &cores.join(",")])
            .arg(&launch.program)
            .args(&launch.arguments)
            .envs(launch.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot run setpriv: util-linux is needed")?;
        Ok(Self {
            name: launch.name.clone(),
            child,
            log: launch.log.clone(),
            whole_process: launch.whole_process,
        })
    }

    /// Waits until the server accepts connections.
    pub fn wait_until_listening(&mut self, address: SocketAddr, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            if TcpStream::connect(address).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.name, self.output());
            }
            if Instant::now() > deadline {
                bail!(
                    "{} does not listen on {address} after {patience:?}: {}",
                    self.name,
                    self.output()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the server printed so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Process id of the server's first process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Process ids of the server's whole tree.
    pub fn pids(&self) -> Result<Vec<u32>> {
        tree(self.pid())
    }

    /// CPU time once the server has come to rest: two readings 20 ms apart that differ by less than
    /// 100 µs. A server with timers never stops entirely, hence the bound.
    pub async fn settled_cpu(&self) -> Result<Cpu> {
        let mut last = self.cpu()?;
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let next = self.cpu()?;
            let spent = next.since(&last, |_| true);
            last = next;
            if spent < 100_000 {
                break;
            }
        }
        Ok(last)
    }

    /// CPU time as it stands.
    pub fn cpu(&self) -> Result<Cpu> {
        let mut cpu = Cpu::default();
        for pid in tree(self.pid())? {
            if self.whole_process {
                let spent = process_time(pid)?;
                cpu.threads
                    .insert((pid, pid), ("process".to_owned(), spent));
                continue;
            }
            for task in directory(Path::new(&format!("/proc/{pid}/task"))) {
                // A thread may end between listing and reading.
                let (Ok(name), Ok(stat)) = (
                    std::fs::read_to_string(task.join("comm")),
                    std::fs::read_to_string(task.join("schedstat")),
                ) else {
                    continue;
                };
                let spent = stat.split(' ').next().and_then(|ns| ns.parse().ok());
                let spent = spent.with_context(|| format!("schedstat of {}", task.display()))?;
                let tid = number(&task).context("a task directory is a number")?;
                cpu.threads
                    .insert((pid, tid), (name.trim().to_owned(), spent));
            }
        }
        Ok(cpu)
    }

    /// Resident memory of the whole tree in KiB.
    pub fn resident_kib(&self) -> Result<u64> {
        let mut sum = 0;
        for pid in tree(self.pid())? {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
            sum += kib.map_or(Ok(0), |kib| kib.trim().parse::<u64>())?;
        }
        Ok(sum)
    }
}

/// Keeps every core from halting, with a loop that anybody else goes before, as long as it lives: a virtual
/// core that has halted takes the host tens of microseconds to wake.
pub struct Awake(Vec<Child>);

impl Awake {
    /// Begins.
    pub fn start() -> Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        let mut awake = Self(Vec::with_capacity(cores));
        for core in 0..cores {
            let loops = Command::new("setpriv")
                .args([
                    "--pdeathsig",
                    "KILL",
                    "chrt",
                    "--idle",
                    "0",
                    "taskset",
                    "-c",
                ])
                .args([&core.to_string(), "sh", "-c", "while :; do :; done"])
                .spawn()
                .context("cannot run setpriv: util-linux is needed")?;
            awake.0.push(loops);
        }
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended already; there is nothing else to do for it.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time of a process with all its threads, ended ones too, nanoseconds: utime and stime of its
/// `stat`, which count ticks of 10 ms.
fn process_time(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks = ticks.map(|ticks| ticks.parse::<u64>());
    let sum: u64 = ticks.sum::<Result<u64, _>>().context("utime and stime")?;
    Ok(sum * 10_000_000)
}

/// A process and all that descend from it.
fn tree(root: u32) -> Result<Vec<u32>> {
    let mut parents: Vec<(u32, u32)> = Vec::new();
    for process in directory(Path::new("/proc")) {
        let Some(pid) = number(&process) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(process.join("stat")) else {
            continue;
        };
        // The name in parentheses may hold anything, so fields are counted from its end.
        let fields = stat.rsplit_once(") ").map(|(_, fields)| fields);
        let parent = fields.and_then(|fields| fields.split(' ').nth(1)?.parse().ok());
        parents.push((
            pid,
            parent.with_context(|| format!("/proc/{pid}/stat: {stat}"))?,
        ));
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        let children = parents.iter().filter(|(_, of)| *of == parent);
        found.extend(children.map(|(pid, _)| *pid));
        next += 1;
    }
    Ok(found)
}

fn directory(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn number(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.parse().ok()
}
