//! `clinch crl`: what the terminator does with CRLs, as commands on files.
//!
//! `verify` is the verifier itself. It fetches nothing.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::verdict::{Question, USAGE, Verdict, read};
use crate::clock::rfc3339;
use crate::crl::{self, NotRevoked, Policy, Refusal, RefusalKind};

/// Look at certificate revocation lists.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Verify(VerifyArgs),
}

/// Say whether a CRL shows that a certificate is not revoked, and if not, why.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
        clinch crl verify --cert site.pem --issuer ca.pem --crl ca.crl\n\n\
        Exit codes:\n  \
        0  not revoked\n  \
        2  wrong usage, or a file that cannot be read\n  \
        3  revoked\n  \
        5  not valid at that time\n  \
        6  the signature does not hold, or the signer may not sign\n  \
        7  malformed\n  \
        8  no answer for this certificate: the CRL is about others, or is not complete by itself")]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    question: Question,
    /// The CRL, PEM or DER; the first of the file.
    #[arg(long, value_name = "CRL")]
    crl: PathBuf,
    /// Oldest thisUpdate taken (default: as long as nextUpdate says, and 7days without one).
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    max_age: Option<Duration>,
}

/// Runs the chosen subcommand.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Verify(args) => args.question.print(verify(args)),
    }
}

/// The verdict, or what is wrong with the files.
fn verify(args: &VerifyArgs) -> anyhow::Result<Verdict> {
    match judge(args)? {
        Ok(proof) => Ok(Verdict {
            word: "not_revoked",
            reason: describe(&proof),
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

fn judge(args: &VerifyArgs) -> anyhow::Result<Result<NotRevoked, Refusal>> {
    let question = &args.question;
    let chain = question.chain()?;
    let bytes = read(&args.crl)?;
    let policy = Policy {
        max_age: args.max_age,
        allow_sha1: question.allow_sha1,
        ..Policy::default()
    };
    let verdict = crl::decode(&bytes)
        .and_then(|der| crl::verify(&der, &chain.leaf, &chain.issuers, &policy, question.at()));
    Ok(verdict)
}

fn describe(proof: &NotRevoked) -> String {
    let number = match proof.number() {
        Some(number) => format!("number {number}"),
        None => "without a number".to_owned(),
    };
    format!(
        "not among the {} entries of the CRL ({number}), thisUpdate {}, holds until {}",
        proof.entries(),
        rfc3339(proof.this_update()),
        rfc3339(proof.not_after())
    )
}

fn exit_code(kind: RefusalKind) -> u8 {
    match kind {
        RefusalKind::Input => USAGE,
        RefusalKind::Revoked => 3,
        RefusalKind::Time => 5,
        RefusalKind::Authority => 6,
        RefusalKind::Malformed => 7,
        RefusalKind::NoAnswer => 8,
    }
}
