//! The command line, and the plan that it means.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clinch_load::{Arrivals, Check, Pace, Plan, Resolver, Revocation, Suite, Version, Work};
use rustls::NamedGroup;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

/// A load generator for TLS servers that knows what a staple is.
#[derive(Debug, Parser)]
#[command(name = "clinch-load", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<Run>),
    /// Puts reports (JSON) of several runs beside each other
    #[command(after_help = "Example:\n  \
        clinch-load report with.json without.json client.json --html page.html")]
    Report {
        /// Reports written by `run --json`
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Write a page with the plots of all
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
        /// Its title
        #[arg(long, default_value = "Handshakes")]
        title: String,
    },
}

/// Puts a load on a server and says how it fared
#[derive(Debug, Args)]
#[command(
    after_help = "Examples (see docs/LOAD_TESTING.md; `clinch demo --target` is something to aim at):\n  \
    clinch-load run 127.0.0.1:8443 --name ecdsa.clinch.test --ca root.pem      # capacity: 64 clients, closed loop\n  \
    clinch-load run HOST:443 --rate 500 --duration 30s --html page.html        # latency: open loop, random arrivals\n  \
    clinch-load run HOST:443 --revocation client --resolver 127.0.0.1:5300     # what a client without a staple waits\n  \
    clinch-load run HOST:443 --resume --group x25519mlkem768 --work handshake\n  \
    clinch-load run HOST:443 --work request --path /bytes/67108864 --clients 4 # bulk down\n  \
    clinch-load run HOST:443 --work request --upload 67108864 --clients 4      # bulk up\n  \
    clinch-load run HOST:443 --work idle --clients 5000 --duration 60s\n  \
    clinch-load run HOST:443 --work slow --clients 100 --piece 16 --pause 500ms\n\n\
    Exit codes:\n  \
    0  every connection did what it was to do\n  \
    1  some failed; the report says how many, and how\n  \
    2  wrong usage, or the run could not begin"
)]
pub(crate) struct Run {
    /// Where to connect to, HOST:PORT
    target: String,
    /// Server name to ask for, instead of HOST; may be given several times, then in turn
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// A file of server names, one a line, asked for in turn
    #[arg(long, value_name = "FILE")]
    names: Option<PathBuf>,
    /// Judge the chain by the certificates of this PEM file [default: the chain is not judged]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// How the client learns whether the certificate is revoked
    #[arg(long, value_enum, default_value_t = RevocationWord::Staple)]
    revocation: RevocationWord,
    /// DNS server for the responder's name (client-side OCSP), instead of the system's resolver
    #[arg(long, value_name = "IP:PORT")]
    resolver: Option<SocketAddr>,
    /// Verify each distinct chain and staple once, or everything in every handshake as a browser does
    #[arg(long, value_enum, default_value_t = CheckWord::Distinct)]
    check: CheckWord,
    /// Version of TLS
    #[arg(long, value_enum, default_value_t = VersionWord::V13)]
    tls: VersionWord,
    /// Offer this group alone
    #[arg(long, value_enum)]
    group: Option<GroupWord>,
    /// Offer this cipher alone
    #[arg(long, value_enum)]
    suite: Option<SuiteWord>,
    /// Resume sessions: full handshakes come first, uncounted; one later counts as failed
    #[arg(long)]
    resume: bool,
    /// What each connection does after it has connected
    #[arg(long, value_enum, default_value_t = WorkWord::Request)]
    work: WorkWord,
    /// What is asked for
    #[arg(long, default_value = "/")]
    path: String,
    /// Send a body of so many bytes (POST)
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    upload: u64,
    /// Bytes in a piece of a slow client
    #[arg(long, value_name = "BYTES", default_value_t = 16)]
    piece: usize,
    /// Pause of a slow client after each piece
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = humantime::parse_duration)]
    pause: Duration,
    /// Closed loop: so many clients, each starting again when it has finished
    #[arg(long, value_name = "N", default_value_t = 64)]
    clients: u32,
    /// Open loop: so many arrivals a second, whatever becomes of them; latency counts from when they were due
    #[arg(long, value_name = "PER-SECOND", conflicts_with = "clients")]
    rate: Option<f64>,
    /// Distances between arrivals of the open loop
    #[arg(long, value_enum, default_value_t = ArrivalsWord::Poisson)]
    arrivals: ArrivalsWord,
    /// Open loop: connections at once; who comes beyond waits, and its latency grows
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    most_open: u32,
    /// How long to measure
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How long to run before that, uncounted
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// End after so many connections, if that is sooner
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// A connection that takes longer has failed
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    deadline: Duration,
    /// Threads [default: one for each core, or for each of --cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Cores to stay on, one for each thread, e.g. 2,3
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    cores: Vec<usize>,
    /// Local addresses to connect from, in turn: each has some 28,000 ports
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    source: Vec<IpAddr>,
    /// Name in reports
    #[arg(long, default_value = "clinch-load")]
    pub(crate) label: String,
    #[command(flatten)]
    pub(crate) outputs: Outputs,
}

/// Where results go beside the table on stdout.
#[derive(Debug, Args)]
pub(crate) struct Outputs {
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write PREFIX.PHASE.hgrm for the HdrHistogram plotter
    #[arg(long, value_name = "PREFIX")]
    pub(crate) hgrm: Option<PathBuf>,
    /// No progress
    #[arg(long)]
    pub(crate) quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RevocationWord {
    /// A staple is demanded and verified
    Staple,
    /// Nothing is checked
    None,
    /// The client resolves the responder, asks it and verifies the answer before it trusts the handshake
    Client,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CheckWord {
    Distinct,
    Every,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum VersionWord {
    #[value(name = "1.2")]
    V12,
    #[value(name = "1.3")]
    V13,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "lower")]
enum GroupWord {
    X25519,
    X25519Mlkem768,
    Secp256r1,
    Secp384r1,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "lower")]
enum SuiteWord {
    Aes128,
    Aes256,
    ChaCha20,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WorkWord {
    /// Handshake and close
    Handshake,
    /// Handshake, one HTTP request with its whole answer, close
    Request,
    /// Handshake, then nothing until the run ends
    Idle,
    /// A request whose every byte comes in small pieces with pauses
    Slow,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ArrivalsWord {
    /// Random and independent
    Poisson,
    /// Evenly spaced
    Even,
}

impl Run {
    /// What the arguments mean.
    pub(crate) fn plan(&self) -> Result<Plan> {
        ensure!(self.piece > 0, "--piece 0 sends nothing");
        if let Some(rate) = self.rate {
            ensure!(rate.is_finite() && rate > 0.0, "--rate must be positive");
        }
        let closed_only = matches!(self.work, WorkWord::Idle);
        ensure!(
            !(closed_only && self.rate.is_some()),
            "--work idle holds --clients connections; a --rate means nothing to it"
        );
        let mut addresses = self
            .target
            .to_socket_addrs()
            .with_context(|| format!("{}: not HOST:PORT, or no such host", self.target))?;
        let address = addresses.next().context("the host has no address")?;
        Ok(Plan {
            address,
            names: self.names()?,
            revocation: match self.revocation {
                RevocationWord::Staple => Revocation::Staple,
                RevocationWord::None => Revocation::Ignore,
                RevocationWord::Client => {
                    Revocation::Client(self.resolver.map_or(Resolver::System, Resolver::Server))
                }
            },
            roots: self.roots()?,
            check: match self.check {
                CheckWord::Distinct => Check::Distinct,
                CheckWord::Every => Check::Every,
            },
            version: match self.tls {
                VersionWord::V12 => Version::Tls12,
                VersionWord::V13 => Version::Tls13,
            },
            group: self.group.map(|group| match group {
                GroupWord::X25519 => NamedGroup::X25519,
                GroupWord::X25519Mlkem768 => NamedGroup::X25519MLKEM768,
                GroupWord::Secp256r1 => NamedGroup::secp256r1,
                GroupWord::Secp384r1 => NamedGroup::secp384r1,
            }),
            suite: self.suite.map(|suite| match suite {
                SuiteWord::Aes128 => Suite::Aes128,
                SuiteWord::Aes256 => Suite::Aes256,
                SuiteWord::ChaCha20 => Suite::ChaCha20,
            }),
            resume: self.resume,
            work: self.work(),
            pace: self.pace(),
            duration: self.duration,
            warm_up: if closed_only {
                Duration::ZERO
            } else {
                self.warm_up
            },
            count: self.count,
            deadline: self.deadline,
            threads: self.threads()?,
            sources: self.source.clone(),
        })
    }

    fn work(&self) -> Work {
        match self.work {
            WorkWord::Handshake => Work::Handshake,
            WorkWord::Request => Work::Request {
                path: self.path.clone(),
                upload: self.upload,
            },
            WorkWord::Idle => Work::Idle,
            WorkWord::Slow => Work::Slow {
                piece: self.piece,
                pause: self.pause,
            },
        }
    }

    fn pace(&self) -> Pace {
        match self.rate {
            None => Pace::Closed {
                clients: self.clients.max(1),
            },
            Some(rate) => Pace::Open {
                rate,
                arrivals: match self.arrivals {
                    ArrivalsWord::Poisson => Arrivals::Poisson,
                    ArrivalsWord::Even => Arrivals::Even,
                },
                most: self.most_open.max(1),
            },
        }
    }

    fn names(&self) -> Result<Vec<ServerName<'static>>> {
        let mut names = self.name.clone();
        if let Some(path) = &self.names {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            names.extend(text.split_whitespace().map(str::to_owned));
        }
        if names.is_empty() {
            let host = self.target.rsplit_once(':').map_or("", |(host, _)| host);
            names.push(host.trim_matches(['[', ']']).to_owned());
        }
        let parse = |name: String| {
            ServerName::try_from(name.clone()).with_context(|| format!("{name} is no server name"))
        };
        names.into_iter().map(parse).collect()
    }

    fn roots(&self) -> Result<Vec<CertificateDer<'static>>> {
        let Some(path) = &self.ca else {
            return Ok(Vec::new());
        };
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        let roots: Vec<_> = read.with_context(|| path.display().to_string())?;
        ensure!(
            !roots.is_empty(),
            "{}: no certificate in it",
            path.display()
        );
        Ok(roots)
    }

    fn threads(&self) -> Result<Vec<Option<usize>>> {
        if self.cores.is_empty() {
            let all = std::thread::available_parallelism()?.get();
            return Ok(vec![None; self.threads.unwrap_or(all).max(1)]);
        }
        if self
            .threads
            .is_some_and(|threads| threads != self.cores.len())
        {
            bail!("--threads and --cores disagree: one thread stays on each core");
        }
        Ok(self.cores.iter().copied().map(Some).collect())
    }
}
