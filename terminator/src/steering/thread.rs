//! The steering thread: takes every snapshot as a worker does, publishes its names to the kernel,
//! keeps a plug in every landing listener, tells the kernel who is overloaded, and leaves what it
//! sees in the [`View`]. It has no privileges, and nothing waits for it.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fs, io};

use clinch_steering_abi::Placement;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::view::{Mode, Row, View, word};
use super::{Steering, place};
use crate::config;
use crate::limits::{STEERING_BOUND, STEERING_BOUND_MIN, STEERING_ROWS};
use crate::snapshot::{Snapshot, Subscriber, Table};
use crate::sys::landing::{PLUGS, Plug};

/// What the thread asks of the workers' counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Connections that each worker holds.
    pub active: Vec<u64>,
    /// Connections taken from landing listeners, which says that a plug was missing.
    pub landed: u64,
}

/// The running thread.
pub struct Running {
    thread: JoinHandle<()>,
    stop: OwnedFd,
}

impl Steering {
    /// Starts the thread. It steers once the first table is in the kernel and the plugs are in.
    pub fn start(
        self,
        subscriber: Subscriber,
        view: Arc<View>,
        observe: Box<dyn Fn() -> Observed + Send>,
    ) -> io::Result<Running> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        let told = stop.try_clone()?;
        let steerer = Steerer {
            plugs: self.addresses.iter().map(|_| Plugged::default()).collect(),
            steering: self,
            view,
            observe,
            snapshot: None,
            names: HashMap::new(),
            left_out: 0,
            landed: 0,
            plugs_put: 0,
            last: None,
        };
        let thread = std::thread::Builder::new()
            .name("steering".to_owned())
            .spawn(move || steerer.run(&subscriber, &told))?;
        Ok(Running { thread, stop })
    }
}

impl Running {
    /// Switches steering off, so that sockets may close, and ends the thread.
    pub fn stop(self) {
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if self.thread.join().is_err() {
            tracing::error!("the steering thread panicked");
        }
    }
}

struct Steerer {
    steering: Steering,
    view: Arc<View>,
    observe: Box<dyn Fn() -> Observed + Send>,
    snapshot: Option<Arc<Snapshot>>,
    /// What is in the kernel's table.
    names: HashMap<u64, Placement>,
    left_out: u64,
    plugs: Vec<Plugged>,
    landed: u64,
    plugs_put: u64,
    /// The mode and the reason last told.
    last: Option<(Mode, Option<String>)>,
}

/// The plugs of one landing listener, the oldest first. Some have their requests in the queue; those
/// for which it was full repeat their SYNs and get in when there is room.
#[derive(Default)]
struct Plugged {
    plugs: VecDeque<(Plug, Instant)>,
    /// When one was added because a connection came through.
    reinforced: Option<Instant>,
}

impl Plugged {
    /// Drops what no longer holds, and says how many are to be put in: as many as are missing, or one
    /// where a connection came through or one is about to run out.
    ///
    /// That one came through need not mean that a plug is missing. A plug that is given up leaves room
    /// for a connection until another is in; hence one at a time.
    fn wanted(&mut self, landed: bool) -> usize {
        self.plugs.retain(|(plug, _)| plug.holds());
        if self.plugs.len() < PLUGS {
            return PLUGS - self.plugs.len();
        }
        let pause_is_over = self.reinforced.is_none_or(|at| at.elapsed() >= PAUSE);
        if landed && pause_is_over {
            self.reinforced = Some(Instant::now());
            return 1;
        }
        usize::from(self.runs_out())
    }

    /// The oldest is to be replaced, and not in one go with the others.
    fn runs_out(&self) -> bool {
        let age = |at: Option<&(Plug, Instant)>| at.map(|(_, put)| put.elapsed());
        age(self.plugs.front()) >= Some(RENEWAL)
            && age(self.plugs.back()) >= Some(RENEWAL / PLUGS as u32)
    }

    fn add(&mut self, plug: Plug) {
        if self.runs_out() || self.plugs.len() >= 2 * PLUGS {
            self.plugs.pop_front();
        }
        self.plugs.push_back((plug, Instant::now()));
    }
}

impl Steerer {
    fn run(mut self, subscriber: &Subscriber, told: &OwnedFd) {
        loop {
            if let Some(snapshot) = subscriber.take() {
                let generation = snapshot.generation;
                self.adopt(snapshot);
                subscriber.adopted(generation);
            }
            self.tick();
            let mut events = [
                PollFd::from_borrowed_fd(subscriber.wake_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(told.as_fd(), PollFlags::IN),
            ];
            // Interrupted or not, the next turn looks at everything.
            let _ = poll(&mut events, Some(&TICK));
            let ready = |event: &PollFd<'_>| event.revents().contains(PollFlags::IN);
            if ready(&events[1]) {
                return self.switch_off();
            }
            if ready(&events[0]) {
                let _ = rustix::io::read(subscriber.wake_fd(), &mut [0u8; 8]);
            }
        }
    }

    /// Brings the kernel's table in line with a new snapshot.
    ///
    /// Names are added and moved first and taken out last. In between a name may lead to its old
    /// core or its new one; both serve it.
    fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        let known = self.snapshot.as_ref().map(|before| before.table.epoch);
        if known == Some(snapshot.table.epoch) {
            self.snapshot = Some(snapshot);
            return;
        }
        let wanted = names(&snapshot.table, self.steering.workers);
        let mut left_out = 0;
        let capacity = self.steering.capacity as usize;
        for (&name, &placement) in &wanted {
            if self.names.get(&name) == Some(&placement) {
                continue;
            }
            let room = self.names.contains_key(&name) || self.names.len() < capacity;
            if room && self.steering.kernel.set_name(name, placement) {
                self.names.insert(name, placement);
            } else {
                left_out += 1;
            }
        }
        let kernel = &mut self.steering.kernel;
        self.names.retain(|name, _| {
            let stays = wanted.contains_key(name);
            if !stays {
                kernel.remove_name(*name);
            }
            stays
        });
        if left_out > 0 {
            tracing::warn!(
                left_out,
                capacity,
                "the kernel's table of names is full: these names are spread by hash until the next start, which makes the table large enough"
            );
        }
        self.left_out = left_out;
        let table = rows(&snapshot.table, self.steering.workers);
        self.view.update(|report| report.table = table);
        self.snapshot = Some(snapshot);
    }

    fn tick(&mut self) {
        let observed = (self.observe)();
        self.weigh(&observed.active);
        let landed = observed.landed > std::mem::replace(&mut self.landed, observed.landed);
        let outcome = self.decide(landed);
        let (mode, reason) = match outcome {
            Ok(None) => (Mode::Kernel, None),
            Ok(Some(why)) => (self.without_the_kernel(), Some(why)),
            Err(error) => (self.without_the_kernel(), Some(error.to_string())),
        };
        self.tell(mode, reason);
    }

    /// Steers where it can and is wanted; else says why not.
    fn decide(&mut self, landed: bool) -> Result<Option<String>, super::SteeringError> {
        let Some(snapshot) = self.snapshot.clone() else {
            return Ok(Some("no table yet".to_owned()));
        };
        let wish = snapshot.table.steering.mode;
        let obstacle = match wish {
            config::SteeringMode::Kernel if !cookies() => Some(
                "net.ipv4.tcp_syncookies is 0; set it to 1, its default, for steering in the kernel",
            ),
            config::SteeringMode::Kernel => None,
            _ => Some("switched off in the configuration"),
        };
        let refuse = snapshot.table.steering.refuse_unknown && self.left_out == 0;
        let mut why = obstacle.map(str::to_owned);
        for at in 0..self.steering.addresses.len() {
            let listener = self.steering.addresses[at].listener;
            let has_default = snapshot.table.listeners[listener].default_site.is_some();
            let refuse = refuse && !has_default;
            // Steering comes before the plug, whose SYN must find its way to the landing listener;
            // what comes in between is taken from there by a worker.
            self.steering.switch(at, obstacle.is_none(), refuse)?;
            if obstacle.is_none()
                && let Err(error) = self.keep_plugged(at, landed)
            {
                let address = self.steering.addresses[at].address;
                why = Some(format!(
                    "{address}: the landing listener cannot be plugged: {error}"
                ));
                self.steering.switch(at, false, false)?;
            }
        }
        Ok(why)
    }

    /// Puts in the plugs that are missing.
    fn keep_plugged(&mut self, at: usize, landed: bool) -> io::Result<()> {
        let address = self.steering.addresses[at].address;
        for _ in 0..self.plugs[at].wanted(landed) {
            let kernel = &mut self.steering.kernel;
            let filter = |client: BorrowedFd<'_>| kernel.filter(client).map_err(io::Error::other);
            let fresh = Plug::put(address, filter)?;
            self.plugs_put += 1;
            self.plugs[at].add(fresh);
        }
        Ok(())
    }

    /// Bounded loads: a worker with more than its share of the connections gets no new ones by name
    /// as long as the name has another choice.
    fn weigh(&mut self, active: &[u64]) {
        let mean = active.iter().sum::<u64>() as f64 / active.len().max(1) as f64;
        let bound = (mean * STEERING_BOUND).max(STEERING_BOUND_MIN as f64);
        for (worker, &held) in active.iter().enumerate() {
            self.steering
                .kernel
                .set_overloaded(worker, held as f64 > bound);
        }
    }

    fn without_the_kernel(&self) -> Mode {
        let table = self.snapshot.as_ref().map(|snapshot| &snapshot.table);
        match table.is_some_and(|table| table.steering.hands_over()) {
            true => Mode::HandOver,
            false => Mode::Reuseport,
        }
    }

    fn tell(&mut self, mode: Mode, reason: Option<String>) {
        let events = self.steering.kernel.counts();
        let events = events
            .map(|(event, n)| (word(event).to_owned(), n))
            .collect();
        let (names, left_out, plugs) = (self.names.len() as u64, self.left_out, self.plugs_put);
        let now = (mode, reason.clone());
        self.view.update(|report| {
            report.mode = mode;
            report.reason = reason;
            report.names = names;
            report.names_left_out = left_out;
            report.plugs = plugs;
            report.events = events;
        });
        if self.last.as_ref() != Some(&now) {
            match &now.1 {
                None => tracing::info!(
                    mode = mode.word(),
                    names,
                    "steering by server name in the kernel"
                ),
                Some(reason) => {
                    tracing::warn!(mode = mode.word(), reason, "the kernel does not steer");
                }
            }
            self.last = Some(now);
        }
    }

    fn switch_off(&mut self) {
        for at in 0..self.steering.addresses.len() {
            if let Err(error) = self.steering.switch(at, false, false) {
                tracing::warn!(%error, "steering cannot be switched off");
            }
        }
    }
}

/// Every name of a table with its placement.
fn names(table: &Table, workers: usize) -> HashMap<u64, Placement> {
    let mut wanted = HashMap::new();
    for (name, wildcard, site) in table.all_names() {
        let site = &table.sites[site as usize];
        let placement = place(&site.name, &site.confinement, workers);
        let key = match wildcard {
            true => clinch_hello::key_of(&format!("*.{name}")),
            false => clinch_hello::key_of(name),
        };
        wanted.insert(key, placement);
    }
    wanted
}

fn rows(table: &Table, workers: usize) -> Vec<Row> {
    let sites = table.sites.iter().take(STEERING_ROWS);
    sites
        .map(|site| {
            let placement = place(&site.name, &site.confinement, workers);
            Row {
                site: site.name.clone(),
                workers: placement.workers[..usize::from(placement.count)].to_vec(),
                share: placement.share,
            }
        })
        .collect()
}

/// Whether the kernel answers SYNs with cookies where a queue is full.
fn cookies() -> bool {
    let setting = fs::read_to_string("/proc/sys/net/ipv4/tcp_syncookies");
    setting.is_ok_and(|text| matches!(text.trim(), "1" | "2"))
}

/// How often everything is looked at.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 250_000_000,
};

/// Between plugs that are added because connections come through.
const PAUSE: Duration = Duration::from_secs(5);

/// How old a plug may get. It would last for some four hours.
const RENEWAL: Duration = Duration::from_secs(3600);
