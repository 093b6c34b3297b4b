//! `clinch firewall`: the rules that let the egress process reach its responders and nothing else.
//!
//! `render` prints them for whoever manages rules otherwise; `apply` puts them in and keeps them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;

use crate::config::{Config, FirewallFormat};
use crate::firewall::{Keeper, Kernel, Plan, PlanError, Rules, iptables, nftables};
use crate::observability::events;
use crate::sys::privileges;

/// Pin the egress process: its user reaches DNS and the responders, nothing else.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Render(Render),
    Apply(Apply),
}

/// Print the rules, with the addresses that the responders have now.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
        clinch firewall render --format nftables -c /etc/clinch/clinch.toml | nft -f -\n  \
        clinch firewall render --format iptables | sh\n\n\
        Addresses are those of this moment: where responders move, use `clinch firewall apply`.\n\n\
        Exit codes:\n  \
        0  printed\n  \
        1  the system failed\n  \
        2  wrong usage, or the configuration cannot be used or names no `egress.user`\n  \
        3  printed, but some responders are missing; standard error says which and why")]
struct Render {
    #[command(flatten)]
    source: Source,

    /// Print JSON: user, resolvers, destinations, and the rules as text
    #[arg(long)]
    json: bool,
}

/// Put the rules in and keep them there, in step with what the responders' names resolve to.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example (as clinch-firewall.service does it):\n  \
        clinch firewall apply -c /etc/clinch/clinch.toml\n  \
        clinch firewall apply --dry-run\n  \
        clinch firewall apply --remove\n\n\
        Signals:\n  \
        SIGHUP           read configuration and certificates again\n  \
        SIGTERM, SIGINT  end; the rules stay, and what is open runs out\n\n\
        Exit codes:\n  \
        0  ended by a signal; or done, with --once, --remove or --dry-run\n  \
        1  the rules cannot be put in or taken out (no CAP_NET_ADMIN, program missing), or the system failed\n  \
        2  wrong usage, or the configuration cannot be used or names no `egress.user`\n  \
        3  with --once or --dry-run: done, but some responders are missing; standard error says which and why")]
struct Apply {
    #[command(flatten)]
    source: Source,

    /// Print what would be put in, and change nothing
    #[arg(long, conflicts_with = "remove")]
    dry_run: bool,

    /// Take out all that was ever put in, nothing else, and end
    #[arg(long)]
    remove: bool,

    /// Put the rules in with the addresses of this moment, and end; what is open runs out
    #[arg(long, conflicts_with_all = ["remove", "dry_run"])]
    once: bool,

    /// With --once, --remove or --dry-run: print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Source {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", default_value = super::CONFIG_PATH)]
    config: PathBuf,

    /// Packet filter: nftables, iptables, iptables-nft or iptables-legacy [default: `firewall.format`]
    #[arg(long, value_parser = format)]
    format: Option<FirewallFormat>,
}

fn format(text: &str) -> Result<FirewallFormat, String> {
    let known = FirewallFormat::ALL.map(FirewallFormat::word);
    let found = FirewallFormat::ALL.into_iter().find(|f| f.word() == text);
    found.ok_or_else(|| format!("expected one of {}", known.join(", ")))
}

/// Renders or applies.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let source = match &args.command {
        Command::Render(render) => &render.source,
        Command::Apply(apply) => &apply.source,
    };
    // Taking away must work with a configuration that does not any more.
    if let Command::Apply(apply) = &args.command
        && apply.remove
    {
        return block_on(remove(apply));
    }
    let keeper = match Keeper::new(&source.config, source.format) {
        Ok(keeper) => keeper,
        Err(error) => {
            eprintln!("clinch: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    match &args.command {
        Command::Render(render) => block_on(print(keeper, render.json, true)),
        Command::Apply(apply) if apply.dry_run => block_on(print(keeper, apply.json, false)),
        Command::Apply(apply) if apply.once => block_on(once(keeper, apply.json)),
        Command::Apply(apply) => keep(keeper, apply),
    }
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?
        .block_on(work)
}

/// Prints the rules; `for_good` without time limits on what is open.
async fn print(mut keeper: Keeper, json: bool, for_good: bool) -> anyhow::Result<ExitCode> {
    keeper.resolve().await;
    let mut rules = keeper.rules();
    if for_good {
        for opening in &mut rules.openings {
            opening.left = None;
        }
    }
    let format = keeper.plan().format;
    let text = format!("{}{}", header(&rules, format), text(&rules, format));
    if json {
        println!("{:#}", report(&keeper, &rules, Some(&text)));
    } else {
        std::io::stdout().write_all(text.as_bytes())?;
    }
    Ok(missing(&keeper))
}

async fn once(mut keeper: Keeper, json: bool) -> anyhow::Result<ExitCode> {
    privileges::forbid_new_privileges()?;
    keeper.resolve().await;
    keeper.install().await?;
    if json {
        println!("{:#}", report(&keeper, &keeper.rules(), None));
    }
    Ok(missing(&keeper))
}

fn keep(mut keeper: Keeper, apply: &Apply) -> anyhow::Result<ExitCode> {
    privileges::forbid_new_privileges()?;
    let text = std::fs::read_to_string(&apply.source.config)?;
    events::start(&Config::parse(&text)?.log)?;
    block_on(async {
        if keeper.plan().socket.is_none() {
            keeper.resolve().await;
        }
        for trouble in keeper.troubles() {
            tracing::warn!(event = "firewall_refused", "{trouble}");
        }
        keeper.install().await?;
        keeper.run().await?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn remove(apply: &Apply) -> anyhow::Result<ExitCode> {
    let format = match apply.source.format {
        Some(format) => format,
        None => match Plan::read(&apply.source.config) {
            Ok(plan) => plan.format,
            Err(error @ PlanError::File { .. }) => {
                eprintln!("clinch: {error}, or the packet filter with --format");
                return Ok(ExitCode::from(2));
            }
            Err(error) => {
                eprintln!("clinch: {error}; name the packet filter with --format");
                return Ok(ExitCode::from(2));
            }
        },
    };
    let removed = Kernel::new(format).remove().await?;
    if apply.json {
        println!("{:#}", json!({ "removed": removed }));
    } else if removed.is_empty() {
        println!("nothing was there");
    } else {
        println!("removed {}", removed.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what is missing, and the exit code for that.
fn missing(keeper: &Keeper) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for trouble in keeper.troubles() {
        eprintln!("clinch: {trouble}");
        code = ExitCode::from(3);
    }
    code
}

fn text(rules: &Rules, format: FirewallFormat) -> String {
    match format.program() {
        None => nftables::table(rules),
        Some(program) => iptables::script(rules, program),
    }
}

/// What the rules are, and how to load and remove them, as comments.
fn header(rules: &Rules, format: FirewallFormat) -> String {
    let (load, remove) = match format.program() {
        None => (
            "nft -f FILE",
            format!("nft delete table {}", nftables::TABLE),
        ),
        Some(_) => (
            "sh FILE",
            format!("clinch firewall apply --remove --format {}", format.word()),
        ),
    };
    let mut text = format!(
        "# clinch {}: {} (uid {}) reaches what is listed here, and nothing else.\n\
         # Load, also in place of an earlier one: {load}    Remove: {remove}\n",
        env!("CARGO_PKG_VERSION"),
        rules.user,
        rules.uid
    );
    for resolver in &rules.resolvers {
        let _ = writeln!(text, "#   {resolver}  DNS");
    }
    for opening in &rules.openings {
        let _ = writeln!(text, "#   {}  {}", opening.to, opening.hosts);
    }
    text
}

fn report(keeper: &Keeper, rules: &Rules, text: Option<&str>) -> serde_json::Value {
    let openings = rules.openings.iter().map(|opening| {
        json!({
            "address": opening.to.ip(),
            "port": opening.to.port(),
            "hosts": opening.hosts.split(' ').collect::<Vec<_>>(),
            "seconds_left": opening.left.map(|left| left.as_secs()),
        })
    });
    let destinations = keeper.plan().destinations.iter();
    json!({
        "format": keeper.plan().format.word(),
        "user": rules.user,
        "uid": rules.uid,
        "resolvers": rules.resolvers,
        "destinations": destinations.map(ToString::to_string).collect::<Vec<_>>(),
        "open": openings.collect::<Vec<_>>(),
        "missing": keeper.troubles().collect::<Vec<_>>(),
        "rules": text,
    })
}
