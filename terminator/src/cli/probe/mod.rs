//! `clinch probe`: makes a handshake as a client and says what the server showed: version, cipher,
//! certificate, and what the verifier thinks of the stapled response. Works on any TLS server;
//! nothing is fetched from a responder.

mod handshake;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, ServerName};
use serde::Serialize;

use crate::certificate::{Leaf, certificates_from_pem, parse_certificate};
use crate::clock;
use crate::ocsp::{self, Policy, VerifiedStaple};
use handshake::{Seen, handshake};

/// Connect to a TLS server and say what it staples.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
        clinch probe example.com:443\n  \
        clinch probe 127.0.0.1:8443 --name demo.test --ca ca.pem --json\n\n\
        Exit codes:\n  \
        0  a staple came, and it verifies as good\n  \
        1  no handshake, or the certificate is not trusted by --ca\n  \
        2  wrong usage\n  \
        3  no staple came, or it does not verify as good")]
pub(super) struct Args {
    /// Where to connect to; the port is 443 unless given
    #[arg(value_name = "HOST:PORT", value_parser = target)]
    target: Target,

    /// Server name to ask for, instead of HOST
    #[arg(long, value_name = "NAME", value_parser = server_name)]
    name: Option<ServerName<'static>>,

    /// Trust the certificates of this PEM file only [default: those of the system]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// How long to wait for the connection and the handshake
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    connect_timeout: Duration,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug)]
struct Target {
    host: String,
    /// As the resolver takes it.
    text: String,
}

/// Makes the handshake and prints the report.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => server_name(&args.target.host).map_err(anyhow::Error::msg)?,
    };
    let anchors = anchors(args.ca.as_deref())?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(anchors.iter().cloned());
    if args.ca.is_some() && roots.is_empty() {
        bail!("no certificate in the file given as --ca can be trusted");
    }
    let seen = handshake(&args.target.text, name.clone(), roots, args.connect_timeout)?;
    let given = if args.ca.is_some() { &anchors[..] } else { &[] };
    let at = clock::now();
    let report = Report::new(&seen, &name.to_str(), given, at)?;
    let text = if args.json {
        format!("{:#}\n", serde_json::to_value(&report)?)
    } else {
        report.text(at)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(match report.staple {
        _ if args.ca.is_some() && report.distrust.is_some() => ExitCode::FAILURE,
        Staple::Good { .. } => ExitCode::SUCCESS,
        Staple::None | Staple::Refused { .. } | Staple::Unjudged { .. } => {
            ExitCode::from(NOT_STAPLED)
        }
    })
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    address: String,
    name: String,
    version: String,
    cipher: String,
    group: String,
    certificate: Certificate,
    /// Certificates that the server sent, leaf included.
    chain_length: usize,
    /// Why the chain is not trusted, or not valid for the name.
    distrust: Option<String>,
    staple: Staple,
}

#[derive(Debug, Serialize)]
struct Certificate {
    subject: String,
    issuer: String,
    names: Vec<String>,
    not_before: String,
    not_after: String,
    must_staple: bool,
    ocsp_urls: Vec<String>,
    sha256: String,
}

#[derive(Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
enum Staple {
    /// None came.
    None,
    /// It verifies as good.
    Good {
        bytes: usize,
        this_update: String,
        next_update: Option<String>,
        produced_at: String,
        /// Seconds until clinch would stop to send it.
        seconds_left: u64,
    },
    /// The verifier refuses it.
    Refused {
        bytes: usize,
        kind: &'static str,
        reason: String,
    },
    /// It cannot be verified.
    Unjudged { bytes: usize, reason: &'static str },
}

impl Report {
    fn new(
        seen: &Seen,
        name: &str,
        given: &[CertificateDer<'_>],
        at: SystemTime,
    ) -> anyhow::Result<Self> {
        let leaf = seen
            .chain
            .first()
            .context("the server sent no certificate")?;
        let facts = Leaf::parse(leaf)?;
        Ok(Self {
            address: seen.address.to_string(),
            name: name.to_owned(),
            version: seen.version.clone(),
            cipher: seen.cipher.clone(),
            group: seen.group.clone(),
            certificate: Certificate {
                not_before: clock::rfc3339(facts.not_before),
                not_after: clock::rfc3339(facts.not_after),
                sha256: facts.fingerprint.to_string(),
                must_staple: facts.must_staple,
                subject: facts.subject,
                issuer: facts.issuer,
                names: facts.names,
                ocsp_urls: facts.ocsp_urls,
            },
            chain_length: seen.chain.len(),
            distrust: seen.distrust.as_ref().map(ToString::to_string),
            staple: Staple::judge(seen, given, at),
        })
    }

    fn text(&self, at: SystemTime) -> String {
        let mut page = String::new();
        let certificate = &self.certificate;
        let trust = self.distrust.as_deref().unwrap_or("trusted");
        let lines = [
            ("server", format!("{} as {}", self.address, self.name)),
            (
                "protocol",
                format!("{}, {}, {}", self.version, self.cipher, self.group),
            ),
            ("certificate", certificate.subject.clone()),
            ("names", certificate.names.join(", ")),
            ("issuer", certificate.issuer.clone()),
            (
                "valid",
                format!("{} to {}", certificate.not_before, certificate.not_after),
            ),
            (
                "chain",
                format!("{} certificates, {trust}", self.chain_length),
            ),
        ];
        for (label, value) in lines {
            let _ = writeln!(page, "{label:<12} {value}");
        }
        let _ = writeln!(page, "{:<12} {}", "staple", self.staple.text());
        if matches!(self.staple, Staple::None) && certificate.must_staple {
            let _ = writeln!(
                page,
                "{:<12} the certificate demands a staple (Must-Staple): clients will refuse it",
                ""
            );
        }
        let _ = writeln!(page, "{:<12} {}", "checked at", clock::rfc3339(at));
        page
    }
}

impl Staple {
    fn judge(seen: &Seen, given: &[CertificateDer<'_>], at: SystemTime) -> Self {
        let bytes = seen.staple.len();
        if bytes == 0 {
            return Self::None;
        }
        let leaf = &seen.chain[0];
        // The issuer is the next certificate, or one that the caller trusts.
        let mut candidates = seen.chain.get(1).into_iter().chain(given);
        let issuer = candidates.find(|candidate| may_have_issued(candidate, leaf));
        let verdict =
            issuer.map(|issuer| ocsp::verify(&seen.staple, leaf, issuer, &Policy::default(), at));
        match verdict {
            None => Self::Unjudged {
                bytes,
                reason: "the server sent no certificate of the issuer; give it with --ca",
            },
            Some(Ok(staple)) => Self::good(&staple, at),
            Some(Err(refusal)) => Self::Refused {
                bytes,
                kind: refusal.kind().label(),
                reason: refusal.to_string(),
            },
        }
    }

    fn good(staple: &VerifiedStaple, at: SystemTime) -> Self {
        Self::Good {
            bytes: staple.der().len(),
            this_update: clock::rfc3339(staple.this_update()),
            next_update: staple.next_update().map(clock::rfc3339),
            produced_at: clock::rfc3339(staple.produced_at()),
            seconds_left: staple
                .not_after()
                .duration_since(at)
                .map_or(0, |left| left.as_secs()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Good {
                bytes,
                this_update,
                next_update,
                seconds_left,
                ..
            } => {
                let next = next_update.as_deref().unwrap_or("not said");
                let left = humantime::format_duration(Duration::from_secs(*seconds_left));
                format!(
                    "good, {bytes} bytes, this update {this_update}, next update {next}, {left} left"
                )
            }
            Self::Refused { bytes, reason, .. } => format!("not good, {bytes} bytes: {reason}"),
            Self::Unjudged { bytes, reason } => format!("{bytes} bytes, not verified: {reason}"),
        }
    }
}

/// Whether the names fit; the verifier checks the signature.
fn may_have_issued(candidate: &CertificateDer<'_>, leaf: &CertificateDer<'_>) -> bool {
    match (parse_certificate(candidate), parse_certificate(leaf)) {
        (Ok(candidate), Ok(leaf)) => candidate.subject().as_raw() == leaf.issuer().as_raw(),
        _ => false,
    }
}

/// The certificates to trust: those given, else those of the system.
fn anchors(ca: Option<&Path>) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let path = ca.unwrap_or(Path::new(SYSTEM_ROOTS));
    match std::fs::read(path) {
        Ok(pem) => certificates_from_pem(&pem).with_context(|| path.display().to_string()),
        // A machine without system roots can still look at servers; it trusts none.
        Err(_) if ca.is_none() => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn target(text: &str) -> Result<Target, String> {
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        let host = address.ip().to_string();
        return Ok(Target {
            host,
            text: text.to_owned(),
        });
    }
    if let Ok(address) = text.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
        let text = std::net::SocketAddr::new(address, HTTPS).to_string();
        return Ok(Target {
            host: address.to_string(),
            text,
        });
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().ok().filter(|port| *port > 0)),
        None => (text, Some(HTTPS)),
    };
    let port = port.ok_or("the port is a number from 1 to 65535")?;
    if host.is_empty() {
        return Err("write HOST:PORT, e.g. example.com:443".to_owned());
    }
    Ok(Target {
        host: host.to_owned(),
        text: format!("{host}:{port}"),
    })
}

fn server_name(text: &str) -> Result<ServerName<'static>, String> {
    let name = idna::domain_to_ascii(text).unwrap_or_else(|_| text.to_owned());
    ServerName::try_from(name).map_err(|_| format!("`{text}` is neither a DNS name nor an address"))
}

/// Exit code for a handshake without a good staple.
const NOT_STAPLED: u8 = 3;
const HTTPS: u16 = 443;
/// Where Debian's ca-certificates keeps its bundle.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

#[cfg(test)]
mod tests;
