//! `clinch man`: the manual page, generated from the definition of the command line. One page holds
//! all commands, so that `man clinch` answers every question.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;
use clap_mangen::{Man, roff::Roff, roff::roman};

/// Print the manual page (roff).
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
        clinch man > /usr/share/man/man1/clinch.1\n  \
        clinch man | man -l -\n\n\
        Exit codes:\n  0  printed\n  1  could not write\n  2  wrong usage")]
pub(super) struct Args {}

/// Writes the page to standard output.
pub(super) fn run(_: &Args) -> anyhow::Result<ExitCode> {
    io::stdout().write_all(&page()?)?;
    Ok(ExitCode::SUCCESS)
}

fn page() -> io::Result<Vec<u8>> {
    let mut command = super::Cli::command();
    command.build();
    let mut page = Vec::new();
    let top = Man::new(command.clone());
    top.render_title(&mut page)?;
    top.render_name_section(&mut page)?;
    top.render_synopsis_section(&mut page)?;
    top.render_description_section(&mut page)?;
    for command in command.get_subcommands() {
        if command.get_name() != "help" && !command.is_hide_set() {
            render_command(command, "clinch", &mut page)?;
        }
    }
    render_notes("SH", &command, &mut page)?;
    top.render_version_section(&mut page)?;
    Ok(page)
}

/// One command as a section of its own, its subcommands after it.
fn render_command(command: &clap::Command, parent: &str, page: &mut Vec<u8>) -> io::Result<()> {
    let name = format!("{parent} {}", command.get_name());
    let mut heading = Roff::new();
    heading.control("SH", [name.to_uppercase().as_str()]);
    heading.to_writer(page)?;

    let mut sections = Vec::new();
    let man = Man::new(command.clone().bin_name(&name));
    man.render_synopsis_section(&mut sections)?;
    man.render_description_section(&mut sections)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut sections)?;
    }
    // The sections of a command stand below the command's own heading.
    let sections = format!("\n{}", String::from_utf8_lossy(&sections)).replace("\n.SH ", "\n.SS ");
    page.extend_from_slice(sections.trim_start().as_bytes());
    render_notes("SS", command, page)?;

    command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help" && !sub.is_hide_set())
        .try_for_each(|sub| render_command(sub, &name, page))
}

/// The text after the options (example, exit codes), its lines kept as they are.
fn render_notes(level: &str, command: &clap::Command, page: &mut Vec<u8>) -> io::Result<()> {
    let Some(notes) = command.get_after_help() else {
        return Ok(());
    };
    let notes = notes.to_string();
    let mut section = Roff::new();
    section.control(level, ["NOTES"]).control("nf", []);
    section.text([roman(notes)]).control("fi", []);
    section.to_writer(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_describes_every_visible_command() {
        let page = String::from_utf8(page().expect("in memory")).expect("UTF-8");
        for command in super::super::Cli::command().get_subcommands() {
            let heading = format!("CLINCH {}", command.get_name().to_uppercase());
            let shown = !command.is_hide_set();
            assert_eq!(page.contains(&heading), shown, "{heading}");
        }
    }
}
