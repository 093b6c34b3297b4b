//! The command line: reads the arguments and hands them to the command's module. Thin.
//!
//! A command is a module with an `Args` (its flags, its help with an example, its exit codes) and a
//! `run` that takes them; it is entered in `Command` and in the match of `Command::run`, and is
//! then in the help, the man page and the shell completions too. A `run` returns the exit code for
//! outcomes that its help documents, and an error for what stopped it (printed with its causes,
//! exit code 1). Wrong usage ends with exit code 2 before any `run` is called.

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod admin;
mod check;
mod completions;
mod crl;
pub mod demo;
mod egress;
mod firewall;
mod man;
mod ocsp;
mod probe;
mod reload;
mod run;
mod schema;
mod status;
mod steering;
mod verdict;

/// Terminates TLS and staples a verified OCSP response to every handshake that asks for one.
#[derive(Debug, Parser)]
#[command(
    name = "clinch",
    version,
    arg_required_else_help = true,
    after_help = "Try it without any configuration: clinch demo\n\
                  Every command has an example and its exit codes in its own --help."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The commands in the order of the help.
#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Check(check::Args),
    Demo(demo::Args),
    Status(status::Args),
    Steering(steering::Args),
    Reload(reload::Args),
    Ocsp(ocsp::Args),
    Crl(crl::Args),
    Probe(probe::Args),
    Firewall(firewall::Args),
    Schema(schema::Args),
    Completions(completions::Args),
    Man(man::Args),
    #[command(hide = true)]
    Egress(egress::Args),
}

impl Command {
    fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(args) => run::run(&args),
            Self::Check(args) => check::run(&args),
            Self::Demo(args) => demo::run(&args),
            Self::Status(args) => status::run(&args),
            Self::Steering(args) => steering::run(&args),
            Self::Reload(args) => reload::run(&args),
            Self::Ocsp(args) => ocsp::run(&args),
            Self::Crl(args) => crl::run(&args),
            Self::Probe(args) => probe::run(&args),
            Self::Firewall(args) => firewall::run(&args),
            Self::Schema(args) => schema::run(&args),
            Self::Completions(args) => completions::run(&args),
            Self::Man(args) => man::run(&args),
            Self::Egress(args) => egress::run(args),
        }
    }
}

/// Runs the command line of this process and returns its exit code.
pub fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clinch: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The reader of our output went away (`clinch man | head`): nothing is left to be told to anyone.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Where the configuration is looked for unless `-c` says otherwise.
const CONFIG_PATH: &str = "/etc/clinch/clinch.toml";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example_and_its_exit_codes() {
        fn check(command: &clap::Command) {
            let groups = command.get_subcommands().count() > 0;
            if !groups && command.get_name() != "help" {
                let help = command.clone().render_long_help().to_string();
                let name = command.get_name();
                assert!(help.contains("Example"), "{name} --help has no example");
                assert!(help.contains("Exit codes"), "{name} --help: exit codes?");
            }
            command.get_subcommands().for_each(check);
        }
        Cli::command().get_subcommands().for_each(check);
    }
}
