//! `clinch reload`: has the running process read its configuration and certificates again, and says
//! what came of it.

use std::process::ExitCode;

use anyhow::{Context, bail};
use hyper::{Method, StatusCode};

use super::admin::Target;
use crate::control::ReloadReport;
use crate::observability::admin::ReloadOutcome;

/// Reload configuration and certificates of the running process.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
        clinch check -c /etc/clinch/clinch.toml && clinch reload\n\n\
        Connections and staples are kept. A configuration that cannot be used changes nothing.\n\n\
        Exit codes:\n  \
        0  the new configuration is in force\n  \
        1  no running process answered\n  \
        2  wrong usage\n  \
        3  refused; the configuration before is still in force")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,

    /// Print the process's answer as JSON
    #[arg(long)]
    json: bool,
}

/// Asks for the reload and prints its outcome.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let answer = args.target.ask(Method::POST, "/reload")?;
    let text = String::from_utf8_lossy(&answer.body);
    let refused = match answer.status {
        StatusCode::OK => false,
        StatusCode::UNPROCESSABLE_ENTITY | StatusCode::SERVICE_UNAVAILABLE => true,
        status => bail!("the admin interface answered {status}: {text}"),
    };
    if args.json {
        print!("{text}");
    } else {
        let outcome = serde_json::from_slice(&answer.body)
            .context("the answer is not that of this version of clinch")?;
        match outcome {
            ReloadOutcome::Applied(report) => print!("{}", applied(&report)),
            ReloadOutcome::Refused(reason) => {
                eprintln!("clinch: reload refused, nothing changed: {reason}");
            }
        }
    }
    Ok(match refused {
        false => ExitCode::SUCCESS,
        true => ExitCode::from(3),
    })
}

fn applied(report: &ReloadReport) -> String {
    let mut text = format!(
        "reloaded: generation {}, {} sites, {} certificates, {} staples kept\n",
        report.generation, report.sites, report.certificates, report.staples_kept
    );
    for change in &report.needs_restart {
        text += &format!("takes effect only at the next start: {change}\n");
    }
    for warning in &report.warnings {
        text += &format!("warning: {warning}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_take_effect_is_told() {
        let report = ReloadReport {
            generation: 9,
            sites: 2,
            certificates: 3,
            staples_kept: 1,
            needs_restart: vec!["listen.public.address".to_owned()],
            warnings: vec!["a certificate expires tomorrow".to_owned()],
        };
        let text = applied(&report);
        assert!(text.contains("generation 9, 2 sites"), "{text}");
        assert!(text.contains("next start: listen.public.address"), "{text}");
        assert!(text.contains("warning: a certificate"), "{text}");
    }
}
