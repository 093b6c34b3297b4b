//! `clinch ocsp verify`: the verifier itself, on files. What it calls good is what the terminator would
//! staple. It asks no responder.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::super::verdict::{Question, USAGE, Verdict, read};
use crate::clock::rfc3339;
use crate::ocsp::{self, Policy, RefusalKind, Signer, VerifiedStaple};

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
pub(super) struct Args {
    #[command(flatten)]
    question: Question,
    /// The response, DER.
    #[arg(long, value_name = "RESPONSE")]
    response: PathBuf,
    /// Oldest thisUpdate taken where the response has no nextUpdate (default: 7days).
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    max_age: Option<Duration>,
}

/// Judges and prints.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    args.question.print(verify(args))
}

/// The verdict, or what is wrong with the files.
fn verify(args: &Args) -> anyhow::Result<Verdict> {
    let question = &args.question;
    let chain = question.chain()?;
    let response = read(&args.response)?;
    let default = Policy::default();
    let policy = Policy {
        max_age: args.max_age.unwrap_or(default.max_age),
        allow_sha1: question.allow_sha1,
        ..default
    };
    match ocsp::verify(
        &response,
        &chain.leaf,
        &chain.issuers[0],
        &policy,
        question.at(),
    ) {
        Ok(staple) => Ok(Verdict {
            word: "good",
            reason: describe(&staple),
            code: 0,
        }),
        Err(refusal) if refusal.kind() == RefusalKind::Input => Err(refusal.into()),
        Err(refusal) => Ok(Verdict {
            word: refusal.kind().label(),
            reason: refusal.to_string(),
            code: exit_code(refusal.kind()),
        }),
    }
}

fn describe(staple: &VerifiedStaple) -> String {
    let signer = match staple.signer() {
        Signer::Issuer => "the issuer".to_owned(),
        Signer::Delegated { subject, .. } => format!("the issuer's responder {subject}"),
        Signer::Trusted { subject, .. } => format!("{subject}, which is trusted to sign"),
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
