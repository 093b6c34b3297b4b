//! Every server that is measured, started from its configuration under `bench/peers`.
//!
//! The configurations say, line by line, why each choice is fair. What is the same for all: one core,
//! one certificate, X25519, TLS 1.3, no tickets and no resumption (but where resumption is measured), no
//! log line per connection, and the staple byte for byte, if the server can staple at all.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustls::NamedGroup;

use crate::bench::{Bench, PLAIN, STAPLED, free_address};
use crate::client::{Connection, Suite};
use crate::machine::{self, SERVER_CORE};
use crate::process::{Launch, STARTS_WITHIN, Server};
use crate::relay;

/// A server under test, and where it listens.
pub struct Running {
    /// The process tree.
    pub server: Server,
    /// TLS (or, for the plain relay, TCP) address.
    pub address: SocketAddr,
}

/// A program that others make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// nginx, `stream`, which before 1.27.2 cannot staple.
    NginxStream,
    /// nginx, `http`, with the staple from a file.
    NginxHttp,
    /// HAProxy, TCP mode.
    HaProxy,
    /// Hitch.
    Hitch,
    /// h2o.
    H2o,
    /// stunnel, which before 5.73 cannot staple.
    Stunnel,
    /// Apache, mod_ssl and mod_proxy_http.
    Apache,
    /// Caddy.
    Caddy,
}

/// Where a program comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edition {
    /// Installed on this Debian 12.
    Installed,
    /// Out of a directory with Debian 13 (trixie), see `bench/trixie.sh`; with its own libraries.
    Trixie,
}

/// A TLS terminator to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which.
    pub program: Program,
    /// Whose build.
    pub edition: Edition,
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::installed(Program::NginxStream),
        Self::installed(Program::NginxHttp),
        Self::installed(Program::HaProxy),
        Self::installed(Program::Hitch),
        Self::installed(Program::H2o),
        Self::installed(Program::Stunnel),
        Self::installed(Program::Apache),
        Self::trixie(Program::NginxStream),
        Self::trixie(Program::NginxHttp),
        Self::trixie(Program::HaProxy),
        Self::trixie(Program::Hitch),
        Self::trixie(Program::Caddy),
    ];

    /// From this Debian 12.
    pub const fn installed(program: Program) -> Self {
        let edition = Edition::Installed;
        Self { program, edition }
    }

    /// From Debian 13.
    pub const fn trixie(program: Program) -> Self {
        let edition = Edition::Trixie;
        Self { program, edition }
    }

    /// Name in tables and of its files.
    pub fn name(self) -> String {
        let name = match self.program {
            Program::NginxStream => "nginx-stream",
            Program::NginxHttp => "nginx-http",
            Program::HaProxy => "haproxy",
            Program::Hitch => "hitch",
            Program::H2o => "h2o",
            Program::Stunnel => "stunnel",
            Program::Apache => "apache",
            Program::Caddy => "caddy",
        };
        match self.edition {
            Edition::Installed => name.to_owned(),
            Edition::Trixie => format!("{name}-trixie"),
        }
    }

    /// Whether it staples.
    pub fn staples(self) -> bool {
        !matches!(self.program, Program::NginxStream | Program::Stunnel)
    }

    /// Whether it holds thousands of idle connections as it is configured here. Apache ties a thread
    /// to each that has not asked yet.
    pub fn holds_idle(self) -> bool {
        self.program != Program::Apache
    }

    /// The program and its package.
    fn path(self) -> (&'static str, &'static str) {
        match self.program {
            Program::NginxStream | Program::NginxHttp => ("/usr/sbin/nginx", "nginx-light"),
            Program::HaProxy => ("/usr/sbin/haproxy", "haproxy"),
            Program::Hitch => ("/usr/sbin/hitch", "hitch"),
            Program::H2o => ("/usr/bin/h2o", "h2o"),
            Program::Stunnel => ("/usr/bin/stunnel4", "stunnel4"),
            Program::Apache => ("/usr/sbin/apache2", "apache2-bin"),
            Program::Caddy => ("/usr/bin/caddy", "caddy"),
        }
    }

    /// Where its edition's files begin.
    fn root(self) -> PathBuf {
        match self.edition {
            Edition::Installed => "/".into(),
            Edition::Trixie => {
                std::env::var_os("CLINCH_TRIXIE").map_or_else(|| TRIXIE.into(), PathBuf::from)
            }
        }
    }

    fn modules(self) -> PathBuf {
        self.root().join("usr/lib/nginx/modules")
    }

    /// What to execute, or what to do where it is missing.
    pub fn command(self) -> Result<PathBuf, String> {
        let (program, package) = self.path();
        let root = self.root();
        // In a directory, each has a script that starts it with the libraries of its own release.
        let path = match self.edition {
            Edition::Installed => root.join(&program[1..]),
            Edition::Trixie => root
                .join("start")
                .join(program.rsplit('/').next().unwrap_or(program)),
        };
        let missing = |what: &str| Err(format!("{} left out: {what}", self.name()));
        if !path.exists() {
            return missing(&match self.edition {
                Edition::Installed => format!("install {package}"),
                Edition::Trixie => "make bench-newest brings it".to_owned(),
            });
        }
        let module = self.modules().join("ngx_stream_module.so");
        if self.program == Program::NginxStream && !module.exists() {
            return missing("install libnginx-mod-stream");
        }
        Ok(path)
    }

    /// One line that names the version.
    pub fn version(self) -> String {
        let argument = match self.program {
            Program::Hitch => "-V",
            Program::Stunnel => "-version",
            Program::Caddy => "version",
            _ => "-v",
        };
        let Ok(program) = self.command() else {
            return String::new();
        };
        format!("{}: {}", self.name(), machine::output(program, &[argument]))
    }

    /// Starts it; it staples, if it can, when this returns.
    pub fn start(self, bench: &Bench) -> Result<Running> {
        self.start_with(bench, 0)
    }

    /// Starts it with so many session tickets for each full handshake.
    pub fn start_with(self, bench: &Bench, tickets: u8) -> Result<Running> {
        let template = match self.program {
            Program::NginxStream => include_str!("../peers/nginx-stream.conf"),
            Program::NginxHttp => include_str!("../peers/nginx-http.conf"),
            Program::HaProxy => include_str!("../peers/haproxy.cfg"),
            Program::Hitch => include_str!("../peers/hitch.conf"),
            Program::H2o => include_str!("../peers/h2o.conf"),
            Program::Stunnel => include_str!("../peers/stunnel.conf"),
            Program::Apache => include_str!("../peers/apache.conf"),
            Program::Caddy => include_str!("../peers/caddy.json"),
        };
        let template = match self.program {
            Program::Caddy => without_comments(template),
            _ => template.to_owned(),
        };
        let address = free_address()?;
        let values = resumption(tickets, &self.modules());
        let name = self.name();
        let configuration = configure(bench, &name, &template, address, &values)?;
        let openssl = include_str!("../peers/openssl.cnf");
        let openssl = configure(bench, "openssl", openssl, address, &values)?;
        if self.program == Program::H2o {
            script(bench, "h2o-staple")?;
        }
        let program = self.command().map_err(anyhow::Error::msg)?;
        let arguments = match self.program {
            Program::NginxStream | Program::NginxHttp | Program::H2o => {
                vec!["-c".to_owned(), configuration]
            }
            Program::HaProxy => vec!["-db".to_owned(), "-f".to_owned(), configuration],
            Program::Hitch => vec![format!("--config={configuration}")],
            Program::Stunnel => vec![configuration],
            Program::Apache => vec!["-DFOREGROUND".to_owned(), "-f".to_owned(), configuration],
            Program::Caddy => ["run", "--config", &configuration]
                .map(str::to_owned)
                .to_vec(),
        };
        let launch = Launch {
            program,
            arguments,
            environment: vec![
                ("OPENSSL_CONF".to_owned(), openssl),
                // Caddy: one core each; and it keeps its files with the bench's.
                ("GOMAXPROCS".to_owned(), "1".to_owned()),
                ("XDG_DATA_HOME".to_owned(), text(bench.directory.path())?),
                ("XDG_CONFIG_HOME".to_owned(), text(bench.directory.path())?),
            ],
            log: log(bench, &name),
            cores: vec![SERVER_CORE],
            // A thread for each connection: the CPU time of those that ended would be lost.
            whole_process: self.program == Program::Stunnel,
            name,
        };
        let running = running(launch, address)?;
        wait_until_serving(bench, &running, self.staples(), tickets)?;
        Ok(running)
    }
}

/// Some fetch their staple after they have begun to listen, or on the first handshake.
fn wait_until_serving(bench: &Bench, at: &Running, staple: bool, tickets: u8) -> Result<()> {
    let client = bench.client(STAPLED, staple, Suite::Aes128Gcm, NamedGroup::X25519)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let one = bench.run(async {
            let mut connection = Connection::open(at.address, Some(&client), &mut buffer).await?;
            connection.request("/", &mut buffer).await?;
            anyhow::Ok(())
        });
        match one {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                let said = at.server.output();
                return Err(error).context(format!("tickets {tickets}; it said: {said}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// What templates say about resumption, in each server's own words, and where nginx's modules are.
fn resumption(tickets: u8, modules: &Path) -> [(&'static str, String); 6] {
    let word = |off: &str, on: &str| if tickets == 0 { off } else { on }.to_owned();
    [
        ("TICKETS", tickets.to_string()),
        ("SWITCH", word("off", "on")),
        ("NO_TICKETS", word("no-tls-tickets", "")),
        ("NO_TICKETS_BOOL", word("true", "false")),
        ("H2O_RESUMPTION", word("off", "ticket")),
        ("MODULES", modules.display().to_string()),
    ]
}

fn without_comments(template: &str) -> String {
    let lines = template.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| format!("{line}\n")).collect()
}

/// A program that prints the staple.
fn script(bench: &Bench, name: &str) -> Result<()> {
    let path = bench.directory.path().join(name);
    let staple = text(&bench.sites[STAPLED].staple_file)?;
    std::fs::write(&path, format!("#!/bin/sh\nexec cat '{staple}'\n"))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Where `bench/trixie.sh` puts it, unless `CLINCH_TRIXIE` says otherwise.
const TRIXIE: &str = "/var/cache/clinch-bench/trixie";

/// How a clinch under test differs from the ordinary one.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Name in tables and of its files.
    pub name: String,
    /// Workers, one core each from `first_core` on.
    pub workers: usize,
    /// The core of the first worker.
    pub first_core: usize,
    /// The program, if it is not the ordinary one.
    pub program: Option<PathBuf>,
    /// Session tickets for each full handshake.
    pub tickets: u8,
}

impl Default for Variant {
    fn default() -> Self {
        Self {
            name: "clinch".to_owned(),
            workers: 1,
            first_core: SERVER_CORE,
            program: None,
            tickets: 0,
        }
    }
}

/// Starts clinch; it has fetched its staple when this returns, or the first handshake will tell.
pub fn clinch(bench: &Bench, variant: &Variant) -> Result<Running> {
    let address = free_address()?;
    let program = variant.program.as_ref().unwrap_or(&bench.clinch);
    let configuration = clinch_configuration(bench, variant, address)?;
    let launch = Launch {
        name: variant.name.clone(),
        program: program.clone(),
        arguments: vec!["run".to_owned(), "-c".to_owned(), configuration],
        environment: Vec::new(),
        log: log(bench, &variant.name),
        cores: (variant.first_core..variant.first_core + variant.workers).collect(),
        whole_process: false,
    };
    running(launch, address)
}

/// Starts clinch's workers without its control, see [`crate::data_plane`], from a `clinch-bench`
/// program. They publish while the file returned exists.
pub fn data_plane(bench: &Bench, name: &str, program: &Path) -> Result<(Running, PathBuf)> {
    let variant = Variant {
        name: name.to_owned(),
        ..Variant::default()
    };
    workers_alone(bench, variant, program, 0)
}

/// The same with a worker on either core, of which one takes connections, and with so many sites more
/// (see [`crate::crowd`]). What is no worker's work is done on both cores.
pub fn data_plane_with_crowd(bench: &Bench, name: &str, crowd: u32) -> Result<(Running, PathBuf)> {
    let variant = Variant {
        name: name.to_owned(),
        workers: 2,
        ..Variant::default()
    };
    workers_alone(bench, variant, &std::env::current_exe()?, crowd)
}

fn workers_alone(
    bench: &Bench,
    variant: Variant,
    program: &Path,
    crowd: u32,
) -> Result<(Running, PathBuf)> {
    let address = free_address()?;
    let configuration = clinch_configuration(bench, &variant, address)?;
    let publish_while = bench
        .directory
        .path()
        .join(format!("{}.publish", variant.name));
    let launch = Launch {
        program: program.to_owned(),
        arguments: vec![
            "data-plane".to_owned(),
            configuration,
            text(&bench.sites[STAPLED].staple_file)?,
            text(&publish_while)?,
            format!("--crowd={crowd}"),
        ],
        environment: Vec::new(),
        log: log(bench, &variant.name),
        cores: (variant.first_core..variant.first_core + variant.workers).collect(),
        whole_process: false,
        name: variant.name,
    };
    let mut server = Server::start(&launch)?;
    // A certificate with its staple takes less than a millisecond to make.
    let patience = STARTS_WITHIN + Duration::from_millis(crowd.into());
    server.wait_until_listening(address, patience)?;
    Ok((Running { server, address }, publish_while))
}

fn clinch_configuration(bench: &Bench, variant: &Variant, address: SocketAddr) -> Result<String> {
    let directory = bench.directory.path();
    let (stapled, plain) = (&bench.sites[STAPLED], &bench.sites[PLAIN]);
    let values = [
        ("WORKERS", variant.workers.to_string()),
        ("TICKETS", variant.tickets.to_string()),
        ("NAME", stapled.name.clone()),
        ("PLAIN_NAME", plain.name.clone()),
        ("PLAIN_CERT", text(&plain.cert)?),
        ("PLAIN_KEY", text(&plain.key)?),
        (
            "ADMIN",
            text(&directory.join(format!("{}.sock", variant.name)))?,
        ),
    ];
    let template = include_str!("../peers/clinch.toml");
    configure(bench, &variant.name, template, address, &values)
}

/// Certificates in files: `NAME.pem` and `NAME.key`, and both in `combined/NAME.pem`.
pub struct Many<'a> {
    /// Where they are.
    pub directory: &'a Path,
    /// The names.
    pub names: &'a [String],
}

/// Starts clinch (`None`) or a peer with many certificates. It may not serve yet when this returns.
pub fn start_many(bench: &Bench, peer: Option<Peer>, many: &Many<'_>) -> Result<Running> {
    let address = free_address()?;
    let pile = text(many.directory)?;
    let sites = |site: &dyn Fn(&str) -> String| -> String {
        many.names.iter().map(|name| site(name)).collect()
    };
    let backend = bench.backend;
    let (template, sites) = match peer.map(|peer| peer.program) {
        None => (
            include_str!("../peers/clinch-many.toml"),
            sites(&|name| {
                format!(
                    "[[site]]\nnames = [\"{name}\"]\ncert = \"{pile}/{name}.pem\"\nkey = \"{pile}/{name}.key\"\nbackend = [\"{backend}\"]\n"
                )
            }),
        ),
        Some(Program::NginxHttp) => (
            include_str!("../peers/nginx-many.conf"),
            sites(&|name| {
                format!(
                    "server {{ listen {address} ssl; server_name {name}; ssl_certificate {pile}/{name}.pem; \
                     ssl_certificate_key {pile}/{name}.key; location / {{ proxy_pass http://{backend}; }} }}\n"
                )
            }),
        ),
        Some(Program::HaProxy) => (include_str!("../peers/haproxy-many.cfg"), String::new()),
        Some(Program::Hitch) => (include_str!("../peers/hitch-many.conf"), String::new()),
        Some(other) => anyhow::bail!("{other:?} is not measured with many certificates"),
    };
    let name = peer.map_or("clinch".to_owned(), Peer::name) + "-many";
    let values = [("PILE", pile.clone()), ("SITES", sites)];
    let configuration = configure(bench, &name, template, address, &values)?;
    let program = match peer {
        None => bench.clinch.clone(),
        Some(peer) => peer.command().map_err(anyhow::Error::msg)?,
    };
    let arguments = match peer.map(|peer| peer.program) {
        None => vec!["run".to_owned(), "-c".to_owned(), configuration],
        // -W: a master that can be told to reload.
        Some(Program::HaProxy) => vec!["-W".to_owned(), "-f".to_owned(), configuration],
        Some(Program::Hitch) => vec![format!("--config={configuration}")],
        Some(_) => vec!["-c".to_owned(), configuration],
    };
    let launch = Launch {
        program,
        arguments,
        environment: Vec::new(),
        log: log(bench, &name),
        cores: vec![SERVER_CORE],
        whole_process: false,
        name,
    };
    let server = Server::start(&launch)?;
    Ok(Running { server, address })
}

/// Starts the relay without TLS, which is this program in another role. `flights`: it expects as many
/// bytes to and fro as a handshake has, first.
pub fn plain_relay(bench: &Bench, runtime: relay::Runtime, flights: bool) -> Result<Running> {
    let address = free_address()?;
    let with = if flights { "-flights" } else { "" };
    let name = format!("plain-relay-{runtime:?}{with}").to_lowercase();
    let flights = flights.then(|| "--flights".to_owned());
    let launch = Launch {
        program: std::env::current_exe()?,
        arguments: [
            "plain-relay".to_owned(),
            address.to_string(),
            bench.backend.to_string(),
            format!("{runtime:?}").to_lowercase(),
        ]
        .into_iter()
        .chain(flights)
        .collect(),
        environment: Vec::new(),
        log: log(bench, &name),
        cores: vec![SERVER_CORE],
        whole_process: false,
        name,
    };
    running(launch, address)
}

fn running(launch: Launch, address: SocketAddr) -> Result<Running> {
    let mut server = Server::start(&launch)?;
    server.wait_until_listening(address, STARTS_WITHIN)?;
    Ok(Running { server, address })
}

/// Fills a template in and writes it; gives the path.
fn configure(
    bench: &Bench,
    file: &str,
    template: &str,
    listen: SocketAddr,
    more: &[(&str, String)],
) -> Result<String> {
    let directory = bench.directory.path();
    let site = &bench.sites[STAPLED];
    let mut filled = template.to_owned();
    if bench.older {
        for (newer, older) in OLDER {
            filled = filled.replace(newer, older);
        }
    }
    let values = [
        ("DIR", text(directory)?),
        ("LISTEN", listen.to_string()),
        ("HOST", listen.ip().to_string()),
        ("PORT", listen.port().to_string()),
        ("BACKEND", bench.backend.to_string()),
        ("BACKEND_HOST", bench.backend.ip().to_string()),
        ("BACKEND_PORT", bench.backend.port().to_string()),
        ("CERT", text(&site.cert)?),
        ("KEY", text(&site.key)?),
        ("COMBINED", text(&site.combined)?),
        ("STAPLE", text(&site.staple_file)?),
    ];
    for (key, value) in values.iter().chain(more) {
        filled = filled.replace(&format!("@{key}@"), value);
    }
    let path = directory.join(format!("{file}.conf"));
    std::fs::write(&path, filled)?;
    text(&path)
}

/// What templates say about TLS 1.3, and what they say instead where TLS 1.2 alone is measured.
const OLDER: [(&str, &str); 6] = [
    // nginx, Hitch, HAProxy, h2o, and clinch, which has no upper bound: the client decides.
    ("ssl_protocols TLSv1.3", "ssl_protocols TLSv1.2"),
    ("tls-protos = TLSv1.3", "tls-protos = TLSv1.2"),
    (
        "ssl-min-ver TLSv1.3",
        "ssl-min-ver TLSv1.2 ssl-max-ver TLSv1.2",
    ),
    (
        "    neverbleed: OFF",
        "    maximum-version: TLSv1.2\n    neverbleed: OFF",
    ),
    ("min_version = \"1.3\"", "min_version = \"1.2\""),
    (
        "ciphers = [\"TLS13_AES_128_GCM_SHA256\"",
        "ciphers = [\"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\", \"TLS13_AES_128_GCM_SHA256\"",
    ),
];

fn log(bench: &Bench, name: &str) -> PathBuf {
    bench.directory.path().join(format!("{name}.log"))
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str();
    Ok(text.context("a temporary path is UTF-8")?.to_owned())
}
