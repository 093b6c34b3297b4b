//! `clinch run`: the server. Here the parts are put together, in an order that matters:
//!
//! 1. the configuration is read, the log opened, core dumps and new privileges ruled out;
//! 2. certificates and keys are read, the egress process is started, cached staples are taken
//!    ([`Control::prepare`]), all with the privileges the process was started with;
//! 3. addresses are bound but not listened on, then privileges are given up for good;
//! 4. responders are asked, for at most `timeouts.startup_wait`;
//! 5. only then are the accept queues opened and the workers started, and the service manager hears
//!    `READY=1`.
//!
//! What the process then does is in [`serve`].

mod capacity;
mod grounds;
mod manager;
mod serve;
mod sockets;
mod steering;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;

use crate::config::{Config, ConfigError};
use crate::control::{self, Control, StartError};
use crate::data::{self, Worker, WorkerSetup};
use crate::egress;
use crate::limits::Limits;
use crate::observability::admin::{Server, Socket};
use crate::observability::counters::{Counters, FetchCounters};
use crate::observability::{Instance, WorkerView, events};
use crate::snapshot::Subscriber;
use crate::steering::Steering;
use crate::sys::privileges::{self, PrivilegeError};

use capacity::Plan;
use manager::Manager;
use serve::{Served, Signals};
use sockets::Reserved;

/// Run the server.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
        clinch run -c /etc/clinch/clinch.toml\n\n\
        Signals:\n  \
        SIGHUP           reload configuration and certificates\n  \
        SIGTERM, SIGINT  take no new connections, finish those there are (at most timeouts.drain);\n  \
        \x20                again: end at once\n\n\
        Exit codes:\n  \
        0  ended by a signal\n  \
        1  could not start, or a part of it failed while running\n  \
        2  wrong usage, or the configuration or a file it names cannot be used")]
pub(super) struct Args {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", default_value = super::CONFIG_PATH)]
    config: PathBuf,

    /// End when the process that started this one ends, however that ends: for `clinch demo`
    #[arg(long, hide = true)]
    with_parent: bool,
}

/// Runs until a signal or a fault ends it.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match start_and_serve(args) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if is_for_the_operator(&error) => {
            eprintln!("clinch: {error:#}");
            Ok(ExitCode::from(2))
        }
        Err(error) => Err(error),
    }
}

fn is_for_the_operator(error: &anyhow::Error) -> bool {
    error.is::<ConfigError>()
        || error.is::<Unreadable>()
        || error.is::<capacity::TooFewDescriptors>()
        || matches!(error.downcast_ref(), Some(StartError::Load(_)))
        || matches!(
            error.downcast_ref(),
            Some(PrivilegeError::UnknownUser(_) | PrivilegeError::UnknownGroup(_))
        )
}

/// The configuration file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}; name the configuration file with -c", .path.display())]
struct Unreadable {
    path: PathBuf,
    source: std::io::Error,
}

fn start_and_serve(args: &Args) -> anyhow::Result<()> {
    // Before a key is in memory, and before there is a second thread.
    privileges::forbid_core_dumps()?;
    privileges::forbid_new_privileges()?;
    // A kernel without huge pages has nothing to decline.
    let _ = crate::sys::resources::decline_huge_pages();
    let passed = crate::sys::listening::passed()?;

    let text = std::fs::read_to_string(&args.config).map_err(|source| Unreadable {
        path: args.config.clone(),
        source,
    })?;
    let config = Config::parse(&text)
        .map_err(|error| anyhow::Error::new(error).context(args.config.display().to_string()))?;
    events::start(&config.log)?;
    let plan = Plan::new(&config)?;
    plan.report();

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the control runtime cannot be started")?;
    runtime.block_on(async {
        let signals = Signals::new().context("signal handlers cannot be installed")?;
        let started = Starting::prepare(args, config, plan, passed).await?;
        let Some((served, control)) = started.fetch_and_listen(&signals).await? else {
            return Ok(());
        };
        serve::serve(served, control, signals).await
    })
}

/// Everything that exists between the reading of files and the first client.
struct Starting {
    config: Config,
    plan: Plan,
    control: Control,
    subscribers: Vec<Subscriber>,
    reserved: Vec<Reserved>,
    instance: Arc<Instance>,
    admin: Option<Socket>,
    steering: Option<Steering>,
}

impl Starting {
    /// Steps 2 and 3; afterwards the process has no privileges left.
    async fn prepare(
        args: &Args,
        config: Config,
        plan: Plan,
        passed: Vec<crate::sys::listening::Address>,
    ) -> anyhow::Result<Self> {
        let account = grounds::account(&config)?;
        grounds::make_cache_directory(&config);
        let fetches = Arc::new(FetchCounters::default());
        let (mut steering, mut unsteered) = steering::prepare(&config, plan.workers());
        let setup = control::Setup {
            config_path: args.config.clone(),
            config: config.clone(),
            // Steering follows the snapshots as a worker does.
            workers: plan.workers() + usize::from(steering.is_some()),
            egress_program: egress::SELF.into(),
            counters: Arc::clone(&fetches),
        };
        let (control, subscribers) = Control::prepare(setup).await?;
        let mut reserved = sockets::reserve(&config, plan.workers(), passed)?;
        if steering.is_some()
            && let Err(error) = sockets::reserve_landings(&mut reserved)
        {
            (steering, unsteered) = (None, Some(error.to_string()));
        }
        let admin = match &config.admin.listen {
            Some(address) => Some(Socket::bind(address)?),
            None => None,
        };
        grounds::leave_privileges(&config, account.as_ref(), admin.as_ref())?;
        if args.with_parent {
            // A change of identity would have cleared it (prctl(2)).
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
                .context("asking to end with the parent")?;
        }
        grounds::warn_of_unreadable_files(&args.config, &config);

        let workers = plan
            .cores()
            .map(|core| WorkerView::new(core, plan.capacity(), Arc::new(Counters::default())));
        let listeners = reserved.iter().map(Reserved::view).collect();
        let instance = Arc::new(Instance::new(workers.collect(), listeners, fetches));
        steering::report(&config, &instance, unsteered);
        Ok(Self {
            config,
            plan,
            control,
            subscribers,
            reserved,
            instance,
            admin,
            steering,
        })
    }

    /// Steps 4 and 5. `None` when a signal said to end before there was anything to drain.
    async fn fetch_and_listen(
        mut self,
        signals: &Signals,
    ) -> anyhow::Result<Option<(Served, Control)>> {
        let manager = Manager;
        let admin = self.admin.take().map(|socket| {
            let control = self.control.handle();
            let server = Server::new(socket, Arc::clone(&self.instance), control);
            tokio::spawn(async move {
                let Err(error) = server.run().await;
                tracing::error!(%error, "the admin interface has ended; restart to get it back");
            })
        });
        manager.status("asking OCSP responders before the first connection");
        let first = tokio::select! {
            first = self.control.first_fetch(self.config.timeouts.startup_wait) => first,
            () = signals.end() => {
                tracing::info!("told to end while starting");
                return Ok(None);
            }
        };
        tracing::info!(
            wanted = first.wanted,
            stapled = first.stapled,
            "the first fetch is over; starting to listen"
        );
        let workers = self.plan.workers();
        let (sockets, landings) =
            sockets::open(self.reserved, &self.config, workers, &mut self.steering)?;
        let rest = self.subscribers.split_off(workers);
        let workers = start_workers(
            &self.config,
            &self.plan,
            &self.instance,
            self.subscribers,
            (sockets, landings),
        )?;
        let steering = steering::start(self.steering, rest, &self.instance)?;
        let served = Served {
            steering,
            instance: self.instance,
            workers,
            admin,
            manager,
            drain: self.config.timeouts.drain,
        };
        Ok(Some((served, self.control)))
    }
}

fn start_workers(
    config: &Config,
    plan: &Plan,
    instance: &Instance,
    subscribers: Vec<Subscriber>,
    (sockets, landings): (Vec<sockets::OfWorker>, sockets::OfWorker),
) -> anyhow::Result<Vec<Worker>> {
    let mut desks = match config.steering.prepared {
        true => data::handover::desks(plan.workers())?,
        false => Vec::new(),
    }
    .into_iter();
    let mut landings = Some(landings);
    let given = subscribers.into_iter().zip(sockets);
    instance
        .workers
        .iter()
        .zip(given)
        .enumerate()
        .map(|(index, (view, (subscriber, sockets)))| {
            data::start(WorkerSetup {
                index,
                core: view.core,
                sockets,
                subscriber,
                counters: Arc::clone(&view.counters),
                limits: Limits::clone(&config.limits),
                capacity: plan.capacity(),
                timeouts: config.timeouts.clone(),
                landings: landings.take().unwrap_or_default(),
                desk: desks.next(),
            })
            .with_context(|| format!("worker {index} cannot be started"))
        })
        .collect()
}
