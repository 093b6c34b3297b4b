//! A directory with a certificate, a backend and a configuration, and the process that runs on it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use clinch::cli::demo::authority::{Authority, LeafSpec};
use clinch::clock;
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Longest wait for anything that should happen at once.
const PROMPT: Duration = Duration::from_secs(20);

/// The only site.
pub(crate) const NAME: &str = "www.example.test";

/// Files to run on. Everything is removed with it.
pub(crate) struct Place {
    directory: tempfile::TempDir,
    authority: Authority,
    /// Top-level keys of the configuration.
    pub(crate) top: String,
    /// `address` of the only listener.
    pub(crate) address: String,
    /// `listen` of the admin interface.
    pub(crate) admin_listen: String,
    /// Further lines of the configuration, in tables.
    pub(crate) tables: String,
    backend: SocketAddr,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::with_leaf(LeafSpec::default())
    }

    /// With a certificate that is as `spec` says, but for its name.
    pub(crate) fn with_leaf(spec: LeafSpec) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("ours");
        let authority = Authority::new(clock::now()).expect("an authority");
        let spec = LeafSpec {
            names: vec![NAME.to_owned()],
            ..spec
        };
        let issued = authority.issue(&spec).expect("a leaf");
        let place = Self {
            admin_listen: format!("unix:{}/run/admin.sock", directory.path().display()),
            directory,
            authority,
            top: "workers = 2\n".to_owned(),
            address: own_address(),
            tables: String::new(),
            backend: echo(),
        };
        fs::write(place.path("leaf.pem"), &issued.chain_pem).expect("written");
        fs::write(place.path("leaf.key"), &issued.key_pem).expect("written");
        fs::set_permissions(place.path("leaf.key"), PermissionsExt::from_mode(0o600))
            .expect("ours");
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn admin(&self) -> PathBuf {
        self.path("run/admin.sock")
    }

    /// Gives the key to a user.
    pub(crate) fn give_key_to(&self, uid: u32) {
        chown(self.path("leaf.key"), Some(uid), Some(uid)).expect("root may");
    }

    /// Writes the configuration as it is described now.
    pub(crate) fn write_config(&self) -> PathBuf {
        let at = |name: &str| self.path(name).display().to_string();
        let text = format!(
            "{}cache_dir = \"{}\"\n[egress]\nallow = [\"127.0.0.0/8\"]\nports = [\"1-65535\"]\n[admin]\nlisten = \"{}\"\n[listen.public]\naddress = \"{}\"\n\
             [[site]]\nnames = \"{NAME}\"\ncert = \"{}\"\nkey = \"{}\"\nbackend = \"{}\"\n{}",
            self.top,
            at("cache"),
            self.admin_listen,
            self.address,
            at("leaf.pem"),
            at("leaf.key"),
            self.backend,
            self.tables,
        );
        let path = self.path("clinch.toml");
        fs::write(&path, text).expect("written");
        path
    }

    /// `clinch run` on this place, not started yet; its log goes to the file `log`.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clinch"));
        command.args(["run", "-c"]).arg(self.write_config());
        self.log_of(&mut command);
        command
    }

    pub(crate) fn log_of(&self, command: &mut Command) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .expect("ours");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(&self) -> Running {
        self.spawn(&mut self.command())
    }

    /// Starts a command that is, or becomes, `clinch run`, and waits until it is ready.
    pub(crate) fn spawn(&self, command: &mut Command) -> Running {
        let mut running = self.spawn_unready(command);
        eventually("clinch is ready", || {
            if let Some(status) = running.child.try_wait().expect("our child") {
                panic!("clinch ended with {status}:\n{}", self.log());
            }
            (ask(&self.admin_listen, "GET", "/readyz")?.status == 200).then_some(())
        });
        running
    }

    /// Starts a command that is `clinch run`, and waits for nothing.
    pub(crate) fn spawn_unready(&self, command: &mut Command) -> Running {
        Running {
            child: command.spawn().expect("started"),
            admin: self.admin_listen.clone(),
            log: self.path("log"),
            root: self.authority.root().clone(),
        }
    }

    /// Runs it until it ends by itself: the exit code and what it said.
    pub(crate) fn fail_to_start(&self) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_clinch"))
            .args(["run", "-c"])
            .arg(self.write_config())
            .stdin(Stdio::null())
            .output()
            .expect("started");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().expect("ended by itself"), said)
    }

    /// Another command of the binary: exit code, standard output, standard error.
    pub(crate) fn clinch(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_clinch"))
            .args(arguments)
            .output()
            .expect("started");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().expect("ended by itself");
        (code, text(&output.stdout), text(&output.stderr))
    }
}

/// A started process; killed when dropped.
pub(crate) struct Running {
    child: Child,
    admin: String,
    log: PathBuf,
    root: CertificateDer<'static>,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("a process id");
        kill_process(pid, signal).expect("our child");
    }

    /// The JSON status.
    pub(crate) fn status(&self) -> serde_json::Value {
        let answer = ask(&self.admin, "GET", "/status").expect("answered");
        serde_json::from_str(&answer.body).expect("JSON")
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        let status = self.status();
        let address = status["listeners"][0]["address"]
            .as_str()
            .expect("a listener");
        address.parse().expect("an address")
    }

    /// A TLS connection through which the backend has answered.
    pub(crate) fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("a root");
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(NAME).expect("a name");
        let tls = ClientConnection::new(Arc::new(config), name).expect("sound");
        let socket = TcpStream::connect(self.address()).expect("listening");
        socket.set_read_timeout(Some(PROMPT)).expect("our socket");
        let mut stream = StreamOwned::new(tls, socket);
        echoed(&mut stream);
        stream
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("clinch has ended", || {
            self.child.try_wait().expect("our child")
        })
    }

    /// A field of /proc/PID/status, of every thread, which must agree.
    pub(crate) fn proc_status(&self, field: &str) -> String {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("running");
        let mut values: Vec<String> = tasks
            .map(|task| fs::read_to_string(task.expect("listed").path().join("status")))
            .map(|text| {
                let text = text.expect("readable");
                let line = text.lines().find_map(|line| line.strip_prefix(field));
                line.expect(field).trim_start_matches(':').trim().to_owned()
            })
            .collect();
        values.dedup();
        assert_eq!(values.len(), 1, "threads differ in {field}: {values:?}");
        values.remove(0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!(
                "log of clinch:\n{}",
                fs::read_to_string(&self.log).unwrap_or_default()
            );
        }
    }
}

/// Asserts that bytes go to the backend and back.
pub(crate) fn echoed(stream: &mut (impl Read + Write)) {
    stream.write_all(b"ping").expect("sent");
    let mut back = [0; 4];
    stream.read_exact(&mut back).expect("echoed");
    assert_eq!(&back, b"ping");
}

/// An answer of the admin interface.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Makes one request to the admin socket; `None` when nobody answers.
pub(crate) fn ask(admin: &str, method: &str, path: &str) -> Option<Answer> {
    exchange(
        admin,
        &format!("{method} {path} HTTP/1.1\r\nHost: clinch\r\n\r\n"),
    )
}

/// Sends bytes to the admin interface and reads until it closes.
pub(crate) fn exchange(admin: &str, request: &str) -> Option<Answer> {
    let text = match admin.strip_prefix("unix:") {
        Some(path) => {
            let stream = UnixStream::connect(path).ok()?;
            stream.set_read_timeout(Some(PROMPT)).ok()?;
            talk(stream, request)
        }
        None => {
            let stream = TcpStream::connect(admin).ok()?;
            stream.set_read_timeout(Some(PROMPT)).ok()?;
            talk(stream, request)
        }
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some(Answer {
        status: head.split(' ').nth(1)?.parse().ok()?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

fn talk(mut stream: impl Read + Write, request: &str) -> Vec<u8> {
    let mut text = Vec::new();
    // It may answer and close before it has read all.
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.read_to_end(&mut text);
    text
}

/// Polls until `event` gives a value.
pub(crate) fn eventually<T>(what: &str, mut event: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PROMPT;
    loop {
        if let Some(value) = event() {
            return value;
        }
        assert!(Instant::now() < deadline, "not in {PROMPT:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// An address that no other test of this process uses, nor one of a process that runs beside it.
fn own_address() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    format!(
        "127.{}.{low}.{}:8443",
        high | 0x40,
        NEXT.fetch_add(1, Relaxed)
    )
}

/// Whether this test may run: it needs root.
pub(crate) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: needs root");
    }
    root
}

/// A backend that sends back what it gets.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut reader = stream.try_clone().expect("a descriptor");
                let _ = std::io::copy(&mut reader, &mut &stream);
            });
        }
    });
    address
}
