//! The life of the machine: what PID 1 does, in order, and then for as long as it runs.
//!
//! File systems, modules, settings; the state partition and the configuration; network, clock and
//! packet filter, and from then on no more modules; clinch, the proof that it serves, and the
//! blessing of the slot. Then whatever is heard: ends of children, the power button, the operator.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufRead;
use std::net::TcpListener;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::process::{Command as Program, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::admin::{self, Command};
use crate::firewall::{self, Plan};
use crate::generations::{self, Generations};
use crate::machine::{self, Machine};
use crate::modules::{self, Modules};
use crate::network::{self, Network, time};
use crate::power::{self, Down, Heard, Watchdog};
use crate::run::Children;
use crate::slots::{self, Slot, Slots, Version};
use crate::supervise::{self, BackOff, Clinch, Served};
use crate::{health, mounts, say, screen, sysctl, update, volumes};

/// Everything that outlives the boot.
struct Machinery {
    children: Children,
    clinch: Clinch,
    generations: Generations,
    machine: Machine,
    served: Served,
    version: String,
    slot: Option<Slot>,
    /// A configuration that is tried and not yet in force.
    trial: Option<u64>,
}

/// Brings the machine up and runs it. Does not return.
pub fn run() -> ! {
    mounts::kernel();
    let release = release();
    let version = release
        .get("IMAGE_VERSION")
        .cloned()
        .unwrap_or_else(|| "0".to_owned());
    say!("clinch appliance {version}, Linux {}", slots::kernel());
    let mut loaded = Modules::of_running_kernel();
    for name in fs::read_to_string("/etc/modules-now")
        .unwrap_or_default()
        .lines()
    {
        loaded.load(name);
    }
    loaded.coldplug();
    mounts::firmware();
    sysctl::apply();
    raise_limits();

    let (tell, heard) = mpsc::channel();
    if let Err(error) = power::listen(&tell) {
        say!("signals are not heard: {error}");
    }
    let watchdog = Watchdog::start();
    let children = Children::default();
    let (generations, persistent) = state();
    seed_randomness();
    let (trial, note) = choose(&generations, &children);
    let (machine, served) = read_configuration();
    let _ = rustix::system::sethostname(machine.hostname.as_bytes());

    let network = network::bring_up(&machine, NETWORK_WAIT);
    let built = release
        .get("BUILD_EPOCH")
        .and_then(|text| text.parse().ok());
    let built = UNIX_EPOCH + Duration::from_secs(built.unwrap_or(0));
    let clock = time::synchronise(&machine, &network, built);
    let resolvers = network::resolvers(&machine, &network);
    let plan = Plan {
        machine: &machine,
        resolvers: &resolvers,
        ports: &served.ports,
    };
    if let Err(error) = firewall::apply(&children, &plan) {
        // Without its rules the machine is not the one that was asked for.
        say!("the packet filter was refused, so nothing is served: {error}");
        power::go(Down::Restart);
    }
    let modules_locked = modules::lock();

    let clinch = match Clinch::new(children.clone()) {
        Ok(clinch) => clinch,
        Err(error) => {
            say!("clinch cannot be supervised: {error}");
            power::go(Down::Restart);
        }
    };
    let slot = slots::running();
    let facts = screen::Facts {
        version: version.clone(),
        slot: slot
            .as_ref()
            .map_or("no slot".to_owned(), |slot| format!("slot {}", slot.name())),
        locks: locks(modules_locked.is_ok()),
        clock,
        configuration: format!("{note}{}", if persistent { "" } else { ", in memory only" }),
    };
    let machinery = Machinery {
        children,
        clinch,
        generations,
        machine,
        served,
        version,
        slot,
        trial,
    };
    live(machinery, facts, network, &watchdog, &tell, &heard)
}

fn live(
    machinery: Machinery,
    facts: screen::Facts,
    network: Network,
    watchdog: &Watchdog,
    tell: &mpsc::Sender<Heard>,
    heard: &mpsc::Receiver<Heard>,
) -> ! {
    let (children, clinch) = (machinery.children.clone(), machinery.clinch.clone());
    screen::start(facts, network, clinch.clone(), children.clone());
    let machinery = Arc::new(Mutex::new(machinery));
    start_admin(&machinery, tell);
    start_proof(&machinery, tell);

    let (ended, ends) = mpsc::channel::<ExitStatus>();
    let mut back_off = BackOff::default();
    let mut started = Instant::now();
    let mut start_at = Some(Instant::now());
    let configured = Path::new(supervise::CONFIG).join("clinch.toml").exists();
    loop {
        watchdog.beat();
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
                save_randomness();
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
                    if let Ok(digest) = generations::digest(&it.generations.folder(trial)) {
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
    fn settle(&mut self) {
        if let Some(trial) = self.trial.take() {
            match self.generations.confirm(trial) {
                Ok(()) => say!("configuration {trial} is in force"),
                Err(error) => say!("configuration {trial} cannot be kept: {error}"),
            }
        }
        if let Some(slot) = self.slot.clone().filter(|slot| slot.tries.is_some()) {
            match with_boot_partition(|slots| slots.bless(&slot).map_err(|error| error.to_string()))
            {
                Ok(good) => {
                    say!("blessed: {}", good.name());
                    self.slot = Some(good);
                }
                Err(error) => say!("the slot cannot be blessed: {error}"),
            }
        }
        let _ = fs::write(FLOOR, &self.version);
    }

    fn act(
        &mut self,
        command: Command,
        body: &mut dyn BufRead,
        tell: &mpsc::Sender<Heard>,
    ) -> Result<String, String> {
        let restart = || {
            let _ = tell.send(Heard::Down(Down::Restart));
        };
        match command {
            Command::Status => Ok(format!(
                "version {} slot {} clinch {} started {}",
                self.version,
                self.slot.as_ref().map_or("none".to_owned(), Slot::name),
                if self.clinch.is_ready() {
                    "serves"
                } else {
                    "does not serve"
                },
                self.clinch.starts(),
            )),
            Command::Update => {
                let slot = self.update(body)?;
                restart();
                Ok(format!("{} is booted next", slot.name()))
            }
            Command::Apply => {
                let number = self.apply(body)?;
                restart();
                Ok(format!(
                    "configuration {number} is tried; it is kept once a stapled handshake succeeds"
                ))
            }
            Command::Confirm => {
                self.settle();
                Ok("what runs is kept".to_owned())
            }
            Command::Reboot => {
                restart();
                Ok("the machine starts again".to_owned())
            }
            Command::PowerOff => {
                let _ = tell.send(Heard::Down(Down::Off));
                Ok("the machine switches off".to_owned())
            }
        }
    }

    fn update(&self, mut body: &mut dyn BufRead) -> Result<Slot, String> {
        let running = self
            .slot
            .as_ref()
            .ok_or("this machine was not started from a slot, so it has none to update")?;
        let key = fs::read_to_string("/etc/update.pub")
            .ok()
            .and_then(|text| machine::key(&text));
        let key = key.ok_or("this image trusts no key for updates")?;
        let floor = fs::read_to_string(FLOOR)
            .ok()
            .and_then(|text| Version::parse(text.trim()));
        let floor = floor.unwrap_or_else(|| running.version.clone());
        say!("an update arrives");
        with_boot_partition(|slots| {
            update::receive(&mut body, &key, &floor, running, slots)
                .map_err(|error| error.to_string())
        })
    }

    /// Takes `machine.toml` and `clinch.toml` as JSON; certificates and keys stay those in force.
    fn apply(&mut self, body: &mut dyn BufRead) -> Result<u64, String> {
        let files: BTreeMap<String, String> =
            serde_json::from_reader(body).map_err(|error| error.to_string())?;
        if let Some(name) = files
            .keys()
            .find(|name| !["machine.toml", "clinch.toml"].contains(&name.as_str()))
        {
            return Err(format!(
                "{name:?} cannot be sent; only machine.toml and clinch.toml can"
            ));
        }
        let io = |error: std::io::Error| error.to_string();
        let number = self
            .generations
            .stage(Path::new(supervise::CONFIG), Some(supervise::CLINCH_USER))
            .map_err(io)?;
        let folder = self.generations.folder(number);
        for (name, text) in &files {
            fs::write(folder.join(name), text).map_err(io)?;
        }
        if let Err(reason) = check(&folder, &self.children) {
            self.generations.discard(number);
            return Err(reason);
        }
        fs::write(TRIAL, number.to_string()).map_err(io)?;
        rustix::fs::sync();
        Ok(number)
    }
}

fn start_admin(machinery: &Arc<Mutex<Machinery>>, tell: &mpsc::Sender<Heard>) {
    let Some(settings) = lock(machinery).machine.admin.clone() else {
        return;
    };
    let listener = match TcpListener::bind(settings.listen) {
        Ok(listener) => listener,
        Err(error) => {
            say!(
                "the admin interface cannot listen on {}: {error}",
                settings.listen
            );
            return;
        }
    };
    let (machinery, tell) = (Arc::clone(machinery), tell.clone());
    std::thread::spawn(move || {
        admin::serve(&listener, &settings.keys, |command, body| {
            lock(&machinery).act(command, body, &tell)
        });
    });
}

/// Mounts the state partition, or makes do with memory. Says which.
fn state() -> (Generations, bool) {
    let deadline = Instant::now() + DISK_WAIT;
    let volume = loop {
        match volumes::labelled(volumes::STATE) {
            None if Instant::now() < deadline && volumes::all().is_empty() => {
                std::thread::sleep(Duration::from_millis(100))
            }
            found => break found,
        }
    };
    let mounted = volume.is_some_and(|volume| {
        match mounts::device(&volume.device, mounts::STATE, volume.kind, false) {
            Ok(()) => true,
            Err(error) => {
                say!(
                    "the state partition {} cannot be mounted: {error}",
                    volume.device.display()
                );
                false
            }
        }
    });
    for folder in ["generations", "cache"] {
        let _ = fs::create_dir_all(Path::new(mounts::STATE).join(folder));
    }
    let cache = Path::new(mounts::STATE).join("cache");
    let _ = chown(
        &cache,
        Some(supervise::CLINCH_USER),
        Some(supervise::CLINCH_USER),
    );
    let _ = fs::remove_dir("/var/cache/clinch");
    let _ = symlink(&cache, "/var/cache/clinch");
    (Generations::at(Path::new(mounts::STATE)), mounted)
}

/// Points [`supervise::CONFIG`] at the configuration to use: one on trial, a new one of a volume, or
/// the one in force. Returns the number of one that is on trial, and words for the screen.
fn choose(generations: &Generations, children: &Children) -> (Option<u64>, String) {
    if let Some(trial) = fs::read_to_string(TRIAL)
        .ok()
        .and_then(|text| text.trim().parse().ok())
    {
        // It has one boot; whatever happens, the next is without.
        let _ = fs::remove_file(TRIAL);
        rustix::fs::sync();
        if generations.folder(trial).is_dir() {
            use_folder(&generations.folder(trial));
            return (Some(trial), format!("{trial}, on trial"));
        }
    }
    let mut note = String::new();
    if let Some(volume) = volumes::labelled(volumes::CONFIG) {
        match from_volume(&volume, generations, children) {
            Ok(Some(number)) => {
                use_folder(&generations.folder(number));
                return (
                    Some(number),
                    format!("{number}, on trial, from {}", volume.device.display()),
                );
            }
            Ok(None) => {}
            Err(reason) => {
                say!(
                    "the configuration of {} is not used: {reason}",
                    volume.device.display()
                );
                note = format!(", the one of {} was refused", volume.device.display());
            }
        }
    }
    match generations.current() {
        Some(number) => {
            use_folder(&generations.folder(number));
            (None, format!("{number}{note}"))
        }
        None => {
            say!(
                "there is no configuration: attach a volume labelled {} with machine.toml and clinch.toml",
                volumes::CONFIG
            );
            (None, format!("none{note}"))
        }
    }
}

fn from_volume(
    volume: &volumes::Volume,
    generations: &Generations,
    children: &Children,
) -> Result<Option<u64>, String> {
    let io = |error: std::io::Error| error.to_string();
    mounts::device(&volume.device, mounts::VOLUME, volume.kind, true)
        .map_err(|error| error.to_string())?;
    let folder = Path::new(mounts::VOLUME);
    let staged = generations::digest(folder).map_err(io).and_then(|digest| {
        let current = generations
            .current()
            .and_then(|number| generations::digest(&generations.folder(number)).ok());
        if current.as_ref() == Some(&digest) {
            return Ok(None);
        }
        if generations.rejected(&digest) {
            return Err("it was tried before and did not serve".to_owned());
        }
        generations
            .stage(folder, Some(supervise::CLINCH_USER))
            .map(Some)
            .map_err(io)
    });
    mounts::release(mounts::VOLUME);
    let Some(number) = staged? else {
        return Ok(None);
    };
    if let Err(reason) = check(&generations.folder(number), children) {
        generations.discard(number);
        return Err(reason);
    }
    Ok(Some(number))
}

/// Checks a configuration before it is used: both files, and everything that `clinch check` looks
/// at. The link points to it meanwhile, since paths in it go through the link.
fn check(folder: &Path, children: &Children) -> Result<(), String> {
    let text = fs::read_to_string(folder.join("machine.toml")).unwrap_or_default();
    Machine::parse(&text).map_err(|error| error.to_string())?;
    supervise::served(folder)?;
    let before = fs::read_link(supervise::CONFIG).ok();
    use_folder(folder);
    let config = format!("{}/clinch.toml", supervise::CONFIG);
    let checked = children.succeed(Program::new("/bin/clinch").args(["check", "-c", &config]));
    if let Some(before) = before {
        use_folder(&before);
    }
    checked.map(drop)
}

fn use_folder(folder: &Path) {
    let fresh = format!("{}.new", supervise::CONFIG);
    let _ = fs::remove_file(&fresh);
    let linked = symlink(folder, &fresh).and_then(|()| fs::rename(&fresh, supervise::CONFIG));
    if let Err(error) = linked {
        say!(
            "{} cannot point to {}: {error}",
            supervise::CONFIG,
            folder.display()
        );
    }
}

fn read_configuration() -> (Machine, Served) {
    let folder = Path::new(supervise::CONFIG);
    let text = fs::read_to_string(folder.join("machine.toml")).unwrap_or_default();
    let machine = Machine::parse(&text).unwrap_or_else(|error| {
        say!("{error}; the machine uses its defaults");
        Machine::default()
    });
    let served = supervise::served(folder).unwrap_or_else(|error| {
        say!("{error}");
        Served::default()
    });
    (machine, served)
}

fn with_boot_partition<T>(work: impl FnOnce(&Slots) -> Result<T, String>) -> Result<T, String> {
    let volume = volumes::all()
        .into_iter()
        .find(|volume| volumes::BOOT.contains(&volume.label.as_str()));
    let volume = volume.ok_or("there is no boot partition")?;
    mounts::device(&volume.device, mounts::BOOT, volume.kind, false)
        .map_err(|error| format!("{}: {error}", volume.device.display()))?;
    let done = work(&Slots::on(Path::new(mounts::BOOT)));
    mounts::release(mounts::BOOT);
    done
}

fn release() -> BTreeMap<String, String> {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

fn locks(modules_locked: bool) -> String {
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let mode = lockdown
        .split(['[', ']'])
        .nth(1)
        .unwrap_or("integrity")
        .to_owned();
    let on = |yes| if yes { "on" } else { "off" };
    format!(
        "secure boot {}, lockdown {mode}, modules {}",
        on(slots::secure_boot()),
        if modules_locked { "locked" } else { "open" }
    )
}

/// Two descriptors for each connection; clinch takes what it may.
fn raise_limits() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = Rlimit {
        current: Some(1 << 20),
        maximum: Some(1 << 20),
    };
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        say!("the bound of open files cannot be raised: {error}");
    }
}

/// Randomness of the last run, in addition to the hardware's. It is used once.
fn seed_randomness() {
    if let Ok(seed) = fs::read(SEED) {
        let _ = fs::write("/dev/urandom", seed);
        let _ = fs::remove_file(SEED);
    }
}

fn save_randomness() {
    let mut seed = [0; 64];
    if rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty()).is_ok() {
        let _ = fs::write(SEED, seed);
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

fn lock(machinery: &Mutex<Machinery>) -> std::sync::MutexGuard<'_, Machinery> {
    machinery.lock().unwrap_or_else(PoisonError::into_inner)
}

const FLOOR: &str = "/state/floor";
const TRIAL: &str = "/state/trial";
const SEED: &str = "/state/random-seed";
const BEAT: Duration = Duration::from_millis(500);
const NETWORK_WAIT: Duration = Duration::from_secs(10);
const DISK_WAIT: Duration = Duration::from_secs(10);
/// Longer than `timeouts.drain` may sensibly be; hardware is switched off harder after that.
const DRAIN: Duration = Duration::from_secs(60);
