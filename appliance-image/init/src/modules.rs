//! Kernel modules: those of the hardware that is there, those that the kernel might ask for later,
//! and then no more.
//!
//! The kernel cannot call `modprobe` here, because there is none. So everything must be loaded
//! before [`lock`], after which not even root can load a module.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::say;

/// The modules of the image, as `depmod` described them.
#[derive(Debug, Default)]
pub struct Modules {
    /// Folder of the running kernel's modules.
    folder: PathBuf,
    /// By name: the file and the files it needs, in the order of `modules.dep`.
    files: HashMap<String, (String, Vec<String>)>,
    /// Pattern of a device, and the name of the module for it.
    aliases: Vec<(String, String)>,
    loaded: HashSet<String>,
}

impl Modules {
    /// Reads the tables of the running kernel.
    pub fn of_running_kernel() -> Self {
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let folder = Path::new("/lib/modules").join(release);
        let text = |name| fs::read_to_string(folder.join(name)).unwrap_or_default();
        Self::parse(folder.clone(), &text("modules.dep"), &text("modules.alias"))
    }

    fn parse(folder: PathBuf, dep: &str, alias: &str) -> Self {
        let files = dep.lines().filter_map(|line| line.split_once(':'));
        let files = files.map(|(file, needs)| {
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            (name_of(file), (file.to_owned(), needs))
        });
        let aliases = alias
            .lines()
            .filter_map(|line| line.strip_prefix("alias "))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(pattern, name)| (pattern.to_owned(), name_of(name)));
        Self {
            folder,
            files: files.collect(),
            aliases: aliases.collect(),
            loaded: HashSet::new(),
        }
    }

    /// Loads a module and what it needs. One that fits no hardware says so and is left.
    pub fn load(&mut self, name: &str) -> bool {
        let name = name_of(name);
        if !self.loaded.insert(name.clone()) {
            return false;
        }
        let Some((file, needs)) = self.files.get(&name).cloned() else {
            return false;
        };
        // What is needed by others stands at the end.
        for needed in needs.iter().rev() {
            if self.loaded.insert(name_of(needed)) {
                self.insert(needed);
            }
        }
        self.insert(&file)
    }

    fn insert(&self, file: &str) -> bool {
        let opened = fs::File::open(self.folder.join(file));
        let result = opened
            .map_err(|error| error.to_string())
            .and_then(|module| {
                let flags = if file.ends_with(".xz") { COMPRESSED } else { 0 };
                match rustix::system::finit_module(&module, c"", flags) {
                    // No such hardware, or built in: both are no news.
                    Ok(()) | Err(Errno::EXIST | Errno::NODEV) => Ok(()),
                    Err(error) => Err(error.to_string()),
                }
            });
        if let Err(reason) = &result {
            say!("module {file} was not loaded: {reason}");
        }
        result.is_ok()
    }

    /// Loads the modules for every device on every bus, until no new device appears.
    pub fn coldplug(&mut self) {
        loop {
            let mut devices = Vec::new();
            modaliases(Path::new("/sys/devices"), 0, &mut devices);
            let wanted: HashSet<String> = devices
                .iter()
                .flat_map(|device| self.names_for(device))
                .filter(|name| !self.loaded.contains(name))
                .collect();
            let mut wanted: Vec<String> = wanted.into_iter().collect();
            wanted.sort();
            // A module may bring a bus with further devices.
            if wanted.iter().filter(|name| self.load(name)).count() == 0 {
                return;
            }
        }
    }

    fn names_for(&self, device: &str) -> Vec<String> {
        let fits =
            |(pattern, _): &&(String, String)| matches(pattern.as_bytes(), device.as_bytes());
        let found = self.aliases.iter().filter(fits);
        found.map(|(_, name)| name.clone()).collect()
    }
}

/// MODULE_INIT_COMPRESSED_FILE: the kernel unpacks the file, and then checks its signature.
const COMPRESSED: i32 = 4;

/// Forbids the kernel to load any further module, for good. The files, of no use from then on, give
/// their memory back: the root lies in it.
pub fn lock() -> std::io::Result<()> {
    fs::write("/proc/sys/kernel/modules_disabled", "1")?;
    fs::remove_dir_all("/lib/modules")
}

fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    let name = name.split(".ko").next().unwrap_or(name);
    name.replace('-', "_")
}

/// Collects the contents of all `modalias` files. sysfs is a tree but for links, which are not
/// followed; the depth is bounded all the same.
fn modaliases(folder: &Path, depth: usize, into: &mut Vec<String>) {
    const DEEPEST: usize = 24;
    if depth > DEEPEST {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            modaliases(&entry.path(), depth + 1, into);
        } else if entry.file_name() == "modalias"
            && let Ok(text) = fs::read_to_string(entry.path())
            && !text.trim().is_empty()
        {
            into.push(text.trim().to_owned());
        }
    }
}

/// Shell patterns as in `modules.alias`: `*`, `?` and `[…]`.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skip| matches(rest, &text[skip..])),
        Some((b'?', rest)) => !text.is_empty() && matches(rest, &text[1..]),
        Some((b'[', rest)) => {
            let Some(end) = rest.iter().position(|&byte| byte == b']') else {
                return false;
            };
            let fits = text.first().is_some_and(|&byte| in_set(&rest[..end], byte));
            fits && matches(&rest[end + 1..], &text[1..])
        }
        Some((byte, rest)) => text.first() == Some(byte) && matches(rest, &text[1..]),
    }
}

fn in_set(set: &[u8], byte: u8) -> bool {
    match set {
        [] => false,
        [from, b'-', to, rest @ ..] => (*from..=*to).contains(&byte) || in_set(rest, byte),
        [one, rest @ ..] => *one == byte || in_set(rest, byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_finds_its_module() {
        let modules = Modules::parse(
            PathBuf::new(),
            "kernel/a/virtio_net.ko.xz: kernel/b/net_failover.ko.xz\n",
            "# comment\nalias virtio:d00000001v* virtio_net\nalias usb:v*p*d*dc*dsc*dp*ic08isc06ip[0-5]* usb_storage\n",
        );
        assert_eq!(
            modules.names_for("virtio:d00000001v00001AF4"),
            ["virtio_net"]
        );
        assert_eq!(
            modules.names_for("usb:v1p2d3dc4dsc5dp6ic08isc06ip50in00"),
            ["usb_storage"]
        );
        assert!(modules.names_for("virtio:d00000002v00001AF4").is_empty());
        assert_eq!(
            modules.files["virtio_net"].1,
            ["kernel/b/net_failover.ko.xz"]
        );
    }

    #[test]
    fn an_unfinished_set_matches_nothing() {
        assert!(!matches(b"a[b", b"ab"));
        assert!(matches(b"a[b-d]*", b"ac"));
        assert!(!matches(b"a[b-d]", b"a"));
    }
}
