//! `clinch ocsp`: what the terminator does with OCSP, as commands on files.
//!
//! `verify` is the verifier itself: what it calls good is what the terminator would staple. It asks
//! no responder.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use rustls_pki_types::CertificateDer;

use crate::certificate::certificates_from_pem;
use crate::clock::{self, rfc3339};
use crate::ocsp::{self, Policy, Refusal, RefusalKind, Signer, VerifiedStaple};

/// Look at OCSP responses.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Verify(VerifyArgs),
}

/// Say whether an OCSP response may be stapled to a certificate, and if not, why.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
        clinch ocsp verify --cert site.pem --issuer ca.pem --response site.ocsp\n\n\
        Exit codes:\n  \
        0  good: it would be stapled\n  \
        2  wrong usage, or a file that cannot be read\n  \
        3  revoked\n  \
        4  the responder does not know the certificate\n  \
        5  not valid at that time\n  \
        6  the signature does not hold, or the signer may not sign\n  \
        7  malformed, or not a successful response\n  \
        8  no answer for this certificate")]
pub(super) struct VerifyArgs {
    /// The certificate in question, PEM or DER; the first of the file.
    #[arg(long, value_name = "LEAF")]
    cert: PathBuf,
    /// Its issuer, PEM or DER. By default the second certificate of the LEAF file.
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<PathBuf>,
    /// The response, DER.
    #[arg(long, value_name = "RESPONSE")]
    response: PathBuf,
    /// Judge as of this instant (RFC 3339, e.g. 2026-05-01T12:00:00Z) instead of now.
    #[arg(long, value_name = "TIME", value_parser = clock::parse_rfc3339)]
    at: Option<SystemTime>,
    /// Oldest thisUpdate taken where the response has no nextUpdate (default: 7days).
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    max_age: Option<Duration>,
    /// Take SHA-1 signatures.
    #[arg(long)]
    allow_sha1: bool,
    /// Print one JSON object: {"verdict": ..., "reason": ...}.
    #[arg(long)]
    json: bool,
}

/// Runs the chosen subcommand.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Verify(args) => verify(args),
    }
}

/// Verifies a response from files and prints the verdict.
fn verify(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let verdict = match judge(args) {
        Ok(verdict) => verdict,
        Err(error) => {
            eprintln!("clinch: {error:#}");
            return Ok(ExitCode::from(USAGE));
        }
    };
    let (word, reason, code) = match &verdict {
        Ok(staple) => ("good", describe(staple), 0),
        Err(refusal) => {
            let kind = refusal.kind();
            (kind.label(), refusal.to_string(), exit_code(kind))
        }
    };
    let line = if args.json {
        serde_json::json!({ "verdict": word, "reason": reason }).to_string()
    } else {
        format!("{word}: {reason}")
    };
    writeln!(io::stdout(), "{line}")?;
    Ok(ExitCode::from(code))
}

/// The verdict, or what is wrong with the files.
fn judge(args: &VerifyArgs) -> anyhow::Result<Result<VerifiedStaple, Refusal>> {
    let mut chain = certificates(&args.cert)?.into_iter();
    let leaf = chain.next().context("there is no certificate")?;
    let issuer = match &args.issuer {
        Some(path) => certificates(path)?.into_iter().next(),
        None => chain.next(),
    };
    let issuer = issuer.with_context(|| {
        format!(
            "{} holds only one certificate: name its issuer with --issuer",
            args.cert.display()
        )
    })?;
    let response = read(&args.response)?;
    let default = Policy::default();
    let policy = Policy {
        max_age: args.max_age.unwrap_or(default.max_age),
        allow_sha1: args.allow_sha1,
        ..default
    };
    let at = args.at.unwrap_or_else(clock::now);
    match ocsp::verify(&response, &leaf, &issuer, &policy, at) {
        Err(refusal) if refusal.kind() == RefusalKind::Input => Err(refusal.into()),
        verdict => Ok(verdict),
    }
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let bytes = read(path)?;
    // A SEQUENCE: DER; PEM is text.
    if bytes.first() == Some(&0x30) {
        return Ok(vec![bytes.into()]);
    }
    certificates_from_pem(&bytes).with_context(|| path.display().to_string())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn describe(staple: &VerifiedStaple) -> String {
    let signer = match staple.signer() {
        Signer::Issuer => "the issuer".to_owned(),
        Signer::Delegated { subject, .. } => format!("the issuer's responder {subject}"),
    };
    format!(
        "signed by {signer}, thisUpdate {}, may be stapled until {}",
        rfc3339(staple.this_update()),
        rfc3339(staple.not_after())
    )
}

fn exit_code(kind: RefusalKind) -> u8 {
    match kind {
        RefusalKind::Input => USAGE,
        RefusalKind::Revoked => 3,
        RefusalKind::Unknown => 4,
        RefusalKind::Time => 5,
        RefusalKind::Authority => 6,
        RefusalKind::Malformed => 7,
        RefusalKind::NoAnswer => 8,
    }
}

const USAGE: u8 = 2;
