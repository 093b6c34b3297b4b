//! `clinch egress`: the process that talks to responders, started by `clinch run` and by nobody else.

use std::process::ExitCode;

use crate::egress::process::{self, Role};

/// The process that talks to responders. Started by `clinch run`, not by hand.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example (what `clinch run` executes):\n  clinch egress --user clinch-egress\n\n\
                  Exit codes:\n  0  clinch ended\n  1  it could not be confined, or was started by hand\n  2  wrong usage"
)]
pub(super) struct Args {
    /// Become this user (or USER:GROUP) first
    #[arg(long, value_name = "USER")]
    user: Option<String>,

    /// Be the part that talks to the network, not the one that watches over it
    #[arg(long, conflicts_with = "user")]
    worker: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let role = match args.worker {
        true => Role::Worker,
        false => Role::Monitor { user: args.user },
    };
    Ok(process::main(role)?)
}
