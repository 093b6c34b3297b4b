//! `clinch completions`: a completion script for a shell, generated from the definition of the
//! command line. Installs nothing; the caller puts the text where the shell looks for it.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

/// Print a completion script for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
        clinch completions bash > /usr/share/bash-completion/completions/clinch\n\n\
        Exit codes:\n  0  printed\n  1  could not write\n  2  wrong usage")]
pub(super) struct Args {
    /// The shell to complete for.
    #[arg(value_enum)]
    shell: Shell,
}

/// Writes the script to standard output.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    io::stdout().write_all(&script(args.shell))?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::Cli::command(), "clinch", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_completes_every_visible_command() {
        let script = String::from_utf8(script(Shell::Bash)).expect("UTF-8");
        for command in super::super::Cli::command().get_subcommands() {
            assert!(script.contains(command.get_name()));
        }
    }
}
