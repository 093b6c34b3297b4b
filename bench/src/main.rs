//! `clinch-bench`: measures clinch beside its peers, prints ratios, keeps the raw data.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use clinch_bench::bench::{Bench, Effort};
use clinch_bench::relay::{self, Runtime};
use clinch_bench::report::Report;
use clinch_bench::scenario::{Scenario, allocator, compare};
use clinch_bench::{data_plane, machine, parts, pictures};

/// Clinch's own, since its workers and the plain relay run from this program too.
#[cfg(not(feature = "system-allocator"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures clinch beside its peers: CPU per handshake and per byte, memory per connection.
///
/// Needs cores 0 and 1 for itself, and /usr/sbin/{nginx,haproxy,hitch} for the comparisons (what is
/// missing is named and left out). Example: clinch-bench peers
#[derive(Parser)]
#[command(name = "clinch-bench", version)]
struct Arguments {
    /// The clinch to measure; the one beside this program by default.
    #[arg(long, global = true)]
    clinch: Option<PathBuf>,
    /// See whether everything works, in a few seconds; figures mean nothing and are not recorded.
    #[arg(long, global = true)]
    quick: bool,
    /// Rounds, in each of which every contender measures once.
    #[arg(long, global = true)]
    rounds: Option<u32>,
    /// Connections per measurement.
    #[arg(long, global = true)]
    count: Option<u32>,
    /// Sites of `scale-names`; a million take 4 GB.
    #[arg(long, global = true)]
    sites: Option<u32>,
    /// Connections of `scale-connections`.
    #[arg(long, global = true)]
    held: Option<u32>,
    /// Where results are recorded, as DATE-MACHINE/SCENARIO.json.
    #[arg(long, global = true, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    results: PathBuf,
    /// Print only.
    #[arg(long, global = true)]
    no_record: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Scenario(Scenario),
    /// Every scenario above, one after the other.
    All,
    /// CPU and memory of clinch's workers under mimalloc and under the system's allocator.
    ///
    /// Build the other program first: cargo build --release -p clinch-bench --features
    /// system-allocator --target-dir target/system
    Allocator {
        /// This program, built with the feature system-allocator.
        other: PathBuf,
    },
    /// Every scenario that compares with peers.
    WithPeers,
    /// Every scenario that says how cost grows: names, connections, workers, refreshes, publishes.
    Scale,
    /// Record what criterion measured of the parts. `make bench-micro` calls this.
    Parts {
        /// Criterion's folder.
        folder: PathBuf,
    },
    /// Draw the pictures of recorded results again: SVG files beside the JSON of a folder.
    Pictures {
        /// The folder, DATE-MACHINE.
        folder: PathBuf,
    },
    /// Two revisions of clinch side by side: is the new one dearer?
    ///
    /// Ends with exit code 3 where it is, by more than 5 % and outside the noise. `make bench-compare
    /// BASE=REV` builds both and calls this.
    Compare {
        /// The program of the base revision; --clinch is the new one.
        #[arg(long)]
        base: PathBuf,
    },
    /// Run clinch's workers and a publisher: the contender of `publish`.
    #[command(hide = true)]
    DataPlane(data_plane::Setup),
    /// Relay TCP without TLS: the contender of `limit`.
    #[command(hide = true)]
    PlainRelay {
        /// Where to listen.
        listen: SocketAddr,
        /// Where to connect to.
        backend: SocketAddr,
        /// How to speak to the kernel.
        runtime: Runtime,
        /// Exchange as many bytes as a handshake has, first.
        #[arg(long)]
        flights: bool,
    },
}

type Measurement = Box<dyn FnOnce(&Bench) -> Result<Report>>;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("clinch-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let scenarios: Vec<Measurement> = match arguments.command {
        Command::Scenario(one) => vec![Box::new(move |bench| one.run(bench))],
        Command::All => each(&Scenario::ALL),
        Command::WithPeers => each(&Scenario::WITH_PEERS),
        Command::Scale => each(&Scenario::SCALE),
        Command::Allocator { other } => {
            vec![Box::new(move |bench| allocator::run(bench, &other))]
        }
        Command::Compare { base } => {
            ensure!(base.exists(), "no clinch at {}", base.display());
            vec![Box::new(move |bench| compare::run(bench, &base))]
        }
        Command::Parts { folder } => {
            let mut report = parts::report(&folder)?;
            println!("{}", report.table());
            if !arguments.no_record {
                println!(
                    "  recorded: {}",
                    report.record(&arguments.results)?.display()
                );
            }
            return Ok(ExitCode::SUCCESS);
        }
        Command::Pictures { folder } => {
            for file in pictures::draw(&folder)? {
                println!("{}", file.display());
            }
            return Ok(ExitCode::SUCCESS);
        }
        Command::DataPlane(setup) => {
            return data_plane::run(&setup).map(|()| ExitCode::SUCCESS);
        }
        Command::PlainRelay {
            listen,
            backend,
            runtime,
            flights,
        } => return relay::run(listen, backend, runtime, flights).map(|()| ExitCode::SUCCESS),
    };
    let mut effort = if arguments.quick {
        Effort::QUICK
    } else {
        machine::pin(machine::CLIENT_CORE)?;
        Effort::FULL
    };
    effort.rounds = arguments.rounds.unwrap_or(effort.rounds).max(1);
    effort.count = arguments.count.unwrap_or(effort.count).max(1);
    effort.sites = arguments.sites.unwrap_or(effort.sites).max(1);
    effort.held = arguments.held.unwrap_or(effort.held).max(1);
    let clinch = match arguments.clinch {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("clinch"),
    };
    ensure!(
        clinch.exists(),
        "no clinch at {}: build it first, cargo build --release -p clinch",
        clinch.display()
    );
    let record = !arguments.quick && !arguments.no_record;
    let results = record.then_some(arguments.results.as_path());
    let bench = Bench::new(clinch, effort)?;
    let mut code = ExitCode::SUCCESS;
    for scenario in scenarios {
        let mut report = scenario(&bench)?;
        if arguments.quick {
            report.promises.clear();
        }
        println!("{}", report.table());
        if report.scenario == "compare" && compare::regressions(&report).next().is_some() {
            code = ExitCode::from(REGRESSION);
        }
        let Some(results) = results else {
            continue;
        };
        let recorded = report.record(results)?;
        println!("  recorded: {}", recorded.display());
        if let Some(folder) = recorded.parent() {
            pictures::draw(folder)?;
        }
    }
    Ok(code)
}

fn each(scenarios: &[Scenario]) -> Vec<Measurement> {
    let measurement = |one: &Scenario| -> Measurement {
        let one = *one;
        Box::new(move |bench| one.run(bench))
    };
    scenarios.iter().map(measurement).collect()
}

/// Exit code of `compare` where the new program is dearer.
const REGRESSION: u8 = 3;
