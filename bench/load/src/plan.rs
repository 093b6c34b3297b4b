//! What a run is to do.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CipherSuite, NamedGroup};

/// Everything about a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub address: SocketAddr,
    /// Names to ask for, in turn; at least one.
    pub names: Vec<ServerName<'static>>,
    /// How the client finds out whether the certificate is revoked.
    pub revocation: Revocation,
    /// Roots that the chain must lead to; empty: the chain is not judged.
    pub roots: Vec<CertificateDer<'static>>,
    /// How often a verdict is reached.
    pub check: Check,
    /// The one version offered.
    pub version: Version,
    /// The one group offered, or all.
    pub group: Option<NamedGroup>,
    /// The one cipher offered, or all.
    pub suite: Option<Suite>,
    /// Resume sessions; a full handshake then counts as failed.
    pub resume: bool,
    /// What each connection does.
    pub work: Work,
    /// How they arrive.
    pub pace: Pace,
    /// How long arrivals are counted.
    pub duration: Duration,
    /// Arrivals before that which are not counted.
    pub warm_up: Duration,
    /// End after so many connections, if that is sooner.
    pub count: Option<u64>,
    /// Longest life of a connection, but for [`Work::Idle`].
    pub deadline: Duration,
    /// Threads, each with the core to stay on.
    pub threads: Vec<Option<usize>>,
    /// Local addresses to connect from, in turn; empty: the system's choice.
    pub sources: Vec<IpAddr>,
}

/// How the client finds out whether the certificate is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// Not at all. (`status_request` is sent nevertheless, as browsers do; what comes is not looked at.)
    Ignore,
    /// It demands a staple and verifies it.
    Staple,
    /// It resolves the responder's name, asks it, and verifies the answer before it trusts the handshake.
    Client(Resolver),
}

/// Who resolves the responder's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// The C library.
    System,
    /// This DNS server, asked for A over UDP, without a cache.
    Server(SocketAddr),
}

/// How often a verdict on a chain, a staple or an answer is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Once for each distinct one on each thread; a further one must equal it byte for byte, and the
    /// signature over the handshake is taken as it comes. The generator stays cheap.
    Distinct,
    /// In every handshake, signature and all, as a browser does.
    Every,
}

/// Versions of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Ciphers to choose among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// AES-128-GCM.
    Aes128,
    /// AES-256-GCM.
    Aes256,
    /// ChaCha20-Poly1305.
    ChaCha20,
}

impl Suite {
    /// Whether it is this one; in TLS 1.2, with either kind of certificate.
    fn is(self, suite: CipherSuite, version: Version) -> bool {
        use CipherSuite as C;
        let among: &[CipherSuite] = match (self, version) {
            (Self::Aes128, Version::Tls13) => &[C::TLS13_AES_128_GCM_SHA256],
            (Self::Aes256, Version::Tls13) => &[C::TLS13_AES_256_GCM_SHA384],
            (Self::ChaCha20, Version::Tls13) => &[C::TLS13_CHACHA20_POLY1305_SHA256],
            (Self::Aes128, Version::Tls12) => &[
                C::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                C::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            ],
            (Self::Aes256, Version::Tls12) => &[
                C::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                C::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            ],
            (Self::ChaCha20, Version::Tls12) => &[
                C::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
                C::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
            ],
        };
        among.contains(&suite)
    }
}

/// What each connection does once it has connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// A handshake, then close.
    Handshake,
    /// A handshake, a request with a body of `upload` bytes, the whole answer, close.
    Request {
        /// What is asked for.
        path: String,
        /// Bytes sent; 0: GET.
        upload: u64,
    },
    /// A handshake, then nothing until the run ends. It fails if the server closes.
    Idle,
    /// A request whose every byte, from the ClientHello on, comes in pieces.
    Slow {
        /// Bytes in a piece.
        piece: usize,
        /// Pause after each.
        pause: Duration,
    },
}

/// How connections arrive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many clients; each starts again when it has finished.
    Closed {
        /// Clients at once, over all threads.
        clients: u32,
    },
    /// So many arrivals a second, whatever becomes of them.
    Open {
        /// Arrivals per second, over all threads.
        rate: f64,
        /// Their distances.
        arrivals: Arrivals,
        /// Connections at once, over all threads; who comes beyond waits, and its latency grows.
        most: u32,
    },
}

/// Distances between arrivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// Random and independent, as visitors come (exponential distances).
    Poisson,
    /// All the same.
    Even,
}

impl Plan {
    /// The provider that offers what the plan wants and nothing else.
    pub(crate) fn provider(&self) -> Arc<CryptoProvider> {
        let mut provider = aws_lc_rs::default_provider();
        if let Some(group) = self.group {
            provider.kx_groups.retain(|kx| kx.name() == group);
        }
        if let Some(suite) = self.suite {
            let version = self.version;
            provider
                .cipher_suites
                .retain(|offered| suite.is(offered.suite(), version));
        }
        Arc::new(provider)
    }

    /// The plan in a line.
    pub fn describe(&self) -> String {
        let revocation = match self.revocation {
            Revocation::Ignore => "revocation not checked",
            Revocation::Staple => "staple demanded and verified",
            Revocation::Client(_) => "client-side OCSP",
        };
        let version = match self.version {
            Version::Tls12 => "TLS 1.2",
            Version::Tls13 => "TLS 1.3",
        };
        let kind = if self.resume { "resumed" } else { "full" };
        let group = self
            .group
            .map_or(String::new(), |group| format!(", {group:?}"));
        let work = match &self.work {
            Work::Handshake => "handshake only".to_owned(),
            Work::Request { path, upload: 0 } => format!("GET {path}"),
            Work::Request { path, upload } => format!("POST {path} with {upload} bytes"),
            Work::Idle => "idle".to_owned(),
            Work::Slow { piece, pause } => format!("slow: {piece} bytes each {pause:?}"),
        };
        let pace = match self.pace {
            Pace::Closed { clients } => format!("closed loop of {clients} clients"),
            Pace::Open { rate, arrivals, .. } => {
                format!("open loop of {rate}/s ({arrivals:?} arrivals)").to_lowercase()
            }
        };
        format!(
            "{kind} {version}{group}, {revocation}; {work}; {pace}; {} s on {} thread{}",
            self.duration.as_secs_f64(),
            self.threads.len(),
            if self.threads.len() == 1 { "" } else { "s" }
        )
    }
}
