//! The configuration file: raw TOML is parsed once into types that are valid by construction.
//! Pure: no file is read, no name resolved, no path looked at.
//!
//! Three passes, each of which finds all that is wrong at its level: is it TOML (`document`), does
//! it have the shape of the schema (`shape`, from the structs of `raw`), does it make sense
//! (`build`). The caller reads the file and shows the [`ConfigError`]; whether certificates and
//! sockets are there is for `control` to find out.

mod build;
mod document;
mod egress;
mod firewall;
mod forms;
mod names;
mod problem;
mod raw;
mod reference;
mod shape;
mod stapling;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::{Limits, Timeouts};

pub use egress::{Egress, PortRange, Proxy, Resolver, Secret};
pub use firewall::{Firewall, FirewallFormat};
pub use problem::{ConfigError, Fault, Problem, Unusable};
pub use reference::reference;
pub use shape::schema;
pub use stapling::{CertIdHash, NonceUse, Ocsp, OnRevoked, RequestMethod};

/// A whole valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// User (and optionally group) to become after the sockets are bound.
    pub user: Option<String>,
    /// Worker threads; `None` is one per core that the process may run on.
    pub workers: Option<usize>,
    /// Where verified staples survive a restart; `None` turns the cache off.
    pub cache: Option<PathBuf>,
    /// Client connections a worker may hold and similar bounds.
    pub limits: Limits,
    /// How long each wait may last.
    pub timeouts: Timeouts,
    /// Listeners in file order.
    pub listeners: Vec<Listener>,
    /// Sites in file order.
    pub sites: Vec<Site>,
    /// The admin interface.
    pub admin: Admin,
    /// Log format and level.
    pub log: Log,
    /// The process that talks to responders.
    pub egress: Egress,
    /// The rules that pin that process; `None`: nobody is asked to open an address.
    pub firewall: Option<Firewall>,
    /// How connections find their core.
    pub steering: Steering,
}

/// How connections find their core.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// Who chooses the core.
    pub mode: SteeringMode,
    /// Refuse unknown names in the kernel, where the listener has no default site.
    pub refuse_unknown: bool,
    /// A worker that gets a connection of another serves it.
    pub serve_misplaced: bool,
    /// The table is written: what steering needs is prepared at the start, even if it is off.
    pub prepared: bool,
}

impl Steering {
    /// Whether workers hand over what belongs to others.
    pub fn hands_over(&self) -> bool {
        self.mode != SteeringMode::Off && !self.serve_misplaced
    }
}

/// Who chooses the core of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SteeringMode {
    /// The kernel, by hash; connections stay where they come.
    #[default]
    Off,
    /// The kernel, by hash; a worker hands over what belongs to another.
    HandOver,
    /// The kernel, by server name.
    Kernel,
}

/// The cores of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// Numbers of the workers it is confined to; empty: all.
    pub workers: Vec<u16>,
    /// Among how many its connections are spread.
    pub share: u16,
}

impl Default for Confinement {
    fn default() -> Self {
        Self {
            workers: Vec::new(),
            share: 1,
        }
    }
}

/// One `[listen.NAME]` table.
#[derive(Clone, Debug)]
pub struct Listener {
    /// NAME.
    pub name: String,
    /// Socket addresses. `[::]` is IPv6 only, so that `0.0.0.0` beside it does not collide.
    pub addresses: Vec<SocketAddr>,
    /// Oldest protocol version.
    pub min_version: TlsVersion,
    /// Cipher suites in order of preference (rustls names, e.g. `TLS13_AES_128_GCM_SHA256`).
    pub ciphers: Vec<Cipher>,
    /// Key exchange groups in order of preference.
    pub groups: Vec<Group>,
    /// TLS 1.3 tickets sent after a full handshake; 0 turns resumption off (TLS 1.2 too).
    pub tickets: u8,
    /// Sources whose PROXY header is required and believed; others must not send one.
    pub proxy_from: Vec<ipnet::IpNet>,
    /// Site (index into [`Config::sites`]) for a client that names none or an unknown one; `None`: refuse with `unrecognized_name`.
    pub default_site: Option<usize>,
    /// The kernel seals and opens records where it can.
    pub ktls: bool,
    /// Length of each socket's accept queue.
    pub backlog: u32,
}

/// A protocol version that may be the oldest.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    Tls13,
}

/// A cipher suite. The variants are rustls's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[expect(non_camel_case_types, reason = "the IANA names")]
pub enum Cipher {
    /// TLS 1.3.
    TLS13_AES_128_GCM_SHA256,
    /// TLS 1.3.
    TLS13_AES_256_GCM_SHA384,
    /// TLS 1.3.
    TLS13_CHACHA20_POLY1305_SHA256,
    /// TLS 1.2.
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    /// TLS 1.2.
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    /// TLS 1.2.
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    /// TLS 1.2.
    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    /// TLS 1.2.
    TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    /// TLS 1.2.
    TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

/// A key exchange group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Group {
    /// X25519 with ML-KEM-768 (draft-ietf-tls-ecdhe-mlkem).
    #[serde(rename = "X25519MLKEM768")]
    X25519Mlkem768,
    /// RFC 7748.
    X25519,
    /// secp256r1.
    #[serde(rename = "P-256")]
    P256,
    /// secp384r1.
    #[serde(rename = "P-384")]
    P384,
}

impl Cipher {
    /// All of them in the default order of preference. AES-128 first: it is the fastest where the
    /// CPU has AES instructions, and no attack is known that the longer key would stop.
    pub const ALL: [Self; 9] = [
        Self::TLS13_AES_128_GCM_SHA256,
        Self::TLS13_AES_256_GCM_SHA384,
        Self::TLS13_CHACHA20_POLY1305_SHA256,
        Self::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        Self::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        Self::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        Self::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        Self::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        Self::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ];

    /// Whether it belongs to TLS 1.3.
    pub fn is_tls13(self) -> bool {
        matches!(
            self,
            Self::TLS13_AES_128_GCM_SHA256
                | Self::TLS13_AES_256_GCM_SHA384
                | Self::TLS13_CHACHA20_POLY1305_SHA256
        )
    }
}

impl Group {
    /// All of them in the default order of preference.
    pub const ALL: [Self; 4] = [Self::X25519Mlkem768, Self::X25519, Self::P256, Self::P384];
}

/// One `[[site]]` table.
#[derive(Clone, Debug)]
pub struct Site {
    /// What the site is called in status and logs: its first name.
    pub name: String,
    /// DNS names, lower case A-labels, wildcards as `*.example.com`.
    pub names: Vec<String>,
    /// Indices into [`Config::listeners`]; all of them by default.
    pub listeners: Vec<usize>,
    /// Certificate and key files, in file order.
    pub certificates: Vec<CertificateFiles>,
    /// Where the bytes go.
    pub backends: Vec<Backend>,
    /// PROXY header sent to the backend.
    pub proxy_protocol: Option<ProxyVersion>,
    /// ALPN protocols in order of preference; empty: none negotiated.
    pub alpn: Vec<String>,
    /// Stapling of the site's certificates.
    pub ocsp: Ocsp,
    /// The cores that its connections may go to.
    pub confinement: Confinement,
}

/// One certificate of a site.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// PEM: leaf first, then issuers.
    pub cert: PathBuf,
    /// PEM: the key, mode 600 or stricter.
    pub key: PathBuf,
}

/// One backend as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `host:port`, host a name or an address; names are resolved when the configuration is loaded.
    Tcp(String),
    /// `unix:/path`.
    Unix(PathBuf),
}

/// Version of an outgoing PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ProxyVersion {
    /// Text.
    #[serde(rename = "v1")]
    V1,
    /// Binary, with the TLVs authority, ALPN, SSL and unique id.
    #[serde(rename = "v2")]
    V2,
}

/// The admin interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens; `None`: no admin interface.
    pub listen: Option<AdminAddress>,
}

/// Where the admin interface listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// Unix socket, mode 600.
    Unix(PathBuf),
    /// TCP, loopback only.
    Tcp(SocketAddr),
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// One JSON object a line instead of text.
    pub json: bool,
    /// `tracing` filter directives, e.g. `info` or `clinch=debug`.
    pub level: String,
}

impl Config {
    /// Parses and validates a configuration file's text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::parse_all(text).map_err(ConfigError::new)
    }

    fn parse_all(text: &str) -> Result<Self, Vec<Problem>> {
        let document = document::Document::parse(text)?;
        let problems = shape::check(&document);
        if !problems.is_empty() {
            return Err(problems);
        }
        let file = document.read()?;
        build::build(&document, file)
    }
}

#[cfg(test)]
mod tests;
