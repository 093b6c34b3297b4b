//! Carries a plan out: a thread for each core, each with its own runtime, schedule and histograms.
//! They meet before the first arrival and after the last, and show counters in between.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::CpuSet;
use rustix::time::ClockId;
use tokio::sync::Semaphore;
use tokio::task::LocalSet;

use crate::Failure;
use crate::failure::Stage;
use crate::pace::{Schedule, Timer};
use crate::plan::{Pace, Plan, Work};
use crate::record::{Live, Recorder};
use crate::visit::{BUFFER, Visit, Visitor};

/// What a run brought.
#[derive(Debug)]
pub struct Outcome {
    /// All threads' measurements.
    pub recorder: Recorder,
    /// Measured time: up to the last connection's end.
    pub took: Duration,
    /// Of each thread, what it had of its core.
    pub shares: Vec<Share>,
    /// Staples that came, wanted or not.
    pub staples: u64,
    /// Open loop: arrivals that had to wait for a free place.
    pub held: u64,
}

/// What a thread had of its core, as shares of the measured time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    /// It ran.
    pub cpu: f64,
    /// It could have run and had to wait.
    pub wait: f64,
}

/// Where a run stands; counts include the warm-up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Since the first arrival.
    pub elapsed: Duration,
    /// Connections begun.
    pub started: u64,
    /// Connections whose handshake is complete, finished or not.
    pub ready: u64,
    /// Finished.
    pub finished: u64,
    /// Failed.
    pub failed: u64,
}

/// Runs a plan to its end, or until `stop` is set. `progress` is called once a second.
///
/// It fails where the plan cannot be begun; what the server does wrong is counted.
pub fn run(plan: &Plan, stop: &AtomicBool, mut progress: impl FnMut(&Progress)) -> Result<Outcome> {
    if plan.names.is_empty() || plan.threads.is_empty() {
        bail!("a run needs a name and a thread at least");
    }
    let lives: Vec<Arc<Live>> = plan.threads.iter().map(|_| Arc::default()).collect();
    let gate = Arc::new(Gate {
        barrier: Barrier::new(plan.threads.len()),
        broken: AtomicBool::new(false),
    });
    let mut threads = Vec::new();
    for (index, live) in lives.iter().enumerate() {
        let (plan, live, gate) = (plan.clone(), Arc::clone(live), Arc::clone(&gate));
        let builder = std::thread::Builder::new().name(format!("load-{index}"));
        threads.push(builder.spawn(move || thread(plan, index, &live, &gate))?);
    }
    let started = Instant::now();
    let mut shown = started;
    while threads.iter().any(|thread| !thread.is_finished()) {
        std::thread::park_timeout(Duration::from_millis(20));
        if stop.load(Relaxed) {
            lives.iter().for_each(|live| live.stop.store(true, Relaxed));
        }
        if shown.elapsed() >= Duration::from_secs(1) {
            shown += Duration::from_secs(1);
            progress(&sum(&lives, started.elapsed()));
        }
    }
    let mut ended = Vec::new();
    for thread in threads {
        let outcome = thread.join();
        ended.push(outcome.map_err(|_| anyhow!("a thread of the generator panicked"))??);
    }
    Ok(merge(ended))
}

impl Outcome {
    /// Adds a later run of the same plan, as if this one had gone on.
    pub fn follow(&mut self, later: &Self) {
        self.recorder.follow(&later.recorder);
        self.took += later.took;
        self.staples += later.staples;
        self.held += later.held;
        for (mine, theirs) in self.shares.iter_mut().zip(&later.shares) {
            // The worst counts: these are there to raise doubts.
            mine.cpu = mine.cpu.max(theirs.cpu);
            mine.wait = mine.wait.max(theirs.wait);
        }
    }
}

fn sum(lives: &[Arc<Live>], elapsed: Duration) -> Progress {
    let mut progress = Progress {
        elapsed,
        ..Progress::default()
    };
    for live in lives {
        progress.started += live.started.load(Relaxed);
        progress.ready += live.ready.load(Relaxed);
        progress.finished += live.finished.load(Relaxed);
        progress.failed += live.failed.load(Relaxed);
    }
    progress
}

fn merge(ended: Vec<Ended>) -> Outcome {
    let mut ended = ended.into_iter();
    let first = ended.next().expect("a plan has a thread");
    let mut outcome = Outcome {
        recorder: first.recorder,
        took: first.took,
        shares: vec![first.share],
        staples: first.staples,
        held: first.held,
    };
    for other in ended {
        outcome.recorder.merge(&other.recorder);
        outcome.took = outcome.took.max(other.took);
        outcome.shares.push(other.share);
        outcome.staples += other.staples;
        outcome.held += other.held;
    }
    outcome
}

/// Where threads wait for each other, and learn that one of them cannot begin.
struct Gate {
    barrier: Barrier,
    broken: AtomicBool,
}

/// What one thread brought.
struct Ended {
    recorder: Recorder,
    took: Duration,
    share: Share,
    staples: u64,
    held: u64,
}

fn thread(plan: Plan, index: usize, live: &Arc<Live>, gate: &Gate) -> Result<Ended> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tasks = LocalSet::new();
    let prepared = tasks.block_on(&runtime, prepare(&plan, index));
    if prepared.is_err() {
        gate.broken.store(true, Relaxed);
    }
    gate.barrier.wait();
    let visitor = prepared?;
    if gate.broken.load(Relaxed) {
        bail!("another thread could not begin");
    }
    tasks.block_on(&runtime, drive(visitor, index, Arc::clone(live)))
}

async fn prepare(plan: &Plan, index: usize) -> Result<Visitor> {
    if let Some(core) = plan.threads[index] {
        let mut set = CpuSet::new();
        set.set(core);
        rustix::thread::sched_setaffinity(None, &set)
            .with_context(|| format!("there is no core {core} for a thread"))?;
    }
    let visitor = Visitor::new(plan)?;
    if plan.resume {
        let most = match plan.pace {
            Pace::Closed { clients } => clients,
            // What a second brings is on its way at most, or the run is lost anyway.
            Pace::Open { rate, most, .. } => most.min(rate.ceil() as u32),
        };
        let stocked = visitor.stock_up(share(most, index, plan.threads.len()) as usize);
        tokio::time::timeout(STOCKING, stocked)
            .await
            .map_err(|_| Failure::Deadline(Stage::Handshake))
            .and_then(|stocked| stocked)
            .context("no sessions to resume: the full handshakes that come first failed")?;
    }
    Ok(visitor)
}

/// Part number `index` of `all` in `parts` parts that differ by one at most.
fn share(all: u32, index: usize, parts: usize) -> u32 {
    let (parts, index) = (parts as u32, index as u32);
    all / parts + u32::from(index < all % parts)
}

/// One thread at work.
struct Drive {
    visitor: Visitor,
    live: Arc<Live>,
    recorder: RefCell<Recorder>,
    /// Connections that may still begin.
    left: Cell<u64>,
    buffers: RefCell<Vec<Vec<u8>>>,
}

async fn drive(visitor: Visitor, index: usize, live: Arc<Live>) -> Result<Ended> {
    let plan = visitor.plan.clone();
    let threads = plan.threads.len();
    let start = Instant::now();
    let begin = start + plan.warm_up;
    let end = begin + plan.duration;
    let left = plan.count.map_or(u64::MAX, |count| {
        count / threads as u64 + u64::from((index as u64) < count % threads as u64)
    });
    let drive = Rc::new(Drive {
        visitor,
        live,
        recorder: RefCell::new(Recorder::new(begin)),
        left: Cell::new(left),
        buffers: RefCell::default(),
    });
    let at_begin = Rc::new(Cell::new(spent()));
    let clock = tokio::task::spawn_local({
        let (drive, at_begin) = (Rc::clone(&drive), Rc::clone(&at_begin));
        async move {
            tokio::time::sleep_until(begin.into()).await;
            at_begin.set(spent());
            tokio::time::sleep_until(end.into()).await;
            drive.live.stop.store(true, Relaxed);
        }
    });
    let held = match plan.pace {
        Pace::Closed { clients } => {
            closed(&drive, share(clients, index, threads)).await?;
            0
        }
        Pace::Open {
            rate,
            arrivals,
            most,
        } => {
            let schedule = Schedule::new(start, rate, arrivals, index, threads);
            open(&drive, schedule, share(most, index, threads), end).await?
        }
    };
    let took = begin.elapsed();
    let ((cpu, waited), (cpu_before, waited_before)) = (spent(), at_begin.get());
    let share = |spent: Duration| spent.as_secs_f64() / took.as_secs_f64().max(1e-9);
    clock.abort();
    let recorder = drive.recorder.borrow().clone();
    Ok(Ended {
        recorder,
        took,
        share: Share {
            cpu: share(cpu.saturating_sub(cpu_before)),
            wait: share(waited.saturating_sub(waited_before)),
        },
        staples: drive.visitor.judge.staples(),
        held,
    })
}

/// So many clients, each over and over.
async fn closed(drive: &Rc<Drive>, clients: u32) -> Result<()> {
    let lanes: Vec<_> = (0..clients)
        .map(|_| {
            let drive = Rc::clone(drive);
            tokio::task::spawn_local(async move {
                let idle = drive.visitor.plan.work == Work::Idle;
                while !drive.live.is_over() && drive.take_one() {
                    let good = drive.one(Instant::now()).await;
                    if idle {
                        break;
                    }
                    if !good {
                        // A server that refuses at once is not to be asked as fast as a core can.
                        tokio::time::sleep(AFTER_FAILURE).await;
                    }
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.await?;
    }
    Ok(())
}

/// Arrivals when they are due. Says how many had to wait for a place.
async fn open(drive: &Rc<Drive>, schedule: Schedule, most: u32, end: Instant) -> Result<u64> {
    let timer = Timer::new()?;
    let most = most.max(1);
    let places = Arc::new(Semaphore::new(most as usize));
    // Who is due before the end but finds no place until then is counted as failed.
    let given_up = end + drive.visitor.plan.deadline;
    let mut held = 0;
    for due in schedule {
        if due >= end || (drive.live.is_over() && Instant::now() < end) || !drive.take_one() {
            break;
        }
        timer.until(due).await?;
        let place = match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                held += 1;
                let place = Arc::clone(&places).acquire_owned();
                match tokio::time::timeout_at(given_up.into(), place).await {
                    Ok(place) => place?,
                    Err(_) => {
                        let mut recorder = drive.recorder.borrow_mut();
                        recorder.fail(&Failure::NeverStarted, 1);
                        continue;
                    }
                }
            }
        };
        let drive = Rc::clone(drive);
        tokio::task::spawn_local(async move {
            drive.one(due).await;
            drop(place);
        });
    }
    // All places are free when the last connection has ended.
    let _all = places.acquire_many(most).await?;
    Ok(held)
}

impl Drive {
    fn take_one(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }

    /// One connection, entered whatever becomes of it. Says whether it was good.
    async fn one(&self, due: Instant) -> bool {
        let plan = &self.visitor.plan;
        let mut buffer = self.buffers.borrow_mut().pop().unwrap_or_default();
        buffer.resize(buffer_size(&plan.work), 0);
        let mut visit = Visit::default();
        let most = match plan.work {
            Work::Idle => plan.deadline + plan.warm_up + plan.duration,
            _ => plan.deadline,
        };
        self.live.started.fetch_add(1, Relaxed);
        let visiting = self.visitor.visit(due, &mut visit, &mut buffer, &self.live);
        let outcome = match tokio::time::timeout(most, visiting).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::Deadline(visit.stage.unwrap_or(Stage::Connect))),
        };
        let good = outcome.is_ok();
        let counter = if good {
            &self.live.finished
        } else {
            &self.live.failed
        };
        counter.fetch_add(1, Relaxed);
        self.recorder.borrow_mut().enter(due, &visit, outcome);
        self.buffers.borrow_mut().push(buffer);
        good
    }
}

/// Bulk is read in large pieces; a thousand idle connections should not cost the client memory.
fn buffer_size(work: &Work) -> usize {
    match work {
        Work::Idle => 2048,
        Work::Handshake | Work::Slow { .. } => BUFFER,
        Work::Request { .. } => 4 * BUFFER,
    }
}

/// Time that this thread ran, and time that it waited for a core (`schedstat`, nanoseconds).
fn spent() -> (Duration, Duration) {
    let now = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    let ran = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32);
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited = text.split(' ').nth(1).and_then(|nanos| nanos.parse().ok());
    (ran, Duration::from_nanos(waited.unwrap_or(0)))
}

/// For the full handshakes that bring tickets.
const STOCKING: Duration = Duration::from_secs(60);

/// Pause of a client of the closed loop after a failure.
const AFTER_FAILURE: Duration = Duration::from_millis(10);
