//! `clinch steering show`: how the connections of the running process find their core.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::admin::Target;
use crate::observability::report::Report;

/// Show how connections find their core.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Show(Show),
}

/// Show the mode, the table, the connections of each worker and what the kernel counted.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
        clinch steering show\n\n\
        Exit codes:\n  \
        0  shown\n  \
        1  no running process answered\n  \
        2  wrong usage")]
struct Show {
    #[command(flatten)]
    target: Target,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Asks for the status and prints its part about steering.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Command::Show(show) = &args.command;
    let report: Report = show.target.ask_for("/status")?.read()?;
    if show.json {
        let value = serde_json::json!({
            "steering": report.steering,
            "workers": report.workers,
        });
        println!("{value:#}");
    } else {
        print!("{}", page(&report));
    }
    Ok(ExitCode::SUCCESS)
}

fn page(report: &Report) -> String {
    let steering = &report.steering;
    let mut text = format!("mode {}", steering.mode.word());
    if let Some(reason) = &steering.reason {
        let _ = write!(text, " ({reason})");
    }
    let _ = writeln!(
        text,
        "\n{} names in the kernel, {} left out; {} plugs put in\n",
        steering.names, steering.names_left_out, steering.plugs
    );
    for worker in &report.workers {
        let _ = writeln!(
            text,
            "worker {}: {} active, {} accepted, {} handed over, {} taken over, {} kept, {} from landing",
            worker.index,
            worker.active,
            worker.accepted,
            worker.handed_over,
            worker.taken_over,
            worker.kept_misplaced,
            worker.landed
        );
    }
    text.push('\n');
    for (event, n) in &steering.events {
        let _ = writeln!(text, "{event:>26} {n}");
    }
    text.push('\n');
    for row in &steering.table {
        let _ = writeln!(
            text,
            "{} -> {:?}, spread among {}",
            row.site, row.workers, row.share
        );
    }
    text
}
