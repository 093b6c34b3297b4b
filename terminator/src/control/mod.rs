//! Control: loads, fetches, verifies, caches, refreshes, reloads and publishes. All I/O and time of the slow path.
//!
//! Control runs on the main thread in a tokio current-thread runtime and owns the snapshot's
//! publisher. It is one value that handles one event after the other: an answer, a command, a
//! changed file, a second gone by. Its start is taken in steps so that `run` can bind sockets and
//! drop privileges in between:
//!
//! 1. [`Control::prepare`]: certificates, egress process, cached staples, first snapshot.
//! 2. sockets are bound and privileges dropped (not here).
//! 3. [`Control::first_fetch`]: asks responders, with a bounded wait.
//! 4. workers start to listen (not here).
//! 5. [`Control::run`]: refresh, reload, rotate, until [`Handle::shutdown`].

mod answers;
mod book;
mod cache;
mod clocks;
mod detours;
pub mod explain;
mod fetch;
mod files;
mod freshness;
mod gather;
mod handle;
pub mod inquiry;
mod keeper;
mod kept_lists;
mod list_fetch;
pub mod lists;
pub mod load;
mod queue;
mod reload;
mod resolve;
#[doc(hidden)]
pub mod scale;
mod schedule;
pub mod status;
pub mod tally;
mod tickets;
mod timekeeping;
pub mod trace;
mod watch;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use crate::clock;
use crate::config::Config;
use crate::egress;
use crate::firewall::{self, Gate};
use crate::limits::TICKET_KEY_PERIOD;
use crate::observability::counters::FetchCounters;
use crate::snapshot::{CertificateIndex, Publisher, Slot, SlotState, Snapshot, Subscriber};
use crate::sys::privileges;

pub use handle::Handle;
pub use load::{LoadError, Loaded};
pub use reload::{ReloadError, ReloadReport};
pub use status::Status;

use book::Book;
use cache::Cache;
use detours::Detours;
use fetch::Answer;
use handle::Command;
use inquiry::Inquiries;
use keeper::{Keeper, Report, Work};
use list_fetch::ListAnswer;
use lists::Lists;
use reload::{Read, Reloads};
use tally::Tally;
use timekeeping::{Ends, Timekeeping};
use watch::Watch;

/// What control starts from.
pub struct Setup {
    /// The configuration file, read again at a reload.
    pub config_path: PathBuf,
    /// What it said.
    pub config: Config,
    /// Number of workers, each of which gets a subscriber.
    pub workers: usize,
    /// The program that is started as `PROGRAM egress`: [`egress::SELF`], this one, except in tests.
    pub egress_program: PathBuf,
    /// What control counts.
    pub counters: Arc<FetchCounters>,
}

/// The slow path: one value, driven by the main thread.
pub struct Control {
    config_path: PathBuf,
    config: Config,
    counters: Arc<FetchCounters>,
    publisher: Publisher,
    tickets_made: Instant,
    book: Book,
    client: egress::Client,
    egress_workers: tokio::sync::watch::Receiver<u64>,
    questions: JoinSet<Answer>,
    /// Which certificate each question is about.
    asked: HashMap<Id, CertificateIndex>,
    keeper: Option<Keeper>,
    watch: Watch,
    reloads: Reloads,
    begun: bool,
    handle: Handle,
    commands: mpsc::Receiver<Command>,
    detours: Detours,
    inquiries: Inquiries,
    lists: Lists,
    tally: Tally,
    timekeeping: Timekeeping,
    clock_suspected: bool,
    ends: Ends,
    ending: bool,
}

/// Why control cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificates, keys or backends cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The egress process cannot be started.
    #[error(transparent)]
    Egress(#[from] egress::LaunchError),
    /// The kernel refused an eventfd or similar.
    #[error("cannot set up the snapshot")]
    Kernel(#[from] std::io::Error),
}

/// How far the first fetch came within its wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstFetch {
    /// Certificates for which a staple is wanted.
    pub wanted: usize,
    /// Of these, the ones that have one (from the cache or fetched).
    pub stapled: usize,
}

/// What wakes control.
enum Event {
    Command(Command),
    Answer(Result<(Id, Answer), JoinError>),
    List(Result<(Id, ListAnswer), JoinError>),
    Gathered(Box<Read>),
    FilesChanged,
    EgressWorker,
    Cache(Report),
    Tick,
}

impl Control {
    /// Loads certificates and keys, starts the egress process, takes staples from the cache and
    /// builds the first snapshot. Call it within a tokio runtime and with the privileges to read
    /// keys and to change users; it blocks. The subscribers are for the workers, one each.
    pub async fn prepare(setup: Setup) -> Result<(Self, Vec<Subscriber>), StartError> {
        let cache = setup.config.cache.as_deref().map(Cache::new);
        let gathered = gather::gather_from(setup.config.clone(), 1, cache.as_ref(), None)?;
        for warning in &gathered.loaded.warnings {
            tracing::warn!(event = "configuration_warning", "{warning}");
        }
        let user = setup.config.egress.user.as_deref();
        let user = user.or(setup.config.user.as_deref());
        let client = egress::Client::launch(egress::Launch {
            program: &setup.egress_program,
            user,
            settings: gathered.loaded.egress,
            counters: Arc::clone(&setup.counters),
        })?;
        if let Some(socket) = setup.config.firewall_socket() {
            let gate = Gate::new(socket.to_owned());
            tokio::spawn(firewall::attend(gate, client.gate().await));
        }
        if setup.config.user.is_some() {
            // Nothing else is executed with privileges, and a thread keeps the set it is born with.
            privileges::empty_bounding_set();
        }

        let Loaded {
            table, subjects, ..
        } = gathered.loaded;
        let nothing = HashMap::new();
        let counters = &setup.counters;
        let turns = setup.config.egress.turns;
        let mut lists = Lists::open(&table, &subjects, turns, None);
        lists.remember(&gathered.cached);
        let (book, states) =
            Book::open(&table, subjects, gathered.cached, &nothing, turns, counters);
        let first = Snapshot {
            generation: 1,
            table: Arc::new(table),
            slots: slots(1, states),
            tickets: tickets::first(),
        };
        let (publisher, subscribers) = Publisher::new(first, setup.workers)?;
        let (handle, commands) = Handle::new();
        let control = Self {
            config_path: setup.config_path,
            config: setup.config,
            counters: setup.counters,
            publisher,
            tickets_made: Instant::now(),
            book,
            egress_workers: client.workers(),
            client,
            questions: JoinSet::new(),
            asked: HashMap::new(),
            keeper: cache.map(Keeper::new),
            watch: Watch::new(),
            begun: false,
            reloads: Reloads::default(),
            handle,
            commands,
            detours: Detours::default(),
            inquiries: Inquiries::default(),
            lists,
            tally: Tally::default(),
            timekeeping: Timekeeping::new(clock::now(), Instant::now()),
            clock_suspected: false,
            ends: Ends::default(),
            ending: false,
        };
        Ok((control, subscribers))
    }

    /// Asks responders for what the cache did not have; returns when all answered, or after `wait`.
    /// What is still under way then goes on in [`Control::run`].
    pub async fn first_fetch(&mut self, wait: Duration) -> FirstFetch {
        self.begin();
        let deadline = Instant::now() + wait;
        while !self.book.unsettled.is_empty() && !self.ending {
            tokio::select! {
                () = self.turn() => {}
                () = sleep_until(deadline) => break,
            }
        }
        let now = clock::now();
        let slots = &self.publisher.current().slots;
        let wanted = self.book.subjects.iter().filter(|s| s.plan.is_ok()).count();
        let stapled = slots.iter().filter(|slot| holds(slot, now)).count();
        FirstFetch { wanted, stapled }
    }

    /// A way to talk to this value from other tasks.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Works until [`Handle::shutdown`].
    pub async fn run(mut self) {
        self.begin();
        while !self.ending {
            self.turn().await;
        }
        tracing::info!(event = "control_ending", "shutting down: no more refreshes");
        if let Some(keeper) = self.keeper.take() {
            keeper.finish(&self.counters).await;
        }
    }

    /// Starts what needs threads. A thread keeps the capabilities it is born with, so this is not
    /// done before privileges are dropped.
    fn begin(&mut self) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        if let Some(keeper) = &mut self.keeper {
            keeper.start();
        }
        if let Err(error) = self.watch.start() {
            tracing::warn!(
                event = "watch_failed",
                "changed files are not noticed ({error}); use `clinch reload` or SIGHUP"
            );
        }
        for warning in self.tend() {
            tracing::warn!(event = "watch_failed", "{warning}");
        }
        tracing::info!(
            event = "stapling_started",
            certificates = self.book.subjects.len(),
            crls = self.lists.len(),
            skipped = self.counters.skipped.value(),
            from_cache = self.counters.from_cache.value(),
            "stapling task started"
        );
    }

    /// Waits for one event and handles it. May be dropped while it waits; handling does not wait.
    async fn turn(&mut self) {
        self.ask_what_is_due();
        self.look_at_lists();
        let pause = self.pause();
        let event = tokio::select! {
            Some(command) = self.commands.recv() => Event::Command(command),
            Some(answer) = self.questions.join_next_with_id() => Event::Answer(answer),
            Some(answer) = self.lists.questions.join_next_with_id() => Event::List(answer),
            gathered = self.reloads.gathered() => Event::Gathered(Box::new(gathered)),
            () = self.watch.settled() => Event::FilesChanged,
            Ok(()) = self.egress_workers.changed() => Event::EgressWorker,
            report = cache_report(&mut self.keeper) => Event::Cache(report),
            () = sleep(pause) => Event::Tick,
        };
        match event {
            Event::Command(Command::Status(answer)) => {
                // Whoever asked may have gone.
                let _ = answer.send(self.status());
            }
            Event::Command(Command::Fetch(name, answer)) => {
                let _ = answer.send(self.fetch_now(&name));
            }
            Event::Command(Command::Explain(name, answer)) => {
                let _ = answer.send(self.explain(&name));
            }
            Event::Command(Command::Reload(reply)) => self.start_reload(Some(reply)),
            Event::Command(Command::Shutdown) => self.ending = true,
            Event::Answer(answer) => self.take_answers(answer),
            Event::List(answer) => self.take_list(answer),
            Event::Gathered(gathered) => self.finish_reload(*gathered),
            Event::FilesChanged => {
                tracing::info!(
                    event = "files_changed",
                    "configuration, certificate or key changed on disk"
                );
                self.start_reload(None);
            }
            Event::EgressWorker => self.note_egress_worker(),
            Event::Cache(report) => report.tell(&self.counters),
            Event::Tick => {}
        }
        self.publisher.prune();
        self.rotate_tickets();
        self.mind_the_clock();
    }

    /// At most a second: the wall clock may be set, and old snapshots are to be dropped.
    fn pause(&self) -> Duration {
        let next = [self.book.queue.next_due(), self.lists.queue.next_due()];
        let next = next.into_iter().flatten().min();
        let until = next.and_then(|next| next.duration_since(clock::now()).ok());
        until.map_or(TICK, |until| until.clamp(SHORTEST_TICK, TICK))
    }

    fn note_egress_worker(&mut self) {
        self.counters.egress_starts.one();
        let started = *self.egress_workers.borrow_and_update();
        if started == 1 {
            tracing::info!(event = "egress_started", "the egress process is there");
        } else {
            tracing::warn!(
                event = "egress_restarted",
                starts = started,
                "the egress process had died, or the system's resolver was changed, and is there again"
            );
        }
    }

    fn rotate_tickets(&mut self) {
        if self.tickets_made.elapsed() < TICKET_KEY_PERIOD {
            return;
        }
        self.tickets_made = Instant::now();
        self.publisher
            .publish(|snapshot| snapshot.tickets = tickets::rotated(&snapshot.tickets));
        tracing::debug!(event = "ticket_keys_rotated", "session ticket keys rotated");
    }

    /// Tells the keeper which certificates matter, and watches their files.
    fn tend(&mut self) -> Vec<String> {
        let snapshot = self.publisher.current();
        let certificates = snapshot.table.certificates.iter();
        let served = certificates.map(|c| c.identity.leaf.fingerprint).collect();
        self.assign(Work::Prune(served, clock::now()));
        let files = self.book.subjects.iter().flat_map(load::Subject::all_files);
        let config = std::iter::once(self.config_path.clone());
        self.watch.follow(files.chain(config))
    }

    /// Hands work to the keeper, if there is a cache.
    fn assign(&self, work: Work) {
        if self
            .keeper
            .as_ref()
            .is_some_and(|keeper| !keeper.assign(work))
        {
            self.counters.cache_write_failures.one();
            tracing::warn!(
                event = "cache_write_failed",
                "the disk of the staple cache does not keep up; a staple was not kept"
            );
        }
    }
}

async fn cache_report(keeper: &mut Option<Keeper>) -> Report {
    match keeper {
        Some(keeper) => keeper.report().await,
        None => std::future::pending().await,
    }
}

fn slots(since: u64, states: Vec<SlotState>) -> imbl::Vector<Slot> {
    let slot = |state| Slot { since, state };
    states.into_iter().map(slot).collect()
}

/// True where a slot has a staple that may be sent.
fn holds(slot: &Slot, at: SystemTime) -> bool {
    matches!(&slot.state, SlotState::Stapled(staple) if at < staple.not_after())
}

const TICK: Duration = Duration::from_secs(1);

const SHORTEST_TICK: Duration = Duration::from_millis(5);
