//! The boot: what PID 1 does, in order, before [`crate::life`] takes over.
//!
//! File systems, modules, settings; the state partition and the configuration; network, clock and
//! packet filter, and from then on no more modules.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, UNIX_EPOCH};

use crate::firewall::{self, Plan};
use crate::generations::Generations;
use crate::life::{self, Machinery};
use crate::machine::Machine;
use crate::modules::{self, Modules};
use crate::network::{self, time};
use crate::power::{self, Down, Watchdog};
use crate::run::Children;
use crate::supervise::{self, Clinch, Served};
use crate::{configuration, keeper, mounts, randomness, say, screen, slots, sysctl, volumes};

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
    if volumes::usb() {
        // A stick may come when modules are locked.
        for name in ["usb_storage", "uas"] {
            loaded.load(name);
        }
    }
    mounts::firmware();
    mounts::hide_types();
    sysctl::apply();
    raise_limits();

    let (tell, heard) = mpsc::channel();
    if let Err(error) = power::listen(&tell) {
        say!("signals are not heard: {error}");
    }
    let watchdog = Watchdog::start();
    let children = Children::default();
    let (generations, persistent) = state();
    randomness::seed();
    let chosen = configuration::choose(&generations, &children);
    watchdog.beat();
    let (machine, served) = configuration::read();
    let _ = rustix::system::sethostname(machine.hostname.as_bytes());

    let network = network::bring_up(&machine, NETWORK_WAIT);
    let built = release
        .get("BUILD_EPOCH")
        .and_then(|text| text.parse().ok());
    let built = UNIX_EPOCH + Duration::from_secs(built.unwrap_or(0));
    watchdog.beat();
    let clock = time::synchronise(&machine, &network, built, || watchdog.beat());
    let resolvers = network::resolvers(&machine, &network);
    close(&children, &machine, &served, &resolvers);
    let modules_locked = modules::lock();
    watchdog.beat();

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
        configuration: format!(
            "{}{}",
            chosen.words,
            if persistent { "" } else { ", in memory only" }
        ),
    };
    let machinery = Machinery {
        children,
        clinch,
        generations,
        machine,
        served,
        version,
        slot,
        trial: chosen.trial,
        volume: chosen.volume,
        vain_volume: chosen.vain_volume,
    };
    life::live(machinery, facts, network, &watchdog, &tell, &heard)
}

/// Loads the packet filter and has the egress pin kept. Without its rules the machine is not the one
/// that was asked for, and goes down.
fn close(children: &Children, machine: &Machine, served: &Served, resolvers: &[IpAddr]) {
    let mut plan = Plan {
        machine,
        resolvers,
        ports: &served.ports,
        kept: served.kept,
    };
    let mut applied = firewall::apply(children, &plan);
    if applied.is_ok() && served.kept && !keeper::start(children) {
        say!(
            "the keeper of the egress pin is not there: only the addresses of machine.toml are open"
        );
        plan.kept = false;
        applied = firewall::apply(children, &plan);
    }
    if let Err(error) = applied {
        say!("the packet filter was refused, so nothing is served: {error}");
        power::go(Down::Restart);
    }
}

/// Mounts the state partition, or makes do with memory. Says which.
fn state() -> (Generations, bool) {
    let mounted = volumes::state().is_some_and(|volume| {
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

const NETWORK_WAIT: Duration = Duration::from_secs(10);
