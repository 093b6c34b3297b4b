//! The two slots of the boot partition, and the count of attempts that systemd-boot keeps in the
//! names of the files there (Boot Loader Specification, *boot counting*).
//!
//! `EFI/Linux/clinch-a_1.2.3.efi` is good; `clinch-b_1.2.4+2-1.efi` has been tried once and may be
//! tried twice more. A file with no attempts left comes after all others, so the machine falls back
//! by itself. [`Slots::bless`] takes the count off; nothing else does.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::system::uname;

use crate::{mounts, volumes};

/// One system on the boot partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// `a` or `b`.
    pub letter: char,
    /// Version of the image in it.
    pub version: Version,
    /// Attempts left and made; `None` once it is known to be good.
    pub tries: Option<(u32, u32)>,
}

/// A version, compared number by number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(Vec<u64>);

impl Version {
    /// Numbers with dots between them.
    pub fn parse(text: &str) -> Option<Self> {
        let numbers: Option<Vec<u64>> = text.split('.').map(|part| part.parse().ok()).collect();
        numbers
            .filter(|numbers| (1..=8).contains(&numbers.len()))
            .map(Self)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = self.0.iter().map(u64::to_string).collect();
        f.write_str(&parts.join("."))
    }
}

impl Slot {
    /// Reads a file name.
    pub fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("clinch-")?.strip_suffix(".efi")?;
        let (letter, rest) = rest.split_once('_')?;
        let letter = match letter {
            "a" => 'a',
            "b" => 'b',
            _ => return None,
        };
        let (version, tries) = match rest.split_once('+') {
            None => (rest, None),
            Some((version, count)) => {
                let (left, done) = count.split_once('-').unwrap_or((count, "0"));
                (version, Some((left.parse().ok()?, done.parse().ok()?)))
            }
        };
        Some(Self {
            letter,
            version: Version::parse(version)?,
            tries,
        })
    }

    /// The file name.
    pub fn name(&self) -> String {
        let count = match self.tries {
            None => String::new(),
            Some((left, 0)) => format!("+{left}"),
            Some((left, done)) => format!("+{left}-{done}"),
        };
        format!("clinch-{}_{}{count}.efi", self.letter, self.version)
    }
}

/// The boot partition, mounted.
#[derive(Debug)]
pub struct Slots {
    folder: PathBuf,
}

impl Slots {
    /// Those of a mounted boot partition.
    pub fn on(boot: &Path) -> Self {
        Self {
            folder: boot.join("EFI/Linux"),
        }
    }

    /// All systems there.
    pub fn all(&self) -> Vec<Slot> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| Slot::parse(entry.file_name().to_str()?))
            .collect()
    }

    /// Where an update for a machine that runs `running` is written, before [`Slots::install`].
    /// Whatever the other slot held is removed first: two systems must fit.
    pub fn make_room(&self, running: &Slot) -> io::Result<PathBuf> {
        for slot in self
            .all()
            .iter()
            .filter(|slot| slot.letter != running.letter)
        {
            fs::remove_file(self.folder.join(slot.name()))?;
        }
        rustix::fs::sync();
        Ok(self.folder.join(UNFINISHED))
    }

    /// Gives a finished file its name, with all its attempts before it.
    pub fn install(&self, running: &Slot, version: Version) -> io::Result<Slot> {
        let letter = if running.letter == 'a' { 'b' } else { 'a' };
        let slot = Slot {
            letter,
            version,
            tries: Some((ATTEMPTS, 0)),
        };
        fs::rename(self.folder.join(UNFINISHED), self.folder.join(slot.name()))?;
        self.write_out()?;
        Ok(slot)
    }

    /// The running system is good: no attempt of it is counted any more.
    pub fn bless(&self, running: &Slot) -> io::Result<Slot> {
        let good = Slot {
            tries: None,
            ..running.clone()
        };
        if running.tries.is_some() {
            fs::rename(
                self.folder.join(running.name()),
                self.folder.join(good.name()),
            )?;
            self.write_out()?;
        }
        Ok(good)
    }

    fn write_out(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()?;
        rustix::fs::sync();
        Ok(())
    }
}

/// Does something with the boot partition mounted.
pub fn on_boot_partition<T>(work: impl FnOnce(&Slots) -> Result<T, String>) -> Result<T, String> {
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

/// The slot that the machine runs from, as the firmware's variables tell; `None` where it was not
/// started by systemd-boot (BIOS, network, a kernel given directly).
pub fn running() -> Option<Slot> {
    // The count has moved on in the file's name since the boot loader chose; its variable has the
    // name as it is now.
    let path = variable("LoaderBootCountPath").or_else(|| variable("LoaderEntrySelected"))?;
    let name = path.rsplit(['\\', '/']).next()?;
    Slot::parse(name)
}

/// Whether the firmware checks signatures.
pub fn secure_boot() -> bool {
    let path = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    fs::read(path).is_ok_and(|bytes| bytes.get(4) == Some(&1))
}

/// A text variable of the boot loader: four bytes of attributes, then UTF-16.
fn variable(name: &str) -> Option<String> {
    let bytes = fs::read(format!("/sys/firmware/efi/efivars/{name}-{LOADER}")).ok()?;
    let units = bytes
        .get(4..)?
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    Some(String::from_utf16_lossy(
        &units.take_while(|unit| *unit != 0).collect::<Vec<_>>(),
    ))
}

/// The kernel that runs, for people.
pub fn kernel() -> String {
    uname().release().to_string_lossy().into_owned()
}

/// Vendor of systemd-boot's variables.
const LOADER: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
const ATTEMPTS: u32 = 3;
/// systemd-boot looks at `.efi` alone.
const UNFINISHED: &str = "unfinished.part";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_and_without_a_count_are_read_and_written() {
        for name in [
            "clinch-a_1.2.3.efi",
            "clinch-b_0.1.0.1700000000+3.efi",
            "clinch-b_1.2.4+2-1.efi",
        ] {
            assert_eq!(Slot::parse(name).unwrap().name(), name);
        }
        for name in [
            "clinch-c_1.efi",
            "clinch-a_x.efi",
            "clinch-a_1+x.efi",
            "other.efi",
            "clinch-a_1",
        ] {
            assert_eq!(Slot::parse(name), None, "{name}");
        }
    }

    #[test]
    fn versions_are_compared_by_number() {
        let version = |text| Version::parse(text).unwrap();
        assert!(version("0.10.0") > version("0.9.9"));
        assert!(version("1.0.0.1") > version("1.0.0"));
        assert_eq!(Version::parse("1..2"), None);
    }

    #[test]
    fn an_update_takes_the_other_slot_and_a_blessing_its_count() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("EFI/Linux");
        fs::create_dir_all(&folder).unwrap();
        for name in ["clinch-a_1.0.0.efi", "clinch-b_0.9.0+0-3.efi"] {
            fs::write(folder.join(name), "old").unwrap();
        }
        let slots = Slots::on(dir.path());
        let running = Slot::parse("clinch-a_1.0.0.efi").unwrap();
        let unfinished = slots.make_room(&running).unwrap();
        fs::write(unfinished, "new").unwrap();
        assert_eq!(
            slots.all(),
            std::slice::from_ref(&running),
            "a file that is not finished is no slot"
        );
        let new = slots
            .install(&running, Version::parse("1.1.0").unwrap())
            .unwrap();
        assert_eq!(new.name(), "clinch-b_1.1.0+3.efi");
        let tried = Slot {
            tries: Some((2, 1)),
            ..new.clone()
        };
        fs::rename(folder.join(new.name()), folder.join(tried.name())).unwrap();
        assert_eq!(slots.bless(&tried).unwrap().name(), "clinch-b_1.1.0.efi");
        assert!(folder.join("clinch-b_1.1.0.efi").exists());
    }
}
