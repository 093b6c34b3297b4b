//! Keeps clinch running: starts it, hears when it is ready, starts it again when it ends, and asks
//! it to drain when the machine goes down.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::console;
use crate::run::Children;
use crate::say;

/// Where clinch finds its configuration: a link to the generation in use.
pub const CONFIG: &str = "/config";
/// The user that clinch becomes.
pub const CLINCH_USER: u32 = 900;

/// A running clinch, or the place for one.
#[derive(Clone, Debug)]
pub struct Clinch {
    children: Children,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    process: AtomicU32,
    starts: AtomicU64,
    ready: AtomicBool,
}

impl Clinch {
    /// Listens for what clinch says about itself.
    pub fn new(children: Children) -> std::io::Result<Self> {
        let state = Arc::<State>::default();
        fs::create_dir_all("/run/clinch")?;
        chown("/run/clinch", Some(CLINCH_USER), Some(CLINCH_USER))?;
        let socket = UnixDatagram::bind(NOTIFY)?;
        // It speaks after it has given up root.
        fs::set_permissions(NOTIFY, fs::Permissions::from_mode(0o622))?;
        let heard = Arc::clone(&state);
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]);
                if text.lines().any(|line| line == "READY=1") {
                    heard.ready.store(true, Ordering::SeqCst);
                }
            }
        });
        Ok(Self { children, state })
    }

    /// Starts it; `ended` hears of the end.
    pub fn start(&self, ended: mpsc::Sender<ExitStatus>) -> std::io::Result<()> {
        self.state.ready.store(false, Ordering::SeqCst);
        let mut child = self.children.start(
            Command::new("/bin/clinch")
                .args(["run", "-c", &format!("{CONFIG}/clinch.toml")])
                .env_clear()
                .env("NOTIFY_SOCKET", NOTIFY)
                .env("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped()),
        )?;
        self.state.process.store(child.id(), Ordering::SeqCst);
        self.state.starts.fetch_add(1, Ordering::SeqCst);
        if let Some(lines) = child.stderr.take() {
            std::thread::spawn(move || pass_lines(lines));
        }
        let me = self.clone();
        std::thread::spawn(move || {
            let status = child.wait();
            me.state.process.store(0, Ordering::SeqCst);
            me.state.ready.store(false, Ordering::SeqCst);
            me.children.ended(child.id());
            if let Ok(status) = status {
                let _ = ended.send(status);
            }
        });
        Ok(())
    }

    /// Whether it serves.
    pub fn is_ready(&self) -> bool {
        self.state.ready.load(Ordering::SeqCst)
    }

    /// Whether its process is there.
    pub fn is_running(&self) -> bool {
        self.state.process.load(Ordering::SeqCst) != 0
    }

    /// How often it was started.
    pub fn starts(&self) -> u64 {
        self.state.starts.load(Ordering::SeqCst)
    }

    /// Asks it to finish what is open and waits for its end, at most `within`; then it is ended.
    pub fn drain(&self, within: Duration) {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + within;
        while self.is_running() {
            if Instant::now() > deadline {
                say!("clinch did not drain within {within:?} and is ended");
                self.signal(Signal::KILL);
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn signal(&self, signal: Signal) {
        let process = self.state.process.load(Ordering::SeqCst);
        if let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// How long to wait before the next start: at once after a long run, else longer each time.
#[derive(Debug)]
pub struct BackOff {
    next: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { next: SHORTEST }
    }
}

impl BackOff {
    /// The wait after a run of this length.
    pub fn after(&mut self, ran: Duration) -> Duration {
        if ran > LONGEST {
            self.next = SHORTEST;
        }
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        wait
    }
}

/// What PID 1 must know of `clinch.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Ports of all listeners.
    pub ports: BTreeSet<u16>,
    /// First listener, as an address of this machine.
    pub first: Option<SocketAddr>,
    /// First name of the first site.
    pub name: Option<String>,
    /// Whether `clinch firewall apply` keeps the egress pin.
    pub kept: bool,
}

/// Reads what is served, and checks what the image demands of `clinch.toml`: that clinch and its
/// egress process run as the users that the packet filter knows.
pub fn served(folder: &Path) -> Result<Served, String> {
    let file = folder.join("clinch.toml");
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let table: toml::Table = text
        .parse()
        .map_err(|error| format!("clinch.toml: {error}"))?;
    let text_at = |table: &toml::Table, key: &str| Some(table.get(key)?.as_str()?.to_owned());
    if text_at(&table, "user").as_deref() != Some("clinch") {
        return Err("clinch.toml: `user = \"clinch\"` is needed on the appliance".to_owned());
    }
    let egress = table.get("egress").and_then(toml::Value::as_table);
    if egress.and_then(|egress| text_at(egress, "user")).as_deref() != Some("clinch-egress") {
        return Err("clinch.toml: `[egress] user = \"clinch-egress\"` is needed on the appliance; the packet filter knows it by that".to_owned());
    }
    let listeners = table.get("listen").and_then(toml::Value::as_table);
    let addresses = listeners.into_iter().flatten().filter_map(|(_, listener)| {
        let address = listener.get("address")?;
        Some(strings(address))
    });
    let addresses: Vec<SocketAddr> = addresses.flatten().filter_map(|a| a.parse().ok()).collect();
    let site = table
        .get("site")
        .and_then(toml::Value::as_array)
        .and_then(|sites| sites.first());
    let names = site.and_then(|site| site.get("names")).map(strings);
    Ok(Served {
        ports: addresses.iter().map(SocketAddr::port).collect(),
        first: addresses.first().map(|address| reachable(*address)),
        name: names.and_then(|names| names.first().map(|name| name.replacen('*', "probe", 1))),
        kept: table.contains_key("firewall"),
    })
}

fn strings(value: &toml::Value) -> Vec<String> {
    match value {
        toml::Value::String(one) => vec![one.clone()],
        toml::Value::Array(many) => many
            .iter()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

/// An address to connect to for one that is listened on.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// Passes lines to the console, in pieces of bounded length.
pub fn pass_lines(from: impl Read) {
    const LONGEST_LINE: u64 = 4096;
    let mut reader = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        match reader
            .by_ref()
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut line)
        {
            Ok(0) | Err(_) => return,
            Ok(_) => console::pass_on(String::from_utf8_lossy(&line).trim_end()),
        }
    }
}

const NOTIFY: &str = "/run/notify";
const SHORTEST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_waits_longer_after_each_short_run() {
        let mut back_off = BackOff::default();
        let waits: Vec<u128> = (0..9)
            .map(|_| back_off.after(Duration::ZERO).as_millis())
            .collect();
        assert_eq!(
            waits,
            [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]
        );
        assert_eq!(back_off.after(Duration::from_secs(60)), SHORTEST);
    }

    #[test]
    fn what_is_served_is_read_and_the_users_are_demanded() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: &str| fs::write(dir.path().join("clinch.toml"), text).unwrap();
        write(
            "user = 'clinch'\n[egress]\nuser = 'clinch-egress'\n[listen.public]\naddress = ['0.0.0.0:8443', '[::]:443']\n[[site]]\nnames = ['*.example.com']\n",
        );
        let found = served(dir.path()).unwrap();
        assert_eq!(found.ports, BTreeSet::from([443, 8443]));
        assert_eq!(found.first, Some("127.0.0.1:8443".parse().unwrap()));
        assert_eq!(found.name.as_deref(), Some("probe.example.com"));
        assert!(!found.kept);
        write("user = 'clinch'\n[egress]\nuser = 'clinch-egress'\n[firewall]\n");
        assert!(served(dir.path()).unwrap().kept);
        write("user = 'clinch'\n");
        assert!(served(dir.path()).unwrap_err().contains("clinch-egress"));
        write("user = 'root'\n");
        assert!(
            served(dir.path())
                .unwrap_err()
                .contains("user = \"clinch\"")
        );
    }
}
