//! `clinch ocsp`: what the terminator does with OCSP, as commands.
//!
//! `show`, `fetch` and `explain` ask the running process; `verify` is the verifier itself, on files,
//! and asks nobody.

mod explain;
mod fetch;
mod show;
mod verify;

use std::process::ExitCode;

use anyhow::bail;
use hyper::{Method, StatusCode};

use super::admin::{Answer, Target};

/// See what is stapled and why, ask a responder now, judge a response.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Show(show::Args),
    Fetch(fetch::Args),
    Explain(explain::Args),
    Verify(verify::Args),
}

/// Runs the chosen subcommand.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Show(args) => show::run(args),
        Command::Fetch(args) => fetch::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Verify(args) => verify::run(args),
    }
}

/// The CA has revoked a certificate.
const REVOKED: u8 = 3;
/// A staple is wanted, and none is valid; or a fetch brought nothing that can be used.
const WITHOUT: u8 = 4;
/// There is nothing to fetch, and nothing wrong.
const NOTHING: u8 = 5;
/// Nothing has that name.
const NO_SUCH_NAME: u8 = 8;

/// Asks about a name; `None`, and says so, if nothing has it.
fn about(
    target: &Target,
    method: Method,
    path: &str,
    name: &str,
) -> anyhow::Result<Option<Answer>> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("name", name);
    let answer = target.ask(method, &format!("{path}?{}", query.finish()))?;
    match answer.status {
        StatusCode::OK => Ok(Some(answer)),
        StatusCode::NOT_FOUND => {
            eprintln!(
                "clinch: no site or certificate has the name {name}; `clinch ocsp show` lists what there is"
            );
            Ok(None)
        }
        status => bail!("the admin interface answered {status}"),
    }
}
