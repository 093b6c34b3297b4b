//! The operator's tool for Clinch appliances: commands over the admin interface.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use clinch_init::admin::{self, Command};
use clinch_init::machine::to_hex;
use ed25519_dalek::SigningKey;

/// Command a Clinch appliance.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
        openssl genpkey -algorithm ed25519 -out operator.key\n  \
        clinch-appliance key operator.key                     # for machine.toml, [admin] keys\n  \
        clinch-appliance --to 10.0.0.7:9443 --key operator.key status\n  \
        clinch-appliance --to 10.0.0.7:9443 --key operator.key update clinch.update\n\n\
        Exit codes:\n  \
        0  done\n  \
        1  no answer\n  \
        2  wrong usage\n  \
        3  the appliance refuses, and says why"
)]
struct Args {
    /// Admin interface of the appliance
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: Option<SocketAddr>,
    /// The operator's key, PEM (Ed25519)
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the public half of a key, as machine.toml wants it
    Key {
        /// The key, PEM (Ed25519)
        file: PathBuf,
    },
    /// Say what the appliance is and does
    Status,
    /// Print the metrics of its clinch (OpenMetrics)
    Metrics,
    /// Send an update; it is booted, and kept once the appliance has proved that it serves
    Update {
        /// The file clinch.update of a build
        file: PathBuf,
    },
    /// Send machine.toml and clinch.toml of a folder; undone unless they serve
    Apply {
        /// The folder; certificates and keys are not sent
        folder: PathBuf,
    },
    /// Keep the configuration and the version that run
    Confirm,
    /// Drain and start again
    Reboot,
    /// Drain and switch off
    Poweroff,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let (command, body) = match &args.command {
        What::Key { file } => {
            println!("{}", to_hex(key(file)?.verifying_key().as_bytes()));
            return Ok(ExitCode::SUCCESS);
        }
        What::Status => (Command::Status, Vec::new()),
        What::Metrics => (Command::Metrics, Vec::new()),
        What::Update { file } => (
            Command::Update,
            std::fs::read(file).with_context(|| file.display().to_string())?,
        ),
        What::Apply { folder } => (Command::Apply, configuration(folder)?),
        What::Confirm => (Command::Confirm, Vec::new()),
        What::Reboot => (Command::Reboot, Vec::new()),
        What::Poweroff => (Command::PowerOff, Vec::new()),
    };
    let (Some(to), Some(file)) = (args.to, &args.key) else {
        bail!("--to and --key are needed to command an appliance");
    };
    let answer = admin::send(to, &key(file)?, command, &body).with_context(|| {
        format!("{to} does not answer; is the address in machine.toml, and this machine in `from`?")
    })?;
    match (&args.command, answer.strip_prefix("ok ")) {
        // Nothing but what a scraper reads.
        (What::Metrics, Some(page)) => println!("{}", page.trim_end()),
        _ => print!("{answer}"),
    }
    Ok(if answer.starts_with("ok") {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(3)
    })
}

/// Reads a PKCS #8 file with an Ed25519 key (RFC 8410): its last 32 bytes are the seed.
fn key(file: &Path) -> anyhow::Result<SigningKey> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let body: String = text
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let der = base64(&body).with_context(|| format!("{}: this is no PEM file", file.display()))?;
    const PREFIX: [u8; 16] = [
        0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
    ];
    match der
        .strip_prefix(&PREFIX)
        .and_then(|seed| <[u8; 32]>::try_from(seed).ok())
    {
        Some(seed) => Ok(SigningKey::from_bytes(&seed)),
        None => bail!(
            "{}: this is no Ed25519 key; make one with `openssl genpkey -algorithm ed25519`",
            file.display()
        ),
    }
}

fn base64(text: &str) -> Option<Vec<u8>> {
    use ::base64::Engine;
    ::base64::engine::general_purpose::STANDARD
        .decode(text)
        .ok()
}

fn configuration(folder: &Path) -> anyhow::Result<Vec<u8>> {
    let mut files = BTreeMap::new();
    for name in ["machine.toml", "clinch.toml"] {
        let path = folder.join(name);
        if path.exists() {
            files.insert(
                name,
                std::fs::read_to_string(&path).with_context(|| path.display().to_string())?,
            );
        }
    }
    if files.is_empty() {
        bail!(
            "{}: there is neither machine.toml nor clinch.toml",
            folder.display()
        );
    }
    Ok(serde_json::to_vec(&files)?)
}
