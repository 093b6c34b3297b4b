//! Which configuration the machine uses, and how a new one comes into use.
//!
//! In order: the one on trial, a new one of an attached volume, the one in force. A new one is
//! checked as a whole before it is used, tried for one boot, and kept once the machine has proved
//! that it serves ([`crate::life`]). Where `machine.toml` demands it, a configuration is stored
//! sealed by the TPM ([`crate::sealed`]) and lies open in memory only.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command as Program;

use crate::generations::{self, Generations};
use crate::machine::Machine;
use crate::run::Children;
use crate::supervise::{self, Served};
use crate::{mounts, say, sealed, slots, volumes};

/// What was chosen.
#[derive(Debug)]
pub struct Chosen {
    /// The configuration's number, if it is on trial.
    pub trial: Option<u64>,
    /// Digest of the volume that brought it, if it is on trial from one.
    pub volume: Option<String>,
    /// Whether a volume was there that brought none.
    pub vain_volume: bool,
    /// Words for the screen.
    pub words: String,
}

/// Texts that replace files of the configuration in force.
pub type Texts = BTreeMap<String, String>;

/// Points [`supervise::CONFIG`] at the configuration to use.
pub fn choose(generations: &Generations, children: &Children) -> Chosen {
    let mut note = String::new();
    if let Some(trial) = ordered_trial() {
        // It has one boot; whatever happens, the next is without.
        let _ = fs::remove_file(TRIAL);
        rustix::fs::sync();
        match open(generations, trial) {
            Ok(folder) => {
                use_folder(&folder);
                return on_trial(trial, None, String::new());
            }
            Err(reason) => say!("configuration {trial} cannot be tried: {reason}"),
        }
    }
    let current = generations
        .current()
        .map(|number| (number, open(generations, number)));
    if let Some((number, Err(reason))) = &current {
        say!("configuration {number} cannot be used: {reason}");
        note = format!(", {number} cannot be opened");
    }
    let usable = current.and_then(|(number, folder)| Some((number, folder.ok()?)));
    let volume = volumes::configuration(usable.is_none());
    if let Some(volume) = &volume {
        let device = volume.device.display();
        match from_volume(volume, generations, children, usable.is_some()) {
            Ok(Some((number, digest))) => {
                return on_trial(number, Some(digest), format!(", from {device}"));
            }
            Ok(None) => {}
            Err(reason) => {
                say!("the configuration of {device} is not used: {reason}");
                note += &format!(", the one of {device} was refused");
            }
        }
    }
    let words = match usable {
        Some((number, folder)) => {
            use_folder(&folder);
            format!("{number}{note}")
        }
        None => {
            say!(
                "there is no configuration: attach a volume labelled {} with machine.toml and clinch.toml",
                volumes::CONFIG
            );
            format!("none{note}")
        }
    };
    Chosen {
        trial: None,
        volume: None,
        vain_volume: volume.is_some(),
        words,
    }
}

fn on_trial(number: u64, volume: Option<String>, whence: String) -> Chosen {
    Chosen {
        trial: Some(number),
        volume,
        vain_volume: false,
        words: format!("{number}, on trial{whence}"),
    }
}

fn ordered_trial() -> Option<u64> {
    fs::read_to_string(TRIAL).ok()?.trim().parse().ok()
}

/// Orders a configuration to be tried at the next start.
pub fn try_at_next_start(number: u64) -> Result<(), String> {
    fs::write(TRIAL, number.to_string()).map_err(|error| error.to_string())?;
    rustix::fs::sync();
    Ok(())
}

/// Reads the configuration in use. What cannot be read is said, and the machine's defaults are used.
pub fn read() -> (Machine, Served) {
    let folder = Path::new(supervise::CONFIG);
    let machine = machine_of(folder).unwrap_or_else(|error| {
        say!("{error}; the machine uses its defaults");
        Machine::default()
    });
    let served = supervise::served(folder).unwrap_or_else(|error| {
        say!("{error}");
        Served::default()
    });
    (machine, served)
}

/// Takes the configuration in force with other texts in it, as one to be tried. What was sealed
/// stays so: an order over the network cannot bring keys to the disk that were never there.
pub fn change(
    generations: &Generations,
    children: &Children,
    texts: &Texts,
) -> Result<u64, String> {
    let folder = Path::new(supervise::CONFIG);
    let sealed = machine_of(folder).is_ok_and(|machine| machine.sealed);
    prepare(generations, children, folder, texts, sealed)
}

/// Number and digest of a new configuration of a volume, in use from now on; `None` where the volume
/// brings what is in force, or was in force before an operator sent something newer.
fn from_volume(
    volume: &volumes::Volume,
    generations: &Generations,
    children: &Children,
    usable: bool,
) -> Result<Option<(u64, String)>, String> {
    mounts::device(&volume.device, mounts::VOLUME, volume.kind, true)
        .map_err(|error| error.to_string())?;
    let folder = Path::new(mounts::VOLUME);
    let prepared = generations::digest(folder)
        .map_err(|error| error.to_string())
        .and_then(|digest| {
            let current = generations.current().and_then(|n| generations.source(n));
            let known = current.as_ref() == Some(&digest) || generations.remembers_volume(&digest);
            if usable && known {
                return Ok(None);
            }
            if generations.rejected(&digest) {
                return Err("it was tried before and did not serve".to_owned());
            }
            let number = prepare(generations, children, folder, &Texts::new(), false)?;
            Ok(Some((number, digest)))
        });
    mounts::release(mounts::VOLUME);
    if let Some((number, _)) = prepared.as_ref().map_err(Clone::clone)? {
        use_folder(&open(generations, *number)?);
    }
    prepared
}

/// Copies a configuration to a new generation, sealed where it says so, once it is checked.
fn prepare(
    generations: &Generations,
    children: &Children,
    from: &Path,
    texts: &Texts,
    stays_sealed: bool,
) -> Result<u64, String> {
    let io = |error: std::io::Error| error.to_string();
    let text = match texts.get("machine.toml") {
        Some(text) => text.clone(),
        None => fs::read_to_string(from.join("machine.toml")).unwrap_or_default(),
    };
    let machine = Machine::parse(&text).map_err(|error| error.to_string())?;
    if stays_sealed && !machine.sealed {
        return Err("the keys are sealed and `keys.sealed` is not set: only a volume can bring keys that are not".to_owned());
    }
    let owner = Some(supervise::CLINCH_USER);
    if !machine.sealed {
        let number = generations.stage(from, owner).map_err(io)?;
        let folder = generations.folder(number);
        return put(&folder, texts)
            .and_then(|()| check(&folder, children))
            .map(|()| number)
            .inspect_err(|_| generations.discard(number));
    }
    // Keys that are to be sealed are never on the disk as they are: not even for the check.
    if !slots::secure_boot() {
        return Err("`keys.sealed` needs Secure Boot: without it any system that is started here could open what was sealed".to_owned());
    }
    mounts::memory(OPENED).map_err(|error| format!("{OPENED}: {error}"))?;
    let folder = Path::new(OPENED).join("new");
    let _ = fs::remove_dir_all(&folder);
    let done = generations::copy_to(from, &folder, owner, sealed::LARGEST)
        .map_err(io)
        .and_then(|()| put(&folder, texts))
        .and_then(|()| check(&folder, children))
        .and_then(|()| {
            let files = generations::files(&folder).map_err(io)?;
            let bytes = sealed::seal(&files).map_err(|error| error.to_string())?;
            let digest = generations::digest(&folder).map_err(io)?;
            generations.keep_sealed(&bytes, &digest).map_err(io)
        });
    let _ = fs::remove_dir_all(&folder);
    done
}

fn put(folder: &Path, texts: &Texts) -> Result<(), String> {
    for (name, text) in texts {
        fs::write(folder.join(name), text).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The folder of a generation as clinch can read it; a sealed one is opened in memory.
fn open(generations: &Generations, number: u64) -> Result<PathBuf, String> {
    let Some(bytes) = generations.sealed(number) else {
        let folder = generations.folder(number);
        return match folder.is_dir() {
            true => Ok(folder),
            false => Err("it is not there".to_owned()),
        };
    };
    let files = sealed::open(&bytes).map_err(|error| error.to_string())?;
    mounts::memory(OPENED).map_err(|error| format!("{OPENED}: {error}"))?;
    let folder = Path::new(OPENED).join(number.to_string());
    generations::write_files(&folder, &files, Some(supervise::CLINCH_USER))
        .map_err(|error| error.to_string())?;
    Ok(folder)
}

fn machine_of(folder: &Path) -> Result<Machine, String> {
    let text = fs::read_to_string(folder.join("machine.toml")).unwrap_or_default();
    Machine::parse(&text).map_err(|error| error.to_string())
}

/// Checks a configuration before it is used: both files, and everything that `clinch check` looks
/// at. The link points to it meanwhile, since paths in it go through the link.
fn check(folder: &Path, children: &Children) -> Result<(), String> {
    machine_of(folder)?;
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

/// The number of a configuration that has one boot to prove itself.
const TRIAL: &str = "/state/trial";
/// Where sealed configurations lie open: in memory.
const OPENED: &str = "/run/opened";
