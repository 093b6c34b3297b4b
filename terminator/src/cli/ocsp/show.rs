//! `clinch ocsp show`: a line for each certificate of the running process, with what is known of its
//! staple and, in words, what went wrong last.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;

use super::super::admin::Target;
use super::super::status::{table, until};
use super::{REVOKED, WITHOUT};
use crate::clock;
use crate::control::Status;
use crate::control::load::Class;
use crate::control::status::{CertificateStatus, StapleStatus};
use crate::observability::report::Report;

/// List the certificates of the running process with class, staple, next fetch and last error.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
        clinch ocsp show\n  \
        clinch ocsp show --troubled\n  \
        clinch ocsp show --json | jq '.[] | select(.last_error) | {subject, last_error}'\n\n\
        Exit codes:\n  \
        0  every staple that is wanted is there and valid\n  \
        1  no running process answered\n  \
        2  wrong usage\n  \
        3  a certificate is revoked\n  \
        4  a staple is missing, or has run out")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,

    /// Only those that are revoked, lack a staple that is wanted, or whose last fetch failed
    #[arg(long)]
    troubled: bool,

    /// Print the certificates as a JSON array
    #[arg(long)]
    json: bool,
}

/// Asks and prints.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let report: Report = args.target.ask_for("/status")?.read()?;
    let control = report
        .control
        .context("control does not answer: nothing is known of the certificates")?;
    let code = exit_code(&control);
    let shown = |c: &&CertificateStatus| !args.troubled || is_troubled(c);
    let shown: Vec<&CertificateStatus> = control.certificates.iter().filter(shown).collect();
    let text = match args.json {
        true => serde_json::to_string_pretty(&shown)? + "\n",
        false => page(&shown, control.clock.as_deref(), clock::now()),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::from(code))
}

fn exit_code(control: &Status) -> u8 {
    let is = |states: &[StapleStatus]| {
        let mut certificates = control.certificates.iter();
        certificates.any(|c| states.contains(&c.staple))
    };
    match () {
        () if is(&[StapleStatus::Revoked]) => REVOKED,
        () if is(&[StapleStatus::Missing, StapleStatus::Expired]) => WITHOUT,
        () => 0,
    }
}

fn is_troubled(certificate: &CertificateStatus) -> bool {
    let crl = certificate.crl.as_ref();
    certificate.last_error.is_some()
        || crl.is_some_and(|crl| crl.last_error.is_some())
        || !matches!(
            certificate.staple,
            StapleStatus::Stapled | StapleStatus::NotApplicable
        )
}

fn page(certificates: &[&CertificateStatus], suspicion: Option<&str>, at: SystemTime) -> String {
    let head = [
        "certificate",
        "class",
        "status",
        "this update",
        "next update",
        "ends in",
        "next fetch",
        "last error",
    ];
    let mut text = table(&head, certificates.iter().map(|c| row(c, at)));
    if let Some(suspicion) = suspicion {
        text += &format!("\n{suspicion}\n");
    }
    text
}

fn row(certificate: &CertificateStatus, at: SystemTime) -> Vec<String> {
    let crl = certificate.crl.as_ref();
    let instant = |at: Option<SystemTime>| at.map_or("-".to_owned(), clock::rfc3339);
    let of_list =
        |value: fn(&crate::control::lists::CrlStatus) -> Option<SystemTime>| crl.and_then(value);
    let error = certificate.last_error.as_ref();
    let error = error.or_else(|| crl.and_then(|crl| crl.last_error.as_ref()));
    vec![
        certificate.subject.clone(),
        class(certificate.class).to_owned(),
        state(certificate, at).to_owned(),
        instant(certificate.this_update.or(of_list(|crl| crl.this_update))),
        instant(certificate.next_update.or(of_list(|crl| crl.next_update))),
        until(
            certificate
                .staple_not_after
                .or(of_list(|crl| crl.not_after)),
            at,
        ),
        until(certificate.next_fetch, at),
        error.cloned().unwrap_or_else(|| "-".to_owned()),
    ]
}

/// As the documents call it.
pub(super) fn class(class: Class) -> &'static str {
    match class {
        Class::Ocsp => "ocsp",
        Class::CrlOnly => "crl-only",
        Class::ShortLived => "short-lived",
        Class::None => "none",
    }
}

fn state(certificate: &CertificateStatus, at: SystemTime) -> &'static str {
    match certificate.staple {
        StapleStatus::Stapled => "stapled",
        StapleStatus::Missing => "MISSING",
        StapleStatus::Expired => "EXPIRED",
        StapleStatus::Revoked => "REVOKED",
        StapleStatus::NotApplicable if certificate.crl.is_none() => "nothing to staple",
        StapleStatus::NotApplicable if certificate.crl_silence().is_some() => "CRL is silent",
        StapleStatus::NotApplicable if certificate.crl_is_unknown(at) => "no CRL",
        StapleStatus::NotApplicable => "not on the CRL",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observability::report::tests::{certificate, status};

    #[test]
    fn the_exit_code_is_that_of_the_worst_certificate() {
        let with = |staple| certificate(staple);
        let stapled = with(StapleStatus::Stapled);
        let plain = with(StapleStatus::NotApplicable);
        assert_eq!(exit_code(&status(vec![stapled.clone(), plain])), 0);
        let missing = with(StapleStatus::Missing);
        assert_eq!(
            exit_code(&status(vec![stapled.clone(), missing.clone()])),
            WITHOUT
        );
        let revoked = with(StapleStatus::Revoked);
        assert_eq!(exit_code(&status(vec![stapled, missing, revoked])), REVOKED);
    }

    #[test]
    fn a_line_tells_class_status_and_error() {
        let mut expired = certificate(StapleStatus::Expired);
        expired.last_error = Some("the responder timed out".to_owned());
        let at = SystemTime::now();
        let page = page(&[&expired], Some("the clock is wrong"), at);
        for part in [
            "ocsp",
            "EXPIRED",
            "the responder timed out",
            "the clock is wrong",
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
        assert!(is_troubled(&expired));
        assert!(!is_troubled(&certificate(StapleStatus::NotApplicable)));
    }
}
