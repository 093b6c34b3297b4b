//! `clinch ocsp fetch`: the running process asks the CA about a certificate now, and every step is
//! printed with its time.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use hyper::Method;

use super::super::admin::Target;
use super::{NO_SUCH_NAME, NOTHING, REVOKED, WITHOUT, about, show};
use crate::clock;
use crate::control::inquiry::{Fetched, Outcome};

/// Ask the CA about a certificate now, whatever is planned, and show every step.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The running process asks, by the way that it always asks; what comes back and passes \
        verification is put in place at once.\n\n\
        Example:\n  \
        clinch ocsp fetch www.example.com\n  \
        clinch ocsp fetch www.example.com --json | jq '.[].steps'\n\n\
        Exit codes:\n  \
        0  verified and in place, or nothing newer than what is\n  \
        1  no running process answered\n  \
        2  wrong usage\n  \
        3  the CA has revoked the certificate\n  \
        4  nothing came that can be used\n  \
        5  there is nothing to fetch for this certificate\n  \
        8  no site or certificate has that name"
)]
pub(super) struct Args {
    /// Name of a site or certificate, or the first 8 digits or more of a fingerprint
    name: String,

    #[command(flatten)]
    target: Target,

    /// Print what came of it as a JSON array, one object for each certificate of that name
    #[arg(long)]
    json: bool,
}

/// Asks and prints.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Some(answer) = about(&args.target, Method::POST, "/ocsp/fetch", &args.name)? else {
        return Ok(ExitCode::from(NO_SUCH_NAME));
    };
    let fetched: Vec<Fetched> = answer.read()?;
    let text = match args.json {
        true => answer.body.to_vec(),
        false => fetched.iter().map(page).collect::<String>().into_bytes(),
    };
    std::io::stdout().write_all(&text)?;
    Ok(ExitCode::from(exit_code(&fetched)))
}

/// That of the worst outcome.
fn exit_code(fetched: &[Fetched]) -> u8 {
    let is = |outcome| fetched.iter().any(|one| one.outcome == outcome);
    match () {
        () if is(Outcome::Revoked) => REVOKED,
        () if is(Outcome::Failed) => WITHOUT,
        () if fetched.iter().all(|one| one.outcome == Outcome::Nothing) => NOTHING,
        () => 0,
    }
}

fn page(fetched: &Fetched) -> String {
    let mut text = format!("{} ({})\n", fetched.subject, show::class(fetched.class));
    for step in &fetched.steps {
        let _ = writeln!(
            text,
            "  {:>9.1} ms  {:>8.1} ms  {}",
            step.at_ms, step.took_ms, step.what
        );
    }
    let outcome = match fetched.outcome {
        Outcome::Stapled => "verified and stapled",
        Outcome::NotRevoked => "not revoked, says the CRL; nothing is stapled",
        Outcome::Unchanged => "nothing newer; what is in use stays",
        Outcome::Revoked => "REVOKED",
        Outcome::Failed => "FAILED",
        Outcome::Nothing => "nothing to fetch",
    };
    let reason = fetched.reason.as_ref().map(|reason| format!(": {reason}"));
    let _ = writeln!(text, "  {outcome}{}", reason.unwrap_or_default());
    if let Some(next) = fetched.next_fetch {
        let _ = writeln!(text, "  next fetch at {}", clock::rfc3339(next));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::load::Class;
    use crate::control::trace::Step;

    fn fetched(outcome: Outcome) -> Fetched {
        Fetched {
            subject: "a.example".to_owned(),
            fingerprint: "ab".repeat(32),
            class: Class::Ocsp,
            outcome,
            steps: vec![Step {
                at_ms: 12.345,
                took_ms: 2.0,
                what: "connected (127.0.0.1:80)".to_owned(),
            }],
            next_fetch: None,
            reason: Some("the responder said tryLater".to_owned()),
        }
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst_outcome() {
        let code = |outcomes: &[Outcome]| {
            let all: Vec<Fetched> = outcomes.iter().map(|o| fetched(*o)).collect();
            exit_code(&all)
        };
        assert_eq!(code(&[Outcome::Stapled, Outcome::Nothing]), 0);
        assert_eq!(code(&[Outcome::Nothing]), NOTHING);
        assert_eq!(code(&[Outcome::Stapled, Outcome::Failed]), WITHOUT);
        assert_eq!(code(&[Outcome::Failed, Outcome::Revoked]), REVOKED);
    }

    #[test]
    fn every_step_has_a_line_with_its_time() {
        let page = page(&fetched(Outcome::Failed));
        assert!(page.contains("12.3 ms       2.0 ms  connected"), "{page}");
        assert!(
            page.contains("FAILED: the responder said tryLater"),
            "{page}"
        );
    }
}
