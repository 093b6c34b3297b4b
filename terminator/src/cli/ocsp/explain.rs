//! `clinch ocsp explain`: why a name does or does not get a staple, and what to do.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use hyper::Method;

use super::super::admin::Target;
use super::{NO_SUCH_NAME, NOTHING, REVOKED, WITHOUT, about, show};
use crate::control::explain::{Explained, Explanation};
use crate::control::status::StapleStatus;

/// Say why a name does or does not get a staple, and what to do about it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
        clinch ocsp explain www.example.com\n  \
        clinch ocsp explain www.example.com --json | jq -r '.certificates[].remedies[]'\n\n\
        Exit codes:\n  \
        0  clients that ask get a staple\n  \
        1  no running process answered\n  \
        2  wrong usage\n  \
        3  the CA has revoked the certificate\n  \
        4  a staple is wanted, and none is valid\n  \
        5  there is nothing to staple for this certificate\n  \
        8  no site or certificate has that name")]
pub(super) struct Args {
    /// Name of a site or certificate, or the first 8 digits or more of a fingerprint
    name: String,

    #[command(flatten)]
    target: Target,

    /// Print the explanation as JSON
    #[arg(long)]
    json: bool,
}

/// Asks and prints.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Some(answer) = about(&args.target, Method::GET, "/ocsp/explain", &args.name)? else {
        return Ok(ExitCode::from(NO_SUCH_NAME));
    };
    let explanation: Explanation = answer.read()?;
    let text = match args.json {
        true => answer.body.to_vec(),
        false => {
            let pages = explanation.certificates.iter().map(page);
            pages.collect::<String>().into_bytes()
        }
    };
    std::io::stdout().write_all(&text)?;
    Ok(ExitCode::from(exit_code(&explanation)))
}

fn exit_code(explanation: &Explanation) -> u8 {
    let is = |state| {
        let mut certificates = explanation.certificates.iter();
        certificates.any(|one| one.staple == state)
    };
    match () {
        () if is(StapleStatus::Revoked) => REVOKED,
        () if is(StapleStatus::Missing) || is(StapleStatus::Expired) => WITHOUT,
        () if is(StapleStatus::Stapled) => 0,
        () => NOTHING,
    }
}

fn page(explained: &Explained) -> String {
    let state = match explained.staple {
        StapleStatus::Stapled => "stapled",
        StapleStatus::Missing => "NOT stapled",
        StapleStatus::Expired => "NOT stapled any more",
        StapleStatus::Revoked => "REVOKED",
        StapleStatus::NotApplicable => "nothing to staple",
    };
    let fingerprint: String = explained.fingerprint.chars().take(16).collect();
    let class = show::class(explained.class);
    let mut text = format!("{} ({class}, {fingerprint}): {state}\n", explained.subject);
    for sentence in &explained.because {
        let _ = writeln!(text, "  - {sentence}");
    }
    for sentence in &explained.remedies {
        let _ = writeln!(text, "  to do: {sentence}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::load::Class;

    #[test]
    fn reasons_and_remedies_are_told_apart() {
        let explained = Explained {
            subject: "a.example".to_owned(),
            fingerprint: "ab".repeat(32),
            class: Class::CrlOnly,
            staple: StapleStatus::NotApplicable,
            because: vec!["its CRL is watched".to_owned()],
            remedies: vec!["nothing".to_owned()],
        };
        let page = page(&explained);
        assert!(page.starts_with("a.example (crl-only, abababababababab): nothing to staple\n"));
        assert!(page.contains("  - its CRL") && page.contains("  to do: nothing"));
        let explanation = Explanation {
            name: "a.example".to_owned(),
            certificates: vec![explained],
        };
        assert_eq!(exit_code(&explanation), NOTHING);
    }
}
