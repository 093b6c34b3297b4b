//! The configuration file as it is written: one struct per table, one field per key.
//!
//! The doc comments are the reference (`docs/CONFIGURATION.md`, `clinch schema`): each says what
//! the key means and what choosing it badly costs. Ranges are declared here once; [`super::shape`]
//! enforces them from the schema. What a value means beyond its shape is checked in
//! [`super::build`].

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms::{OcspSwitch, OneOrMany, PathOrOff, PortOrRange, Wait};
use super::stapling::{CertIdHash, NonceUse, OnRevoked, RequestMethod};
use super::{Cipher, FirewallFormat, Group, ProxyVersion, SteeringMode, TlsVersion};
use crate::limits::{Limits, Timeouts, Turns};

/// Configuration of clinch.
///
/// One TOML file. A key that is not listed here is an error, with its line and the nearest known
/// key; `clinch check -c FILE` lists everything that is wrong at once. Durations are written as
/// `"5s"`, `"300ms"`, `"2h 30m"`, `"7days"`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// User, or `user:group`, to become once the sockets are bound and the keys are read. Without
    /// it the process keeps the user that started it, and a flaw in a process that runs as root is
    /// a flaw of the whole machine.
    #[schemars(length(min = 1))]
    pub(super) user: Option<String>,
    /// Worker threads. By default one for each core that the process may run on; more than there
    /// are cores makes them compete, fewer leaves cores to other programs.
    #[schemars(range(min = 1, max = 1024))]
    pub(super) workers: Option<usize>,
    /// Directory in which verified staples survive a restart, or `false` for none. Without it the
    /// first handshakes after a start depend on the responder. What is read from it is verified
    /// again.
    #[serde(default = "default_cache_dir")]
    pub(super) cache_dir: PathOrOff,
    /// What one worker may hold at once.
    #[serde(default)]
    pub(super) limits: LimitsTable,
    /// How long each wait may last.
    #[serde(default)]
    pub(super) timeouts: TimeoutsTable,
    /// Addresses to listen on, each group under a name: `[listen.public]`.
    #[serde(default)]
    pub(super) listen: BTreeMap<String, ListenTable>,
    /// What is served: one `[[site]]` for each set of names.
    #[serde(default)]
    pub(super) site: Vec<SiteTable>,
    /// Stapling, for every site that does not say otherwise in its own `ocsp`.
    #[serde(default)]
    pub(super) ocsp: OcspTable,
    /// Metrics, health and status, for operators.
    #[serde(default)]
    pub(super) admin: AdminTable,
    /// The log, on standard error.
    #[serde(default)]
    pub(super) log: LogTable,
    /// The process that talks to OCSP responders.
    #[serde(default)]
    pub(super) egress: EgressTable,
    /// The rules that pin that process (docs/EGRESS.md).
    pub(super) firewall: Option<FirewallTable>,
    /// How connections find their core (docs/STEERING.md).
    pub(super) steering: Option<SteeringTable>,
}

/// What one worker may hold at once.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsTable {
    /// Client connections a worker holds at once; at the bound it stops accepting and the kernel's
    /// backlog fills. By default as many as the file-descriptor limit carries.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(super) connections_per_worker: Option<usize>,
    /// Connections one client address may hold on one worker; 0 is no bound. Set too low, clients
    /// behind one NAT lock each other out.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(super) connections_per_client: u32,
    /// Bytes a client may send before its handshake is complete. Below 16384, hellos with
    /// post-quantum keys and long tickets may not fit.
    #[schemars(range(min = 4096, max = 1_048_576))]
    pub(super) handshake_bytes: usize,
    /// Largest read from a peer in bulk transfer, in bytes. Larger costs memory for each connection that
    /// moves bytes; smaller costs system calls.
    #[schemars(range(min = 4096, max = 4_194_304))]
    pub(super) read_buffer: usize,
    /// Certificates that one core keeps ready to sign. With fewer than a core's busy names, keys
    /// are parsed again and again.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) ready_certificates_per_core: usize,
}

/// How long each wait may last.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TimeoutsTable {
    /// From accept to the end of the TLS handshake. Longer lets silent clients hold connections.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "10m"))]
    pub(super) handshake: Wait,
    /// One attempt to connect to one backend, before the next one is tried.
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "10m"))]
    pub(super) connect: Wait,
    /// Without a byte in either direction. Shorter ends long polls and idle WebSockets.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "7days"))]
    pub(super) idle: Wait,
    /// After SIGTERM, before the connections that remain are closed.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "1day"))]
    pub(super) drain: Wait,
    /// After both sides were told that the connection ends, before it is dropped.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "10m"))]
    pub(super) linger: Wait,
    /// Before listening, for the first staples. At 0 the first handshakes may go unstapled; long
    /// waits delay a start while a responder is down.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "10m"))]
    pub(super) startup_wait: Wait,
}

/// One group of addresses with its TLS policy.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenTable {
    /// Addresses with port, e.g. `"0.0.0.0:443"` and `"[::]:443"`. `[::]` is IPv6 only, so list
    /// both for dual stack.
    pub(super) address: OneOrMany,
    /// Oldest TLS version. `"1.3"` locks out clients from before about 2018.
    #[serde(default = "default_min_version")]
    pub(super) min_version: TlsVersion,
    /// Cipher suites in order of preference; the server's order counts. By default all that clinch
    /// has, AES-128-GCM first: it is the cheapest where the CPU has AES instructions.
    #[schemars(length(min = 1))]
    pub(super) ciphers: Option<Vec<Cipher>>,
    /// Key exchange groups in order of preference. By default all that clinch has. Without
    /// `X25519MLKEM768`, recorded sessions can be read by a future quantum computer.
    #[schemars(length(min = 1))]
    pub(super) groups: Option<Vec<Group>>,
    /// TLS 1.3 session tickets sent after a full handshake. 0 turns resumption off, for TLS 1.2
    /// too: every connection then costs a signature.
    #[serde(default = "default_tickets")]
    #[schemars(range(min = 0, max = 8))]
    pub(super) tickets: u8,
    /// Networks (`"10.0.0.0/8"`) whose connections begin with a PROXY protocol header. From them it
    /// is required and believed, from all others refused. Whoever is in such a network can claim
    /// any client address.
    #[serde(default)]
    pub(super) proxy_protocol_from: Vec<String>,
    /// Site (one of its names) for clients that send no server name or an unknown one. Without it
    /// they are refused with the alert `unrecognized_name`.
    pub(super) default_site: Option<String>,
    /// Let the kernel seal and open the records of TLS 1.3 connections (kTLS), which saves copies where
    /// backends send much; what the kernel cannot take stays with clinch and is counted. Session keys
    /// are then handed out of the TLS library to the kernel. Before Linux 6.14 a client's key update
    /// ends its connection.
    #[serde(default)]
    pub(super) ktls: bool,
    /// Length of each socket's accept queue; the kernel caps it at `net.core.somaxconn`. Too short,
    /// bursts of connections wait for a retransmission.
    #[serde(default = "default_backlog")]
    #[schemars(range(min = 16, max = 65_535))]
    pub(super) backlog: u32,
}

/// One site: names, certificates, backends.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteTable {
    /// DNS names, in any case and script. `"*.example.com"` stands for exactly one label. The first
    /// name is what the site is called in status and log.
    pub(super) names: OneOrMany,
    /// Certificate file, PEM: the leaf first, then its issuer and the rest of the chain. The issuer
    /// is needed to verify staples.
    pub(super) cert: Option<String>,
    /// Key file of `cert`, PEM, not encrypted, mode 600.
    pub(super) key: Option<String>,
    /// Several certificates for the same names, e.g. ECDSA and RSA, instead of `cert` and `key`.
    /// Each client gets the first that it can verify.
    #[serde(default)]
    pub(super) certificates: Vec<CertificateTable>,
    /// Where the bytes go: `"host:port"` or `"unix:/path"`, one or several. A connection goes to
    /// the backend with the fewest; one that fails is set aside for a while.
    pub(super) backend: OneOrMany,
    /// PROXY protocol header sent to the backends. Every backend of the site must expect it.
    pub(super) proxy_protocol: Option<ProxyVersion>,
    /// ALPN protocols that the backend speaks, in order of preference, e.g. `["h2", "http/1.1"]`.
    /// Without it no protocol is negotiated, and browsers speak HTTP/1.1.
    #[serde(default)]
    pub(super) alpn: Vec<String>,
    /// Names of the `[listen.NAME]` tables that serve the site. By default all.
    #[schemars(length(min = 1))]
    pub(super) listen: Option<Vec<String>>,
    /// Stapling: `true` as in `[ocsp]`, `false` not at all, or a table with the keys of `[ocsp]`
    /// that differ for this site.
    #[serde(default)]
    pub(super) ocsp: OcspSwitch,
    /// Workers (from 0, in the order of their cores) that the site is confined to while `[steering]`
    /// is on. Too few, and the site cannot use the rest of the machine. Numbers without a worker
    /// are ignored.
    #[schemars(length(min = 1, max = 6))]
    pub(super) cores: Option<Vec<u16>>,
    /// Among how many cores the site's connections are spread while `[steering]` is on. More for a
    /// site that one core cannot carry; each core then keeps its certificates.
    #[serde(default = "default_core_share")]
    #[schemars(range(min = 1, max = 6))]
    pub(super) core_share: u16,
}

/// A certificate and its key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CertificateTable {
    /// Certificate file, PEM: the leaf first, then its issuer and the rest of the chain.
    pub(super) cert: String,
    /// Key file, PEM, not encrypted, mode 600.
    pub(super) key: String,
}

/// Stapling of OCSP responses.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OcspTable {
    /// Whether responses are fetched and stapled.
    #[schemars(extend("default" = true))]
    pub(super) enabled: Option<bool>,
    /// URL of the responder to ask, instead of the one named in the certificate. `file:///path` reads
    /// a response that something else keeps up to date (DER); it is verified like any other.
    pub(super) responder: Option<String>,
    /// What a handshake does while no valid staple is there: `"soft"` goes on without, `"hard"`
    /// refuses. By default hard for certificates that demand a staple (Must-Staple, RFC 7633), soft for
    /// the others. With hard, a responder that stays down takes the site down.
    pub(super) policy: Option<StaplePolicy>,
    /// What becomes of a certificate that its CA revoked: `"refuse"` serves the site's other
    /// certificates, and without any refuses the handshake; `"fallback"` then serves those of the
    /// listener's `default_site`; `"serve-unstapled"` goes on serving it, though clients that look
    /// will refuse it. Its sessions are not resumed in any case.
    #[schemars(extend("default" = "refuse"))]
    pub(super) on_revoked: Option<OnRevoked>,
    /// Digest by which requests name the issuer. It protects nothing; `"sha256"` is for responders that
    /// no longer take the usual `"sha1"`, and others may not know it.
    #[schemars(extend("default" = "sha1"))]
    pub(super) hash: Option<CertIdHash>,
    /// How requests are sent. `"auto"` is GET, which caches can answer, where the URL has at most 255
    /// bytes and there is no nonce, and POST otherwise or where the GET is not taken; `"get"` and
    /// `"post"` leave it at that.
    #[schemars(extend("default" = "auto"))]
    pub(super) method: Option<RequestMethod>,
    /// A random number that a fresh response repeats (RFC 9654), so that an old one cannot be played
    /// back: `"ask"` takes a response without, `"require"` does not. Most public responders leave it
    /// out, and no cache can answer then.
    #[schemars(extend("default" = "off"))]
    pub(super) nonce: Option<NonceUse>,
    /// How far the responder's clock may be ahead of this machine's. Too little, and fresh responses
    /// are refused as not yet valid. Nothing is added to nextUpdate: clients have clocks of their own.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "1h", "default" = "5m"))]
    pub(super) skew: Option<Wait>,
    /// Oldest response that is taken where it names no nextUpdate. Longer lets a revocation go
    /// unseen for longer.
    #[schemars(extend("x-minimum" = "1m", "x-maximum" = "90days", "default" = "7days"))]
    pub(super) max_age: Option<Wait>,
    /// Take responses signed with SHA-1. Only for responders that cannot do better: such
    /// signatures can be forged.
    #[schemars(extend("default" = false))]
    pub(super) allow_sha1: Option<bool>,
    /// PEM file. Its certificates may sign responses though the CA did not say so (RFC 6960 section
    /// 4.2.2.2), and one that issued the site's certificate stands in where the certificate file
    /// lacks it. Whoever has one of their keys can hide a revocation.
    pub(super) trust: Option<String>,
    /// Share of a response's validity, counted back from nextUpdate, at which it is refreshed.
    /// Smaller leaves less time for a responder to come back.
    #[schemars(range(min = 0.05, max = 0.95), extend("default" = 0.25))]
    pub(super) margin: Option<f64>,
    /// Longest time between two fetches. By default 12 hours where a response names no nextUpdate, and
    /// else what `margin` comes to. Shorter notices a revocation earlier and costs the CA more.
    #[schemars(extend("x-minimum" = "1m", "x-maximum" = "90days"))]
    pub(super) interval: Option<Wait>,
    /// Most that a refresh comes earlier by chance, so that certificates fetched together do not stay
    /// together; never more than a twentieth of the validity.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "1day", "default" = "5m"))]
    pub(super) jitter: Option<Wait>,
    /// For one responder to answer, from the look-up of its name to the last byte.
    #[schemars(extend("x-minimum" = "500ms", "x-maximum" = "1m", "default" = "10s"))]
    pub(super) timeout: Option<Wait>,
}

/// What a handshake does without a valid staple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum StaplePolicy {
    /// Goes on without a staple.
    Soft,
    /// Refuses.
    Hard,
}

/// Metrics, health and status, for operators.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AdminTable {
    /// `"unix:/path"` (a socket with mode 600), a loopback address with port, or `false` for none.
    /// There is no password: whoever reaches it can read the status and trigger a reload.
    pub(super) listen: PathOrOff,
}

/// The log, on standard error.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogTable {
    /// Lines for people, or one JSON object a line.
    pub(super) format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or several by module: `"info,clinch::data=debug"`.
    /// From debug on, there are lines for each connection.
    pub(super) level: String,
}

/// Form of the log's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The process that talks to OCSP responders (docs/EGRESS.md).
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EgressTable {
    /// User, or `user:group`, that it runs as, so that firewall rules can tell it apart. By default
    /// the user of the main process.
    #[schemars(length(min = 1))]
    pub(super) user: Option<String>,
    /// Networks (`"10.20.0.0/16"`) or addresses in which responders may be although they are not
    /// public. Certificates say which responder is asked, so whoever issues one can have clinch
    /// connect to whatever is allowed here. Loopback, private, shared, link-local, unique-local,
    /// multicast, IPv4-mapped, reserved and cloud metadata addresses are otherwise refused; for a
    /// responder that `ocsp.responder` names, private and loopback ones are not.
    #[schemars(length(max = 256))]
    pub(super) allow: Vec<String>,
    /// Ports, or ranges of them (`"8080-8090"`), at which responders named by certificates are asked.
    #[schemars(length(min = 1, max = 64))]
    pub(super) ports: Vec<PortOrRange>,
    /// Whether responders with https URLs are asked. Their certificate is verified, but not whether
    /// it was revoked.
    pub(super) https: bool,
    /// PEM file with the CAs that responders with https URLs may be certified by. By default the
    /// public ones that Mozilla trusts, as of this release. It is read at start and reload.
    pub(super) trust: Option<String>,
    /// HTTP proxy, `"http://[USER:PASSWORD@]HOST:PORT"`. It is then the only host that clinch connects
    /// to, and the one that looks up responders: of `allow` only what stands in the URL itself is
    /// checked then.
    #[schemars(length(min = 1))]
    pub(super) proxy: Option<String>,
    /// Have the proxy connect through (`CONNECT`) for http URLs too, as for https ones, instead of
    /// asking it for the URL. It can then neither see nor cache answers, and many proxies allow port
    /// 443 alone.
    pub(super) proxy_tunnel: bool,
    /// DNS servers (`"192.0.2.53"` or `"192.0.2.53:5353"`) that are asked one after the other until one
    /// answers, which is then asked first, with the TTL that they give and without /etc/hosts. Without
    /// any, the system looks up, as for every program.
    #[schemars(length(max = 8))]
    pub(super) resolvers: Vec<String>,
    /// How long one of `resolvers` may take to answer. Of the ten seconds of a whole fetch, time should be left
    /// for a second one and for the responder.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "10s"))]
    pub(super) resolver_timeout: Wait,
    /// Shortest time for which an answer of `resolvers` is used again.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "1h"))]
    pub(super) ttl_min: Wait,
    /// Longest time for which an answer of `resolvers` is used again. Longer, and a responder that
    /// moves is missed for longer.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1day"))]
    pub(super) ttl_max: Wait,
    /// Questions under way at once at one responder; one while it is in trouble. More is quicker after
    /// a start with many certificates, and some CAs cut off who asks too much.
    #[schemars(range(min = 1, max = 64))]
    pub(super) concurrency: usize,
    /// Questions that one responder gets without a pause, before `pace` holds.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) burst: u32,
    /// Between two questions to one responder, on average. At a second, a thousand certificates of one
    /// CA take a quarter of an hour beyond `burst`.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "1m"))]
    pub(super) pace: Wait,
}

impl Default for EgressTable {
    fn default() -> Self {
        let turns = Turns::default();
        Self {
            user: None,
            allow: Vec::new(),
            ports: vec![PortOrRange::Port(80), PortOrRange::Port(443)],
            https: true,
            trust: None,
            proxy: None,
            proxy_tunnel: false,
            resolvers: Vec::new(),
            resolver_timeout: Wait(Duration::from_secs(3)),
            ttl_min: Wait(Duration::from_secs(5)),
            ttl_max: Wait(Duration::from_secs(3600)),
            concurrency: turns.concurrency,
            burst: turns.burst,
            pace: Wait(turns.pace),
        }
    }
}

/// The rules that pin the egress process, which `clinch firewall apply` keeps in the kernel
/// (docs/EGRESS.md).
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FirewallTable {
    /// The packet filter: `"nftables"`, or one of the iptables family together with `ipset`:
    /// `"iptables"`, `"iptables-nft"`, `"iptables-legacy"`.
    pub(super) format: FirewallFormat,
    /// Unix socket at which clinch asks `clinch firewall apply` to open addresses, before it connects
    /// to them; without an answer it does not connect. Or `false`: nobody is asked. `clinch firewall
    /// apply` then looks names up itself, twice a minute, and a responder that moves in between is
    /// missed until the next look.
    pub(super) socket: PathOrOff,
    /// Networks (`"192.0.2.0/24"`) outside of which nothing is opened. Without any, every address that
    /// egress may connect to (`egress.allow`) may be opened for a host that a certificate or the
    /// configuration names.
    #[schemars(length(max = 256))]
    pub(super) prefixes: Vec<String>,
    /// How long an address stays open beyond the TTL of the DNS answer that named it. A fetch has half
    /// of it at least; where that is shorter than it takes, it may be cut off in the middle.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1h"))]
    pub(super) hold: Wait,
}

/// How connections find their core. Without this table the kernel spreads them by hash, and nothing
/// is prepared: `mode` can then be changed at a restart only.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SteeringTable {
    /// `"kernel"` steers by server name before a process wakes, and answers clients with SYN
    /// cookies; it needs CAP_BPF and CAP_NET_ADMIN (or root) at the start and falls back to
    /// `"hand-over"`. `"hand-over"` lets a worker pass what belongs to another on. `"off"` leaves
    /// connections where they come.
    pub(super) mode: SteeringMode,
    /// What becomes of a name that no site has. `"serve"` answers with `unrecognized_name`;
    /// `"refuse-early"` has the kernel reset the connection, on listeners without `default_site`.
    /// For up to a second after a reload, a new name may be refused.
    pub(super) unknown_sni: UnknownSni,
    /// What a worker does with a connection of another that the kernel could not place.
    /// `"hand-over"` keeps each site on its cores at the cost of a second wake-up; `"serve"` saves
    /// that.
    pub(super) misplaced: Misplaced,
}

/// What becomes of a name that no site has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum UnknownSni {
    /// A worker answers.
    #[default]
    Serve,
    /// The kernel refuses.
    RefuseEarly,
}

/// What a worker does with a connection of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Misplaced {
    /// Passes it on.
    #[default]
    HandOver,
    /// Serves it.
    Serve,
}

fn default_core_share() -> u16 {
    1
}

fn default_cache_dir() -> PathOrOff {
    PathOrOff::Text("/var/cache/clinch".to_owned())
}

fn default_min_version() -> TlsVersion {
    TlsVersion::Tls12
}

fn default_tickets() -> u8 {
    2
}

fn default_backlog() -> u32 {
    4096
}

impl Default for LimitsTable {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            connections_per_worker: limits.connections_per_worker,
            connections_per_client: limits.connections_per_client,
            handshake_bytes: limits.handshake_bytes,
            read_buffer: limits.read_buffer,
            ready_certificates_per_core: limits.ready_certificates_per_core,
        }
    }
}

impl Default for TimeoutsTable {
    fn default() -> Self {
        let timeouts = Timeouts::default();
        Self {
            handshake: Wait(timeouts.handshake),
            connect: Wait(timeouts.connect),
            idle: Wait(timeouts.idle),
            drain: Wait(timeouts.drain),
            linger: Wait(timeouts.linger),
            startup_wait: Wait(timeouts.startup_wait),
        }
    }
}

impl Default for FirewallTable {
    fn default() -> Self {
        Self {
            format: FirewallFormat::default(),
            socket: PathOrOff::Text(super::firewall::SOCKET.to_owned()),
            prefixes: Vec::new(),
            hold: Wait(super::firewall::HOLD),
        }
    }
}

impl Default for AdminTable {
    fn default() -> Self {
        Self {
            listen: PathOrOff::Text("unix:/run/clinch/admin.sock".to_owned()),
        }
    }
}

impl Default for LogTable {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_owned(),
        }
    }
}
