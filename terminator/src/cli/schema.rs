//! `clinch schema`: the configuration file described for machines (JSON Schema) and for people
//! (Markdown). Reads no configuration.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config;

/// Print the JSON Schema of the configuration file.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
        clinch schema > clinch.schema.json\n  \
        clinch schema --markdown > docs/CONFIGURATION.md\n\n\
        Exit codes:\n  0  printed\n  1  could not write\n  2  wrong usage")]
pub(super) struct Args {
    /// Print the reference for people instead, as Markdown.
    #[arg(long)]
    markdown: bool,
}

/// Writes the schema or the reference to standard output.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let text = if args.markdown {
        config::reference()
    } else {
        format!("{:#}\n", config::schema())
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
