//! What every scenario stands on: certificates, backend and responder running, and one way to measure.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clinch::cli::demo::authority::KeyAlgorithm;
use clinch_load::Plan;
use rustls::NamedGroup;
use socket2::{Domain, Socket, Type};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::client::{Client, Suite};
use crate::load::{Load, Outcome, Pattern};
use crate::pki::{self, Site};
use crate::process::{Cpu, Server};
use crate::responder::Distance;
use crate::rounds::Sample;
use crate::{backend, machine, responder};

/// The site whose staple is served.
pub const STAPLED: usize = 0;
/// The site that has none.
pub const PLAIN: usize = 1;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Rounds, in each of which every contender measures once.
    pub rounds: u32,
    /// Connections per measurement.
    pub count: u32,
    /// Connections at once.
    pub concurrency: u32,
    /// Connections held in `idle`.
    pub idle: u32,
    /// How long they have been idle when memory is read.
    pub idle_for: Duration,
    /// Bytes per connection in `bulk`.
    pub bulk: u64,
    /// How long each turn of an open or closed loop of `headline` lasts.
    pub turn: Duration,
    /// Certificates in `certificates`.
    pub certificates: u32,
    /// How long a server with many certificates may take to start or to reload.
    pub patience: Duration,
    /// Sites in `scale-names`.
    pub sites: u32,
    /// Connections held in `scale-connections`.
    pub held: u32,
    /// Certificates in `scale-refreshes`.
    pub refreshed: u32,
}

impl Effort {
    /// A real measurement, on a machine with nothing else to do.
    pub const FULL: Self = Self {
        rounds: 7,
        count: 4000,
        concurrency: 64,
        idle: 5000,
        idle_for: Duration::from_secs(5),
        bulk: 64 << 20,
        turn: Duration::from_secs(7),
        certificates: 10_000,
        patience: Duration::from_secs(30),
        sites: 1_000_000,
        held: 50_000,
        refreshed: 400,
    };
    /// Enough to see that everything works.
    pub const QUICK: Self = Self {
        rounds: 1,
        count: 40,
        concurrency: 8,
        idle: 50,
        idle_for: Duration::from_millis(100),
        bulk: 1 << 20,
        turn: Duration::from_millis(200),
        certificates: 20,
        patience: Duration::from_secs(5),
        sites: 100,
        held: 50,
        refreshed: 20,
    };

    /// As many connections in eight times as many rounds: for differences of a few per cent, which
    /// longer turns would lose in the machine's drift.
    pub fn fine(&self) -> Self {
        let finer = if self.rounds > 1 { 8 } else { 1 };
        Self {
            rounds: self.rounds * finer,
            count: self.count.div_ceil(finer),
            ..self.clone()
        }
    }
}

/// Certificates, backend and responder, and the runtime of client and backend.
pub struct Bench {
    /// Files of this run; removed with the value.
    pub directory: tempfile::TempDir,
    /// The sites [`STAPLED`] and [`PLAIN`].
    pub sites: Vec<Site>,
    /// Where the backend listens.
    pub backend: SocketAddr,
    /// A DNS server that knows the responder's name.
    pub dns: SocketAddr,
    /// How far away responder and DNS server are.
    pub distance: Distance,
    /// TLS 1.2 alone, and RSA certificates.
    pub older: bool,
    /// The clinch under test.
    pub clinch: PathBuf,
    /// How much is measured.
    pub effort: Effort,
    runtime: Runtime,
    tasks: LocalSet,
}

impl Bench {
    /// Starts what surrounds the servers under test, on the cores of the calling thread.
    pub fn new(clinch: PathBuf, effort: Effort) -> Result<Self> {
        Self::with_key(clinch, effort, KeyAlgorithm::P256)
    }

    /// The same for servers and clients with TLS 1.2 alone and RSA certificates.
    pub fn older(clinch: PathBuf, effort: Effort) -> Result<Self> {
        let bench = Self::with_key(clinch, effort, KeyAlgorithm::Rsa2048)?;
        Ok(Self {
            older: true,
            ..bench
        })
    }

    fn with_key(clinch: PathBuf, effort: Effort, key: KeyAlgorithm) -> Result<Self> {
        machine::raise_file_limit()?;
        let directory = tempfile::Builder::new().prefix("clinch-bench-").tempdir()?;
        let asked = listener()?;
        let responder = asked.local_addr()?;
        let names = ["a.bench.test", "b.bench.test"];
        // A name, so that clients have one to resolve; /etc/hosts knows it for clinch.
        let responder = format!("localhost:{}", responder.port());
        let sites = pki::make_with(directory.path(), &responder, &names, key)?;
        let staples: Vec<_> = sites.iter().map(|site| site.staple.clone()).collect();
        let distance = Distance::default();
        let answer = move |index: usize| staples.get(index).cloned();
        responder::start(asked, answer, distance.clone())?;
        let dns = responder::start_dns(distance.clone())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let tasks = LocalSet::new();
        let backend = tasks.block_on(&runtime, async { backend::start() })?;
        Ok(Self {
            directory,
            sites,
            backend,
            dns,
            distance,
            older: false,
            clinch,
            effort,
            runtime,
            tasks,
        })
    }

    /// Runs a future with client and backend alive.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        self.tasks.block_on(&self.runtime, future)
    }

    /// A client of one of the sites. `staple`: whether the server must staple.
    pub fn client(
        &self,
        site: usize,
        staple: bool,
        suite: Suite,
        group: NamedGroup,
    ) -> Result<Client> {
        let site = &self.sites[site];
        let expected = staple.then_some(site.staple.as_slice());
        if self.older {
            return Client::older(&site.name, &site.chain[0], expected);
        }
        Client::new(&site.name, &site.chain[0], expected, suite, group)
    }

    /// Puts a load on a server and says what CPU time it took, from rest to rest.
    pub fn load(&self, server: &Server, load: &Load) -> Result<(Outcome, Cpu, Cpu)> {
        self.run(async {
            let before = server.settled_cpu().await?;
            let outcome = load.run().await?;
            let after = server.settled_cpu().await?;
            Ok((outcome, before, after))
        })
    }

    /// Measures CPU time of the server per connection in µs: of all its threads, or of those that
    /// `which` takes.
    pub fn cpu_per_connection(
        &self,
        server: &Server,
        load: &Load,
        which: impl Fn(&str) -> bool,
    ) -> Result<Sample> {
        let (outcome, before, after) = self.load(server, load)?;
        let per_connection = |ns: u64| ns as f64 / 1000.0 / f64::from(load.count);
        let mut sample = Sample::from(per_connection(after.since(&before, which)));
        for (thread, ns) in after.by_name(&before) {
            let name = format!("µs per connection in thread {thread}");
            sample.detail.insert(name, per_connection(ns));
        }
        let handshake = |q| outcome.handshake_us.value_at_quantile(q) as f64;
        sample.detail.extend([
            ("wall seconds".to_owned(), outcome.wall.as_secs_f64()),
            ("closed-loop handshake p50 µs".to_owned(), handshake(0.5)),
            ("closed-loop handshake p99 µs".to_owned(), handshake(0.99)),
        ]);
        Ok(sample)
    }

    /// Runs a plan of the load generator beside backend and responder. One connection that does not do
    /// all that it was to do ends the measurement.
    pub fn generate(&self, plan: &Plan) -> Result<clinch_load::Outcome> {
        let plan = plan.clone();
        let (done, outcome) = oneshot::channel();
        let run = move || {
            let _ = done.send(clinch_load::run(&plan, &AtomicBool::new(false), |_| ()));
        };
        std::thread::Builder::new()
            .name("generator".to_owned())
            .spawn(run)?;
        // The backend lives on this runtime, so it must run meanwhile.
        let outcome = self.run(outcome).context("the generator panicked")??;
        let recorder = &outcome.recorder;
        ensure!(
            recorder.failures.is_empty() && recorder.counts.finished > 0,
            "{} finished, and failed: {:?}",
            recorder.counts.finished,
            recorder.failures
        );
        Ok(outcome)
    }

    /// A load of the ordinary size.
    pub fn ordinary(&self, address: SocketAddr, client: Option<Client>, pattern: Pattern) -> Load {
        Load {
            address,
            client,
            pattern,
            count: self.effort.count,
            concurrency: self.effort.concurrency,
        }
    }
}

/// A listener on a free port of the loopback.
pub fn listener() -> Result<TcpListener> {
    listener_at(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// A listener with a backlog that a burst does not overflow.
pub fn listener_at(address: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096).context("listen")?;
    Ok(socket.into())
}

/// A port that was free a moment ago, for a server that binds by itself.
pub fn free_address() -> Result<SocketAddr> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    let address = socket.local_addr()?.as_socket();
    address.context("an IPv4 socket has an IPv4 address")
}
