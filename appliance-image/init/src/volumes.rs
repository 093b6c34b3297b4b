//! Which block device carries a label: the state partition, the boot partition, a configuration
//! volume. There is no udev here; superblocks are read directly.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A block device with a file system that has a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its device file.
    pub device: PathBuf,
    /// `ext4`, `vfat` or `iso9660`.
    pub kind: &'static str,
    /// Its label.
    pub label: String,
}

/// Label of the state partition.
pub const STATE: &str = "clinch-state";
/// Labels of the boot partition, by UEFI and by BIOS.
pub const BOOT: [&str; 2] = ["CLINCHBOOT", "CLINCHBIOS"];
/// Label of a volume that brings a configuration.
pub const CONFIG: &str = "CLINCH";

/// All volumes that are there now, in order of the devices' names.
pub fn all() -> Vec<Volume> {
    let entries = fs::read_dir("/sys/class/block").into_iter().flatten();
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with("loop") && !name.starts_with("ram"))
        .collect();
    names.sort();
    let devices = names.iter().map(|name| Path::new("/dev").join(name));
    devices.filter_map(|device| read(&device)).collect()
}

/// The first volume with this label.
pub fn labelled(label: &str) -> Option<Volume> {
    all().into_iter().find(|volume| volume.label == label)
}

/// The state partition. A disk may come a moment after its driver.
pub fn state() -> Option<Volume> {
    let begun = Instant::now();
    awaited(STATE, || {
        let wait = if all().is_empty() {
            FIRST_DISK
        } else {
            OTHER_DISK
        };
        begun.elapsed() < wait
    })
}

/// Whether the machine has a USB controller.
pub fn usb() -> bool {
    fs::read_dir("/sys/bus/usb/devices").is_ok_and(|mut found| found.next().is_some())
}

/// The volume that brings a configuration. One behind USB comes late: the kernel finds it some tenths of
/// a second after the controller, and leaves it a second before it asks what is on it. `needed`: without
/// it the machine has nothing to do.
pub fn configuration(needed: bool) -> Option<Volume> {
    let begun = Instant::now();
    let wait = match needed {
        true => NEEDED_STICK,
        false if usb() => STICK,
        false => Duration::ZERO,
    };
    awaited(CONFIG, || begun.elapsed() < wait)
}

fn awaited(label: &str, wait: impl Fn() -> bool) -> Option<Volume> {
    loop {
        let found = labelled(label);
        if found.is_some() || !wait() {
            return found;
        }
        sleep(BETWEEN_LOOKS);
    }
}

const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
const FIRST_DISK: Duration = Duration::from_secs(10);
const OTHER_DISK: Duration = Duration::from_secs(1);
const STICK: Duration = Duration::from_millis(2500);
const NEEDED_STICK: Duration = Duration::from_secs(10);

fn read(device: &Path) -> Option<Volume> {
    let file = File::open(device).ok()?;
    let at = |offset, length| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    };
    let (kind, label) = identify(at)?;
    Some(Volume {
        device: device.to_owned(),
        kind,
        label,
    })
}

/// What the bytes of a device say.
fn identify(at: impl Fn(u64, usize) -> Option<Vec<u8>>) -> Option<(&'static str, String)> {
    // ext4: superblock at 1024, magic at 0x38 in it, label at 0x78.
    if at(0x438, 2)? == [0x53, 0xef] {
        return Some(("ext4", text(&at(0x478, 16)?)));
    }
    // FAT32 and FAT12/16: signature and label have different places.
    let sector = at(0, 512)?;
    if sector.ends_with(&[0x55, 0xaa]) {
        if &sector[82..87] == b"FAT32" {
            return Some(("vfat", text(&sector[71..82])));
        }
        if &sector[54..57] == b"FAT" {
            return Some(("vfat", text(&sector[43..54])));
        }
    }
    let descriptor = at(0x8000, 72)?;
    if &descriptor[1..6] == b"CD001" {
        return Some(("iso9660", text(&descriptor[40..72])));
    }
    None
}

fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Option<(&'static str, String)> {
        identify(|offset, length| {
            let start = usize::try_from(offset).ok()?;
            bytes.get(start..start + length).map(<[u8]>::to_vec)
        })
    }

    #[test]
    fn file_systems_are_told_apart_by_their_superblocks() {
        let mut ext4 = vec![0; 0x9000];
        ext4[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
        ext4[0x478..0x484].copy_from_slice(b"clinch-state");
        assert_eq!(of(&ext4), Some(("ext4", STATE.to_owned())));
        let mut fat = vec![0; 0x9000];
        fat[510..512].copy_from_slice(&[0x55, 0xaa]);
        fat[54..62].copy_from_slice(b"FAT16   ");
        fat[43..54].copy_from_slice(b"CLINCH     ");
        assert_eq!(of(&fat), Some(("vfat", CONFIG.to_owned())));
        let mut iso = vec![0; 0x9000];
        iso[0x8001..0x8006].copy_from_slice(b"CD001");
        iso[0x8028..0x802e].copy_from_slice(b"CLINCH");
        assert_eq!(of(&iso), Some(("iso9660", CONFIG.to_owned())));
        assert_eq!(of(&vec![0; 0x9000]), None);
        assert_eq!(of(&[0; 100]), None);
    }
}
