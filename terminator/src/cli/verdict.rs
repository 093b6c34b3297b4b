//! What the verifying commands share: a certificate and its issuer read from files, the instant and
//! the policy to judge by, and the verdict printed. What is judged, and how, is the command's.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use rustls_pki_types::CertificateDer;

use crate::certificate::certificates_from_pem;
use crate::clock;

/// The certificate in question, and how to judge what is said about it.
#[derive(Debug, clap::Args)]
pub(super) struct Question {
    /// The certificate in question, PEM or DER; the first of the file.
    #[arg(long, value_name = "LEAF")]
    cert: PathBuf,
    /// Its issuer, PEM or DER. By default what follows the first certificate of the LEAF file.
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<PathBuf>,
    /// Judge as of this instant (RFC 3339, e.g. 2026-05-01T12:00:00Z) instead of now.
    #[arg(long, value_name = "TIME", value_parser = clock::parse_rfc3339)]
    at: Option<SystemTime>,
    /// Take SHA-1 signatures.
    #[arg(long)]
    pub(super) allow_sha1: bool,
    /// Print one JSON object: {"verdict": ..., "reason": ...}.
    #[arg(long)]
    json: bool,
}

/// The certificate in question and what was given as its issuer.
pub(super) struct Chain {
    pub(super) leaf: CertificateDer<'static>,
    /// At least one; the first is the issuer.
    pub(super) issuers: Vec<CertificateDer<'static>>,
}

/// An outcome that the command's help documents.
pub(super) struct Verdict {
    /// One word, snake case.
    pub(super) word: &'static str,
    /// A sentence for a person.
    pub(super) reason: String,
    pub(super) code: u8,
}

/// Wrong usage, or a file that cannot be read.
pub(super) const USAGE: u8 = 2;

impl Question {
    /// The certificate in question, its issuer, and what follows the issuer in its file.
    pub(super) fn chain(&self) -> anyhow::Result<Chain> {
        let mut chain = certificates(&self.cert)?.into_iter();
        let leaf = chain.next().context("there is no certificate")?;
        let issuers = match &self.issuer {
            Some(path) => certificates(path)?,
            None => chain.collect(),
        };
        anyhow::ensure!(
            !issuers.is_empty(),
            "{} holds only one certificate: name its issuer with --issuer",
            self.cert.display()
        );
        Ok(Chain { leaf, issuers })
    }

    /// The instant to judge at.
    pub(super) fn at(&self) -> SystemTime {
        self.at.unwrap_or_else(clock::now)
    }

    /// Prints the verdict, or what is wrong with the files, and returns the exit code.
    pub(super) fn print(&self, verdict: anyhow::Result<Verdict>) -> anyhow::Result<ExitCode> {
        let Verdict { word, reason, code } = match verdict {
            Ok(verdict) => verdict,
            Err(error) => {
                eprintln!("clinch: {error:#}");
                return Ok(ExitCode::from(USAGE));
            }
        };
        let line = if self.json {
            serde_json::json!({ "verdict": word, "reason": reason }).to_string()
        } else {
            format!("{word}: {reason}")
        };
        writeln!(io::stdout(), "{line}")?;
        Ok(ExitCode::from(code))
    }
}

/// The bytes of a file.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let bytes = read(path)?;
    // A SEQUENCE: DER; PEM is text.
    if bytes.first() == Some(&0x30) {
        return Ok(vec![bytes.into()]);
    }
    certificates_from_pem(&bytes).with_context(|| path.display().to_string())
}
