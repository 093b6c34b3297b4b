//! The servers that are compared, as Debian 12 has them, each with a configuration that is as good as
//! its settings allow (`tests/peers/`, where the choices are explained).

use std::fs;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clinch::cli::demo::authority::Issued;
use rustix::process::{Pid, Signal};

use crate::peers::present;
use crate::process::{Clinch, Start};
use crate::setup::{Files, Setup, set_mode};

/// A server, with or without its checks where it has a switch for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// What this is about.
    Clinch,
    /// nginx, `ssl_stapling`.
    Nginx,
    /// nginx, with `ssl_stapling_verify`.
    NginxVerify,
    /// Apache, `SSLUseStapling`.
    Apache,
    /// Apache, told not to staple the responder's errors.
    ApacheQuiet,
    /// Hitch.
    Hitch,
    /// Hitch, with `ocsp-verify-staple`.
    HitchVerify,
    /// HAProxy 2.6, which fetches nothing: an operator's script does.
    HaProxy,
}

/// What a server is started on.
pub struct Ground<'a> {
    /// Addresses and directory.
    pub setup: &'a Setup,
    /// Certificate and key of the site.
    pub files: &'a Files,
    /// The same.
    pub issued: &'a Issued,
    /// Where the bytes go.
    pub backend: &'a str,
}

/// A started server; dropped, it ends with all its processes.
pub enum Running {
    /// Clinch.
    Clinch(Box<Clinch>),
    /// Another one.
    Peer(Peer),
}

/// A peer's process group.
pub struct Peer {
    child: Child,
    log: PathBuf,
    /// Ends the script that fetches for HAProxy.
    over: Arc<AtomicBool>,
}

impl Server {
    /// All, in the order of the table's columns.
    pub const ALL: [Self; 8] = [
        Self::Clinch,
        Self::Nginx,
        Self::NginxVerify,
        Self::HaProxy,
        Self::Apache,
        Self::ApacheQuiet,
        Self::Hitch,
        Self::HitchVerify,
    ];

    /// Name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clinch => "clinch",
            Self::Nginx => "nginx",
            Self::NginxVerify => "nginx, verify",
            Self::HaProxy => "HAProxy + script",
            Self::Apache => "Apache",
            Self::ApacheQuiet => "Apache, no errors",
            Self::Hitch => "Hitch",
            Self::HitchVerify => "Hitch, verify",
        }
    }

    /// Name for the command line, files and host names.
    pub fn key(self) -> &'static str {
        match self {
            Self::Clinch => "clinch",
            Self::Nginx => "nginx",
            Self::NginxVerify => "nginx-verify",
            Self::HaProxy => "haproxy",
            Self::Apache => "apache",
            Self::ApacheQuiet => "apache-quiet",
            Self::Hitch => "hitch",
            Self::HitchVerify => "hitch-verify",
        }
    }

    /// Whether the machine has it.
    pub fn is_there(self) -> bool {
        self.program()
            .is_none_or(|program| Path::new(program).exists())
            && (self != Self::HaProxy || present("openssl"))
    }

    /// One line that names the version.
    pub fn version(self) -> String {
        let (program, argument) = match self.program() {
            None => (crate::process::binary().display().to_string(), "--version"),
            Some(program @ "/usr/sbin/hitch") => (program.to_owned(), "-V"),
            Some(program) => (program.to_owned(), "-v"),
        };
        let said = crate::peers::run(&program, &[argument]).text;
        said.lines().next().unwrap_or_default().trim().to_owned()
    }

    fn program(self) -> Option<&'static str> {
        match self {
            Self::Clinch => None,
            Self::Nginx | Self::NginxVerify => Some("/usr/sbin/nginx"),
            Self::HaProxy => Some("/usr/sbin/haproxy"),
            Self::Apache | Self::ApacheQuiet => Some("/usr/sbin/apache2"),
            Self::Hitch | Self::HitchVerify => Some("/usr/sbin/hitch"),
        }
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(self, ground: &Ground<'_>) -> Running {
        let Some(program) = self.program() else {
            let how = Start {
                impatient: true,
                ..Start::default()
            };
            return Running::Clinch(Box::new(ground.setup.start_as(&how)));
        };
        let configuration = ground.configure(self.template(), self.choices());
        let log = ground.setup.dir().join("peer.log");
        let output = fs::File::create(&log).expect("our own directory");
        let mut command = Command::new(program);
        match self {
            Self::Nginx | Self::NginxVerify => command.arg("-c").arg(&configuration),
            Self::Apache | Self::ApacheQuiet => {
                command.args(["-D", "FOREGROUND", "-f"]).arg(&configuration)
            }
            Self::HaProxy => command.args(["-db", "-f"]).arg(&configuration),
            _ => command.arg(format!("--config={}", configuration.display())),
        };
        let child = command
            // Hitch verifies against the machine's roots, and has no setting for others.
            .env("SSL_CERT_FILE", ground.setup.dir().join("trusted.pem"))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("descriptors are left"))
            .stderr(output)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let over = Arc::new(AtomicBool::new(false));
        if self == Self::HaProxy {
            ground.fetch_for_haproxy(&over);
        }
        Running::Peer(Peer { child, log, over })
    }

    fn template(self) -> &'static str {
        match self {
            Self::Clinch => unreachable!("it has no template"),
            Self::Nginx | Self::NginxVerify => include_str!("../../peers/nginx.conf"),
            Self::HaProxy => include_str!("../../peers/haproxy.cfg"),
            Self::Apache | Self::ApacheQuiet => include_str!("../../peers/apache.conf"),
            Self::Hitch | Self::HitchVerify => include_str!("../../peers/hitch.conf"),
        }
    }

    /// What `@VERIFY@` and `@ERRORS@` stand for.
    fn choices(self) -> (&'static str, &'static str) {
        let verify = matches!(self, Self::NginxVerify | Self::HitchVerify);
        let errors = self != Self::ApacheQuiet;
        let written = |on| if on { "on" } else { "off" };
        (written(verify), written(errors))
    }
}

impl Ground<'_> {
    /// Fills a template in and writes it.
    fn configure(&self, template: &str, (verify, errors): (&str, &str)) -> PathBuf {
        let dir = self.setup.dir();
        // Servers change to users of their own, which must reach their directories.
        set_mode(dir, 0o755);
        let staples = dir.join("staples");
        fs::create_dir(&staples).expect("our own directory");
        set_mode(&staples, 0o777);
        let combined = dir.join("combined.pem");
        let pem = self.issued.key_pem.clone() + &self.issued.chain_pem;
        fs::write(&combined, pem).expect("our own directory");
        // HAProxy takes staples over its socket for certificates that have such a file only.
        fs::write(dir.join("combined.pem.ocsp"), "").expect("our own directory");
        let trusted = dir.join("trusted.pem");
        let roots = self.setup.authority.intermediate_pem() + &self.setup.authority.root_pem();
        fs::write(&trusted, roots).expect("our own directory");
        fs::write(
            dir.join("issuer.pem"),
            self.setup.authority.intermediate_pem(),
        )
        .expect("our own directory");
        let address = self.setup.address;
        let (backend_host, backend_port) = self.backend.rsplit_once(':').expect("TCP");
        let values = [
            ("DIR", dir.display().to_string()),
            ("STAPLES", staples.display().to_string()),
            ("LISTEN", address.to_string()),
            ("HOST", address.ip().to_string()),
            ("PORT", address.port().to_string()),
            ("BACKEND", self.backend.to_owned()),
            ("BACKEND_HOST", backend_host.to_owned()),
            ("BACKEND_PORT", backend_port.to_owned()),
            ("CERT", self.files.cert.display().to_string()),
            ("KEY", self.files.key.display().to_string()),
            ("COMBINED", combined.display().to_string()),
            ("TRUSTED", trusted.display().to_string()),
            ("NAME_SERVER", super::NAME_SERVER.to_owned()),
            ("VERIFY", verify.to_owned()),
            ("ERRORS", errors.to_owned()),
        ];
        let mut filled = template.to_owned();
        for (key, value) in values {
            filled = filled.replace(&format!("@{key}@"), &value);
        }
        let path = dir.join("peer.conf");
        fs::write(&path, filled).expect("our own directory");
        path
    }

    /// What operators of HAProxy 2.6 have a timer do: `openssl ocsp`, and where it is content the
    /// response is handed over on the socket. Here every ten seconds, which no timer does so often.
    fn fetch_for_haproxy(&self, over: &Arc<AtomicBool>) {
        let dir = self.setup.dir().to_owned();
        let (cert, url) = (self.files.cert.clone(), self.setup.url.clone());
        let over = Arc::clone(over);
        std::thread::spawn(move || {
            let at = |name: &str| dir.join(name).display().to_string();
            while !over.load(Ordering::SeqCst) {
                let began = Instant::now();
                let fetched = Command::new("openssl")
                    .args(["ocsp", "-timeout", "5", "-no_nonce", "-url", &url])
                    .args(["-issuer", &at("issuer.pem"), "-CAfile", &at("trusted.pem")])
                    .args(["-respout", &at("fetched.der")])
                    .arg("-cert")
                    .arg(&cert)
                    .stdin(Stdio::null())
                    .output();
                if fetched.is_ok_and(|output| output.status.success()) {
                    // It may not listen yet; the next round does better.
                    let _ = hand_over(&dir.join("haproxy.sock"), &dir.join("fetched.der"));
                }
                while began.elapsed() < SCRIPT_PERIOD && !over.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        });
    }
}

fn hand_over(socket: &Path, response: &Path) -> std::io::Result<()> {
    use std::io::{Read, Write};
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let path = response.display().to_string();
    let text = crate::peers::run("openssl", &["base64", "-A", "-in", &path]).text;
    writeln!(stream, "set ssl ocsp-response {}", text.trim())?;
    stream.read_to_string(&mut String::new()).map(drop)
}

impl Running {
    /// Fails when it has ended.
    pub fn assert_alive(&mut self) {
        let ended = match self {
            Self::Clinch(clinch) => clinch.has_ended(),
            Self::Peer(peer) => peer.child.try_wait().expect("our own child").is_some(),
        };
        assert!(!ended, "it ended:\n{}", self.log());
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        match self {
            Self::Clinch(clinch) => clinch.log(),
            Self::Peer(peer) => fs::read_to_string(&peer.log).unwrap_or_default(),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let group = Pid::from_child(&self.child);
        let _ = rustix::process::kill_process_group(group, Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(2);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

const SCRIPT_PERIOD: Duration = Duration::from_secs(10);
