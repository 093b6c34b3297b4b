//! A guard around a running `clinch`: started from the built binary with a configuration file, ready
//! when its admin socket says so, ended by its own process id alone.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::metrics::{Answer, Metrics, ask};
use crate::peers::Said;
use crate::{PROMPT, eventually};

/// A running `clinch run`.
pub struct Clinch {
    child: Child,
    config: PathBuf,
    admin: PathBuf,
    log: Arc<Mutex<String>>,
    /// Read its output until that ends.
    readers: Vec<JoinHandle<()>>,
    ended: Option<ExitStatus>,
}

/// How to start it.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Bound on open descriptors (soft and hard).
    pub descriptors: Option<u64>,
    /// Do not wait until it is ready.
    pub impatient: bool,
    /// Capabilities it must do without, as setpriv names them: `-bpf,-net_admin`.
    pub without: Option<String>,
    /// Environment variables added.
    pub environment: Vec<(String, String)>,
}

impl Clinch {
    /// Starts `clinch run -c config` and waits until `/readyz` on the admin socket answers 200.
    ///
    /// # Panics
    /// When it ends, or is not ready in time; the message carries its log.
    #[track_caller]
    pub fn start(config: &Path, admin: &Path, how: &Start) -> Self {
        let mut command = match (how.descriptors, &how.without) {
            (None, None) => Command::new(binary()),
            (None, Some(capabilities)) => {
                let mut setpriv = Command::new("setpriv");
                setpriv
                    .arg(format!("--bounding-set={capabilities}"))
                    .arg(binary());
                setpriv
            }
            (Some(n), _) => {
                let mut prlimit = Command::new("prlimit");
                prlimit.arg(format!("--nofile={n}:{n}")).arg(binary());
                prlimit
            }
        };
        let mut child = command
            .args(["run", "-c"])
            .arg(config)
            .envs(how.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary().display()));
        let log = Arc::new(Mutex::new(String::new()));
        let readers = vec![
            collect(child.stdout.take().expect("piped"), &log),
            collect(child.stderr.take().expect("piped"), &log),
        ];
        let mut clinch = Self {
            child,
            config: config.to_owned(),
            admin: admin.to_owned(),
            log,
            readers,
            ended: None,
        };
        if !how.impatient {
            clinch.wait_until_ready();
        }
        clinch
    }

    /// Waits until `/readyz` answers 200.
    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        eventually("clinch is ready", PROMPT, || {
            assert!(!self.has_ended(), "clinch ended instead of getting ready");
            (self.try_ask("/readyz")?.status == 200).then_some(())
        });
    }

    /// Asks the admin socket.
    #[track_caller]
    pub fn ask(&self, path: &str) -> Answer {
        ask(&self.admin, path).unwrap_or_else(|error| panic!("admin socket, {path}: {error}"))
    }

    /// The figures of this moment.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.ask("/metrics").body)
    }

    /// The sum of a family's samples with these labels, at this moment.
    #[track_caller]
    pub fn count(&self, family: &str, labels: &[&str]) -> f64 {
        self.metrics().sum(family, labels)
    }

    /// Waits until the sum of a family's samples with these labels is at least `least`.
    #[track_caller]
    pub fn wait_for_count(&self, family: &str, labels: &[&str], least: f64) {
        let what = format!("{family} {labels:?} >= {least}");
        eventually(&what, PROMPT, || {
            (self.count(family, labels) >= least).then_some(())
        });
    }

    /// The JSON status.
    #[track_caller]
    pub fn status(&self) -> serde_json::Value {
        let body = self.ask("/status").body;
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("status: {error}: {body}"))
    }

    /// Everything logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic holds it").clone()
    }

    /// Waits until the log has `part`.
    #[track_caller]
    pub fn wait_for_log(&self, part: &str) {
        eventually(&format!("{part:?} in the log"), PROMPT, || {
            self.log().contains(part).then_some(())
        });
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time that it has taken, to 10 ms.
    pub fn cpu_time(&self) -> Duration {
        let stat = format!("/proc/{}/stat", self.pid());
        let stat = std::fs::read_to_string(stat).expect("it runs");
        // proc(5): user and system time are the 14th and 15th field, the name the second.
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|n| n.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 10)
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> u64 {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs");
        open.count() as u64
    }

    /// Bounds its descriptors from now on.
    #[track_caller]
    pub fn limit_descriptors(&self, most: u64) {
        let (pid, limit) = (self.pid().to_string(), format!("--nofile={most}:"));
        let said = crate::peers::run("prlimit", &["--pid", &pid, &limit]);
        assert_eq!(said.code, Some(0), "{}", said.text);
    }

    /// The configuration file it was started with.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The admin socket.
    pub fn admin(&self) -> &Path {
        &self.admin
    }

    /// Sends a signal to this process.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("our own child");
        }
        self.ended.is_some()
    }

    /// Waits until it, and every process that writes to its log, ends.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let status = eventually("clinch ends", limit, || {
            self.has_ended();
            self.ended
        });
        eventually("its log ends", PROMPT, || {
            self.readers
                .iter()
                .all(JoinHandle::is_finished)
                .then_some(())
        });
        status
    }

    /// Ends it with SIGTERM and asserts that it ended well.
    #[track_caller]
    pub fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let status = self.wait(PROMPT);
        assert!(status.success(), "clinch ended with {status}");
        self.log()
    }

    /// Like [`Clinch::stop`], once these connections are closed.
    #[track_caller]
    pub fn stop_after<T>(self, connections: Vec<T>) -> String {
        drop(connections);
        self.stop()
    }

    /// Ends it at once with SIGKILL, as a crash would.
    pub fn crash(mut self) {
        self.kill();
    }

    fn try_ask(&self, path: &str) -> Option<Answer> {
        ask(&self.admin, path).ok()
    }

    fn kill(&mut self) {
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for Clinch {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- log of clinch\n{}----", self.log());
        }
    }
}

/// Runs another command of clinch to its end.
#[track_caller]
pub fn clinch(arguments: &[&str]) -> Said {
    crate::peers::run(binary().to_str().expect("a path in UTF-8"), arguments)
}

/// The binary under test: `$CLINCH_BIN`, else built now from the sources.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("CLINCH_BIN") {
            return path.into();
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args([
                "build",
                "--workspace",
                "--bin",
                "clinch",
                "--locked",
                "--quiet",
            ])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo runs");
        assert!(built.success(), "clinch does not build");
        // This test is target/debug/deps/NAME-HASH.
        let test = std::env::current_exe().expect("a running program has a path");
        let target = test
            .ancestors()
            .nth(2)
            .expect("deps in a profile's directory");
        target.join("clinch")
    })
}

fn collect(from: impl std::io::Read + Send + 'static, log: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let mut log = log.lock().expect("no panic holds it");
            log.push_str(&String::from_utf8_lossy(&line));
            log.push('\n');
        }
    })
}
