//! Every server that is measured, started from its configuration under `bench/peers`.
//!
//! The configurations say, line by line, why each choice is fair. What is the same for all: one core,
//! one certificate, X25519, TLS 1.3, no tickets and no resumption, no log line per connection, and
//! the staple byte for byte, if the server can staple at all.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::bench::{Bench, PLAIN, STAPLED, free_address};
use crate::machine::{self, SERVER_CORE};
use crate::process::{Launch, Server};
use crate::relay;

/// A server under test, and where it listens.
pub struct Running {
    /// The process tree.
    pub server: Server,
    /// TLS (or, for the plain relay, TCP) address.
    pub address: SocketAddr,
}

/// A peer: a TLS terminator that others make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// nginx, `stream`, which in Debian 12 cannot staple.
    NginxStream,
    /// nginx, `http`, with the staple from a file.
    NginxHttp,
    /// HAProxy, TCP mode.
    HaProxy,
    /// Hitch.
    Hitch,
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::NginxStream,
        Self::NginxHttp,
        Self::HaProxy,
        Self::Hitch,
    ];

    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::NginxStream => "nginx-stream",
            Self::NginxHttp => "nginx-http",
            Self::HaProxy => "haproxy",
            Self::Hitch => "hitch",
        }
    }

    /// Whether it staples.
    pub fn staples(self) -> bool {
        self != Self::NginxStream
    }

    /// The program, or what to install where it is missing.
    pub fn program(self) -> Result<PathBuf, String> {
        let (program, package) = match self {
            Self::NginxStream | Self::NginxHttp => ("/usr/sbin/nginx", "nginx-light"),
            Self::HaProxy => ("/usr/sbin/haproxy", "haproxy"),
            Self::Hitch => ("/usr/sbin/hitch", "hitch"),
        };
        let module = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
        let missing = |package| Err(format!("{} left out: install {package}", self.name()));
        match self {
            _ if !Path::new(program).exists() => missing(package),
            Self::NginxStream if !module.exists() => missing("libnginx-mod-stream"),
            _ => Ok(program.into()),
        }
    }

    /// One line that names the version.
    pub fn version(self) -> String {
        let argument = match self {
            Self::NginxStream | Self::NginxHttp | Self::HaProxy => "-v",
            Self::Hitch => "-V",
        };
        let program = self.program().unwrap_or_default();
        format!("{}: {}", self.name(), machine::output(program, &[argument]))
    }

    /// Starts it.
    pub fn start(self, bench: &Bench) -> Result<Running> {
        let (template, file) = match self {
            Self::NginxStream => (include_str!("../peers/nginx-stream.conf"), "nginx-stream"),
            Self::NginxHttp => (include_str!("../peers/nginx-http.conf"), "nginx-http"),
            Self::HaProxy => (include_str!("../peers/haproxy.cfg"), "haproxy"),
            Self::Hitch => (include_str!("../peers/hitch.conf"), "hitch"),
        };
        let address = free_address()?;
        let configuration = configure(bench, file, template, address, &[])?;
        let openssl = bench.directory.path().join("openssl.cnf");
        std::fs::write(&openssl, include_str!("../peers/openssl.cnf"))?;
        let arguments = match self {
            Self::NginxStream | Self::NginxHttp => vec!["-c".to_owned(), configuration],
            Self::HaProxy => vec!["-db".to_owned(), "-f".to_owned(), configuration],
            Self::Hitch => vec![format!("--config={configuration}")],
        };
        let launch = Launch {
            name: self.name().to_owned(),
            program: self.program().map_err(anyhow::Error::msg)?,
            arguments,
            environment: vec![("OPENSSL_CONF".to_owned(), text(&openssl)?)],
            log: log(bench, file),
            cores: vec![SERVER_CORE],
        };
        running(launch, address)
    }
}

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
}

impl Default for Variant {
    fn default() -> Self {
        Self {
            name: "clinch".to_owned(),
            workers: 1,
            first_core: SERVER_CORE,
            program: None,
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
    };
    running(launch, address)
}

/// Starts clinch's workers without its control, see [`crate::data_plane`], from a `clinch-bench`
/// program. They publish while the file returned exists.
pub fn data_plane(bench: &Bench, name: &str, program: &Path) -> Result<(Running, PathBuf)> {
    let address = free_address()?;
    let variant = Variant {
        name: name.to_owned(),
        ..Variant::default()
    };
    let configuration = clinch_configuration(bench, &variant, address)?;
    let publish_while = bench.directory.path().join(format!("{name}.publish"));
    let launch = Launch {
        program: program.to_owned(),
        arguments: vec![
            "data-plane".to_owned(),
            configuration,
            text(&bench.sites[STAPLED].staple_file)?,
            text(&publish_while)?,
        ],
        environment: Vec::new(),
        log: log(bench, &variant.name),
        cores: vec![SERVER_CORE],
        name: variant.name,
    };
    Ok((running(launch, address)?, publish_while))
}

fn clinch_configuration(bench: &Bench, variant: &Variant, address: SocketAddr) -> Result<String> {
    let directory = bench.directory.path();
    let (stapled, plain) = (&bench.sites[STAPLED], &bench.sites[PLAIN]);
    let values = [
        ("WORKERS", variant.workers.to_string()),
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

/// Starts the relay without TLS, which is this program in another role.
pub fn plain_relay(bench: &Bench, runtime: relay::Runtime) -> Result<Running> {
    let address = free_address()?;
    let name = format!("plain-relay-{runtime:?}").to_lowercase();
    let launch = Launch {
        program: std::env::current_exe()?,
        arguments: vec![
            "plain-relay".to_owned(),
            address.to_string(),
            bench.backend.to_string(),
            format!("{runtime:?}").to_lowercase(),
        ],
        environment: Vec::new(),
        log: log(bench, &name),
        cores: vec![SERVER_CORE],
        name,
    };
    running(launch, address)
}

fn running(launch: Launch, address: SocketAddr) -> Result<Running> {
    let mut server = Server::start(&launch)?;
    server.wait_until_listening(address)?;
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

fn log(bench: &Bench, name: &str) -> PathBuf {
    bench.directory.path().join(format!("{name}.log"))
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str();
    Ok(text.context("a temporary path is UTF-8")?.to_owned())
}
