//! The machine while it runs: PID 1's loop, and the proof that what is on trial serves.
//!
//! The loop starts clinch again when it ends, reaps orphans, feeds the watchdog and takes the machine
//! down when somebody says so. Beside it the proof is made, once; what was on trial is then kept, or
//! undone by a restart.

use std::fs;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use crate::generations::Generations;
use crate::machine::Machine;
use crate::network::Network;
use crate::power::{self, Down, Heard, Watchdog};
use crate::run::Children;
use crate::slots::{self, Slot};
use crate::supervise::{self, BackOff, Clinch, Served};
use crate::{commands, health, randomness, say, screen, volumes};

/// Everything that outlives the boot.
pub struct Machinery {
    /// Processes that are waited for.
    pub children: Children,
    /// The server.
    pub clinch: Clinch,
    /// Configurations.
    pub generations: Generations,
    /// The configuration in use.
    pub machine: Machine,
    /// What PID 1 knows of clinch.toml.
    pub served: Served,
    /// Version of the image.
    pub version: String,
    /// The slot that was booted.
    pub slot: Option<Slot>,
    /// A configuration that is tried and not yet in force.
    pub trial: Option<u64>,
    /// Digest of the volume that brought it.
    pub volume: Option<String>,
    /// Whether a volume was there at the start that brought no configuration.
    pub vain_volume: bool,
}

/// Runs the machine. Does not return.
pub fn live(
    machinery: Machinery,
    facts: screen::Facts,
    network: Network,
    watchdog: &Watchdog,
    tell: &mpsc::Sender<Heard>,
    heard: &mpsc::Receiver<Heard>,
) -> ! {
    let (children, clinch) = (machinery.children.clone(), machinery.clinch.clone());
    let mut volume = machinery.vain_volume;
    screen::start(facts, network, clinch.clone(), children.clone());
    let machinery = Arc::new(Mutex::new(machinery));
    commands::listen(&machinery, tell);
    start_proof(&machinery, tell);

    let (ended, ends) = mpsc::channel::<ExitStatus>();
    let mut back_off = BackOff::default();
    let mut started = Instant::now();
    let mut start_at = Some(Instant::now());
    let configured = Path::new(supervise::CONFIG).join("clinch.toml").exists();
    loop {
        watchdog.beat();
        if !configured {
            let there = volumes::labelled(volumes::CONFIG).is_some();
            if there && !volume {
                say!(
                    "a volume labelled {} came: the machine starts again with it",
                    volumes::CONFIG
                );
                let _ = tell.send(Heard::Down(Down::Restart));
            } else if volume && !there {
                say!("the volume labelled {} is gone", volumes::CONFIG);
            }
            volume = there;
        }
        if configured && start_at.is_some_and(|at| at <= Instant::now()) {
            start_at = None;
            started = Instant::now();
            if let Err(error) = clinch.start(ended.clone()) {
                say!("clinch cannot be started: {error}");
                start_at = Some(Instant::now() + back_off.after(Duration::ZERO));
            }
        }
        if let Ok(status) = ends.try_recv() {
            let wait = back_off.after(started.elapsed());
            say!("clinch ended ({status}) and is started again in {wait:?}");
            start_at = Some(Instant::now() + wait);
        }
        match heard.recv_timeout(BEAT) {
            Ok(Heard::Child) => children.reap_orphans(),
            Ok(Heard::Down(down)) => {
                say!("going down: clinch drains");
                clinch.drain(DRAIN);
                randomness::save();
                power::go(down);
            }
            Err(_) => {}
        }
    }
}

/// Proves in the background that the machine serves; then blesses the slot and keeps the
/// configuration. A system that is on trial and cannot prove it goes down, and its attempt counts.
fn start_proof(machinery: &Arc<Mutex<Machinery>>, tell: &mpsc::Sender<Heard>) {
    let (machinery, tell) = (Arc::clone(machinery), tell.clone());
    std::thread::spawn(move || {
        let (children, clinch, machine, served) = {
            let it = lock(&machinery);
            (
                it.children.clone(),
                it.clinch.clone(),
                it.machine.clone(),
                it.served.clone(),
            )
        };
        let proof = health::prove(&children, &clinch, &machine, &served);
        let mut it = lock(&machinery);
        match proof {
            Ok(()) => {
                say!(
                    "proved: a handshake with a valid staple, {} ms after the kernel started",
                    uptime_ms()
                );
                it.settle();
            }
            Err(reason) => {
                say!(
                    "no handshake with a valid staple within {:?}: {reason}",
                    machine.health.within
                );
                let slot_on_trial = it.slot.as_ref().is_some_and(|slot| slot.tries.is_some());
                if let Some(trial) = it.trial.take() {
                    if let Some(digest) = it.generations.source(trial) {
                        it.generations.reject(&digest);
                    }
                    it.generations.discard(trial);
                    say!("the new configuration is undone");
                    let _ = tell.send(Heard::Down(Down::Restart));
                } else if slot_on_trial {
                    say!("this version is not blessed; the machine starts again");
                    let _ = tell.send(Heard::Down(Down::Restart));
                }
            }
        }
    });
}

impl Machinery {
    /// The machine serves: what was on trial is in force from now on.
    pub fn settle(&mut self) {
        if let Some(trial) = self.trial.take() {
            match self.generations.confirm(trial) {
                Ok(()) => {
                    if let Some(digest) = self.volume.take() {
                        self.generations.remember_volume(&digest);
                    }
                    say!("configuration {trial} is in force");
                }
                Err(error) => say!("configuration {trial} cannot be kept: {error}"),
            }
        }
        if let Some(slot) = self.slot.clone().filter(|slot| slot.tries.is_some()) {
            match slots::on_boot_partition(|slots| {
                slots.bless(&slot).map_err(|error| error.to_string())
            }) {
                Ok(good) => {
                    say!("blessed: {}", good.name());
                    self.slot = Some(good);
                }
                Err(error) => say!("the slot cannot be blessed: {error}"),
            }
        }
        let _ = fs::write(FLOOR, &self.version);
    }
}

fn uptime_ms() -> u128 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: f64 = text
        .split(' ')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0.0);
    Duration::from_secs_f64(seconds).as_millis()
}

/// What outlives the boot, whoever broke down while holding it.
pub fn lock(machinery: &Mutex<Machinery>) -> MutexGuard<'_, Machinery> {
    machinery.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The highest version that ever served here.
pub const FLOOR: &str = "/state/floor";
const BEAT: Duration = Duration::from_millis(500);
/// Longer than `timeouts.drain` may sensibly be; hardware is switched off harder after that.
const DRAIN: Duration = Duration::from_secs(60);
