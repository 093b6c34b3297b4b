//! The server at work: drives control, answers signals, watches the workers, and drains.
//!
//! It does not touch connections. It returns when all is over; an error says which part failed, so
//! that the process ends with a code that makes the service manager start it again.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{anyhow, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::manager::Manager;
use crate::clock;
use crate::control::{Control, Handle};
use crate::data::Worker;
use crate::observability::report::Report;
use crate::observability::{Instance, Phase};
use crate::steering::Running;

/// What runs beside control.
pub(super) struct Served {
    pub(super) instance: Arc<Instance>,
    pub(super) workers: Vec<Worker>,
    /// The admin interface, if there is one.
    pub(super) admin: Option<JoinHandle<()>>,
    pub(super) manager: Manager,
    /// How long connections may take to finish.
    pub(super) drain: Duration,
    /// The thread that steers, if the kernel does.
    pub(super) steering: Option<Running>,
}

/// The signals that are answered. Installed before anything takes long, so that none kills the
/// process by default.
pub(super) struct Signals {
    hangup: Mutex<Signal>,
    terminate: Mutex<Signal>,
    interrupt: Mutex<Signal>,
}

impl Signals {
    /// Installs the handlers; needs a tokio runtime.
    pub(super) fn new() -> io::Result<Self> {
        let install = |kind| signal(kind).map(Mutex::new);
        Ok(Self {
            hangup: install(SignalKind::hangup())?,
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
        })
    }

    /// The next SIGTERM or SIGINT.
    pub(super) async fn end(&self) {
        let (mut terminate, mut interrupt) =
            (self.terminate.lock().await, self.interrupt.lock().await);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }

    /// The next SIGHUP.
    async fn reload(&self) {
        self.hangup.lock().await.recv().await;
    }
}

/// Serves until a signal or a fault ends it.
pub(super) async fn serve(
    mut served: Served,
    control: Control,
    signals: Signals,
) -> anyhow::Result<()> {
    let handle = control.handle();
    let mut control = ControlRun {
        run: pin!(control.run()),
        ended: false,
    };
    served.instance.enter(Phase::Serving);
    let (manager, instance) = (served.manager, Arc::clone(&served.instance));
    let told = handle.clone();
    let manager_tasks = tokio::spawn(async move {
        announce(manager, Arc::clone(&instance), told.clone()).await;
        tokio::join!(
            keep_status(manager, Arc::clone(&instance), told.clone()),
            keep_watchdog(manager, instance, told),
        );
    });
    let outcome = served.until_told(&mut control, &handle, &signals).await;
    let outcome = match outcome {
        Ok(()) => {
            // While sockets close, new connections go to those that are left by hash.
            if let Some(steering) = served.steering.take() {
                steering.stop();
            }
            served.drain(&mut control, &signals).await
        }
        Err(fault) => Err(fault),
    };
    manager_tasks.abort();
    served.end(control, &handle).await;
    outcome
}

/// Control at work. It ends only when told; anything else is a fault.
struct ControlRun<'a> {
    run: Pin<&'a mut dyn Future<Output = ()>>,
    ended: bool,
}

impl ControlRun<'_> {
    /// Drives control until it ends; may be dropped and called again.
    async fn end(&mut self) {
        if !self.ended {
            self.run.as_mut().await;
            self.ended = true;
        }
    }
}

impl Served {
    /// Until SIGTERM or SIGINT; an error where a part failed.
    async fn until_told(
        &self,
        control: &mut ControlRun<'_>,
        handle: &Handle,
        signals: &Signals,
    ) -> anyhow::Result<()> {
        let mut look = interval(WORKERS_LOOKED_AT);
        loop {
            tokio::select! {
                () = signals.end() => return Ok(()),
                () = signals.reload() => {
                    tokio::spawn(reload(self.manager, Arc::clone(&self.instance), handle.clone()));
                }
                _ = look.tick() => self.no_worker_ended()?,
                () = control.end() => bail!("control ended by itself; staples would run out unnoticed"),
            }
        }
    }

    /// A worker ends only when told. One that ended otherwise leaves its core's share of the
    /// connections unanswered, since the kernel no longer spreads them to it but those in its queue
    /// are lost: a restart is better than that.
    fn no_worker_ended(&self) -> anyhow::Result<()> {
        let mut fault = None;
        for (index, (worker, view)) in self.workers.iter().zip(&self.instance.workers).enumerate() {
            if worker.ended() {
                view.alive.store(false, Relaxed);
                tracing::error!(worker = index, "a worker has ended by itself; giving up");
                fault = Some(anyhow!(
                    "worker {index} ended by itself; see the log for its panic"
                ));
            }
        }
        fault.map_or(Ok(()), Err)
    }

    /// Takes no new connections and waits for those there are.
    async fn drain(&self, control: &mut ControlRun<'_>, signals: &Signals) -> anyhow::Result<()> {
        self.instance.enter(Phase::Draining);
        self.manager.stopping();
        let connections = self.connections();
        tracing::info!(connections, at_most = ?self.drain, "draining");
        self.workers.iter().for_each(Worker::drain);

        // The workers keep the time-out themselves; this one is for a worker that does not.
        let overdue = Instant::now() + self.drain + DRAIN_OVERDUE;
        let mut look = interval(DRAIN_LOOKED_AT);
        loop {
            tokio::select! {
                () = signals.end() => {
                    tracing::warn!(connections = self.connections(), "told to end again: ending at once");
                    return Ok(());
                }
                _ = look.tick() => if self.workers.iter().all(Worker::ended) {
                    tracing::info!("all workers have finished");
                    return Ok(());
                },
                () = sleep_until(overdue) => bail!(
                    "workers did not end {DRAIN_OVERDUE:?} after the time for draining; ending with {} connections open",
                    self.connections()
                ),
                () = control.end() => bail!("control ended while draining"),
            }
        }
    }

    /// Ends the admin interface and control, in this order, and collects the workers that ended.
    async fn end(self, mut control: ControlRun<'_>, handle: &Handle) {
        if let Some(admin) = self.admin {
            admin.abort();
            // The socket file is gone when the task is.
            let _ = admin.await;
        }
        let shutdown = async {
            tokio::join!(handle.shutdown(), control.end());
        };
        if tokio::time::timeout(CONTROL_END, shutdown).await.is_err() {
            tracing::warn!("control did not end in {CONTROL_END:?}; ending without it");
        }
        for (index, worker) in self.workers.into_iter().enumerate() {
            if worker.ended() && worker.join().is_err() {
                tracing::error!(worker = index, "the worker panicked");
            }
        }
    }

    fn connections(&self) -> u64 {
        let workers = self.instance.workers.iter();
        workers.map(|worker| worker.counters.active.value()).sum()
    }
}

/// A reload by signal, as the service manager wants to hear of it.
async fn reload(manager: Manager, instance: Arc<Instance>, control: Handle) {
    manager.reloading();
    match control.reload().await {
        Ok(report) => {
            tracing::info!(
                generation = report.generation,
                sites = report.sites,
                certificates = report.certificates,
                staples_kept = report.staples_kept,
                "reloaded"
            );
        }
        Err(error) => {
            tracing::error!(%error, "reload refused; the configuration before it stays in force");
        }
    }
    announce(manager, instance, control).await;
}

/// Tells the service manager that clients are served, and how.
async fn announce(manager: Manager, instance: Arc<Instance>, control: Handle) {
    manager.ready(&in_one_line(&instance, &control).await);
}

/// Keeps the service manager's status line true: staples come, run out, and reloads are refused.
async fn keep_status(manager: Manager, instance: Arc<Instance>, control: Handle) {
    let mut due = interval(STATUS_TOLD);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        manager.status(&in_one_line(&instance, &control).await);
    }
}

async fn in_one_line(instance: &Instance, control: &Handle) -> String {
    let report = Report::of(instance, control.status().await);
    let sites = report.control.as_ref().map_or(0, |c| c.sites.len());
    let (stapled, wanted) = report.stapled_at(clock::now());
    let refused = report.control.and_then(|c| c.last_reload_error);
    let note = match refused {
        Some(_) => "; the last reload was refused, see the log",
        None => "",
    };
    format!(
        "serving {sites} sites with {} workers, {stapled} of {wanted} certificates stapled{note}",
        report.workers.len()
    )
}

/// Tells the watchdog that the process works: control answers and no worker has ended.
async fn keep_watchdog(manager: Manager, instance: Arc<Instance>, control: Handle) {
    let Some(period) = manager.watchdog() else {
        return;
    };
    let mut due = interval(period / 2);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let answers = control.status().await.is_some();
        if answers && instance.workers.iter().all(|worker| worker.is_alive()) {
            manager.alive();
        }
    }
}

/// How old the service manager's status line may be.
const STATUS_TOLD: Duration = Duration::from_secs(30);

/// How long a dead worker goes unnoticed.
const WORKERS_LOOKED_AT: Duration = Duration::from_millis(250);

/// How soon after the last connection the process ends.
const DRAIN_LOOKED_AT: Duration = Duration::from_millis(20);

/// How long after the drain time-out a worker may still be at it.
const DRAIN_OVERDUE: Duration = Duration::from_secs(10);

/// For control to end.
const CONTROL_END: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{self, WorkerSetup};
    use crate::limits::{Limits, Timeouts};
    use crate::observability::WorkerView;
    use crate::snapshot::{Publisher, Snapshot, Table, TicketKey, TicketKeys};

    #[test]
    fn a_worker_that_ends_by_itself_is_a_fault_and_known_to_be_dead() {
        let first = Snapshot {
            generation: 1,
            table: Arc::new(Table::new(1, Vec::new(), Vec::new(), Vec::new())),
            slots: Default::default(),
            tickets: Arc::new(TicketKeys {
                current: TicketKey {
                    name: [0; 16],
                    key: [0; 32].into(),
                },
                previous: None,
            }),
        };
        let (_publisher, subscribers) = Publisher::new(first, 1).expect("an eventfd");
        let view = WorkerView::new(None, 10, Arc::default());
        let subscriber = subscribers.into_iter().next().expect("one worker");
        let worker = data::start(WorkerSetup {
            index: 0,
            core: None,
            sockets: Vec::new(),
            subscriber,
            counters: Arc::clone(&view.counters),
            limits: Limits::default(),
            capacity: 10,
            timeouts: Timeouts::default(),
            landings: Vec::new(),
            desk: None,
        })
        .expect("io_uring is there");
        let served = Served {
            instance: Arc::new(Instance::new(vec![view], Vec::new(), Arc::default())),
            workers: vec![worker],
            admin: None,
            manager: Manager,
            drain: Duration::ZERO,
            steering: None,
        };
        served.no_worker_ended().expect("it runs");

        // Nobody told it to end, as far as the server knows.
        served.workers[0].drain();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let fault = loop {
            match served.no_worker_ended() {
                Err(fault) => break fault,
                Ok(()) => assert!(std::time::Instant::now() < deadline, "it did not end"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(fault.to_string().contains("worker 0"), "{fault}");
        assert!(!served.instance.workers[0].is_alive());
    }
}
