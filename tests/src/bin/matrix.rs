//! Runs the misbehaviour matrix (`clinch_tests::matrix`) and writes docs/MISBEHAVIOUR.md. Needs root,
//! for namespaces of its own, in which it starts itself again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use clinch_tests::dns::Dns;
use clinch_tests::matrix::faults::Fault;
use clinch_tests::matrix::page::{Column, Record, broken_promises, render};
use clinch_tests::matrix::servers::Server;
use clinch_tests::matrix::{NAME_SERVER, Times, inside, run};

/// Every misbehaviour of a responder, against clinch and the servers it is compared with.
///
/// Prints what is wrong with clinch, and fails, if anything is.
#[derive(Parser)]
struct Arguments {
    /// Only this server; may be repeated. The others' results stay as recorded
    #[arg(long = "server", value_name = "KEY")]
    servers: Vec<String>,
    /// Only faults whose name contains this; may be repeated. Needs --no-record
    #[arg(long = "fault", value_name = "PART", requires = "no_record")]
    faults: Vec<String>,
    /// Seconds that a fault is on
    #[arg(long, default_value_t = 12)]
    fault_seconds: u64,
    /// Seconds that recovery is waited for
    #[arg(long, default_value_t = 90)]
    recovery_seconds: u64,
    /// Record nothing, print the page
    #[arg(long)]
    no_record: bool,
    /// Run nothing: write the page again from what is recorded
    #[arg(long, conflicts_with = "no_record")]
    page: bool,
    /// Set by the program itself
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.page {
        let record = serde_json::from_slice(&std::fs::read(docs().join("misbehaviour.json"))?)?;
        return Ok(std::fs::write(
            docs().join("MISBEHAVIOUR.md"),
            render(&record),
        )?);
    }
    if !arguments.inside {
        return start_again();
    }
    let name_server = SocketAddr::new(NAME_SERVER.parse().expect("an address"), 53);
    let dns = Dns::start(name_server).context("the name server's address")?;
    let servers = chosen(&arguments.servers)?;
    let mut faults = Fault::all();
    if !arguments.faults.is_empty() {
        faults.retain(|fault| {
            arguments
                .faults
                .iter()
                .any(|part| fault.name.contains(part))
        });
        ensure!(!faults.is_empty(), "no fault has such a name");
    }
    let times = Times {
        fault: Duration::from_secs(arguments.fault_seconds),
        recovery: Duration::from_secs(arguments.recovery_seconds),
    };

    let record_path = docs().join("misbehaviour.json");
    let mut record = match std::fs::read(&record_path) {
        Ok(bytes) if !arguments.no_record => serde_json::from_slice(&bytes)?,
        _ => Record::default(),
    };
    let mut broken = Vec::new();
    for server in servers {
        if !server.is_there() {
            println!("{}: not installed, left out", server.name());
            continue;
        }
        println!("{}: {} faults", server.name(), faults.len());
        let column = Column::new(server, times, run(server, &faults, times, &dns));
        if server == Server::Clinch {
            broken = broken_promises(&column);
        }
        record.servers.insert(server.key().to_owned(), column);
    }
    if arguments.no_record {
        println!("{}", render(&record));
    } else {
        std::fs::write(&record_path, serde_json::to_string_pretty(&record)? + "\n")?;
        std::fs::write(docs().join("MISBEHAVIOUR.md"), render(&record))?;
    }
    for promise in &broken {
        eprintln!("clinch: {promise}");
    }
    ensure!(broken.is_empty(), "clinch did not keep its promises");
    Ok(())
}

/// Runs this program with the same arguments in namespaces of its own.
fn start_again() -> Result<()> {
    let program = std::env::current_exe()?;
    let clinch = program.with_file_name("clinch");
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .chain(["--inside".to_owned()])
        .collect();
    let mut command = inside(&program, &arguments);
    if std::env::var_os("CLINCH_BIN").is_none() {
        ensure!(clinch.exists(), "{} is not built", clinch.display());
        command.env("CLINCH_BIN", clinch);
    }
    let status = command.status().context("unshare")?;
    if !status.success() {
        bail!("the matrix failed ({status})");
    }
    Ok(())
}

fn chosen(keys: &[String]) -> Result<Vec<Server>> {
    if keys.is_empty() {
        return Ok(Server::ALL.to_vec());
    }
    let find = |key: &String| {
        let found = Server::ALL.into_iter().find(|server| server.key() == key);
        let known = Server::ALL.map(Server::key).join(", ");
        found.with_context(|| format!("no server \"{key}\"; there are {known}"))
    };
    keys.iter().map(find).collect()
}

fn docs() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ has a parent").join("docs")
}
