//! The kernel's file systems, and the state partition.
//!
//! Everything that can be written is mounted without set-user-id programs, devices and execution.

use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::say;

/// Where the state partition is mounted.
pub const STATE: &str = "/state";
/// Where a configuration volume is mounted while it is read.
pub const VOLUME: &str = "/volume";
/// Where the boot partition is mounted while it is read or written.
pub const BOOT: &str = "/boot";

/// Mounts what the kernel provides. What cannot be mounted is said; the boot goes on without it.
pub fn kernel() {
    let bare = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let devices = MountFlags::NOSUID | MountFlags::NOEXEC;
    for (kind, target, flags, data) in [
        ("proc", "/proc", bare, Some(c"hidepid=2")),
        ("sysfs", "/sys", bare, None),
        ("devtmpfs", "/dev", devices, None),
        ("tmpfs", "/run", bare, Some(c"mode=755,size=16m")),
        ("tmpfs", "/tmp", bare, Some(c"mode=1777,size=8m")),
        ("bpf", "/sys/fs/bpf", bare, Some(c"mode=700")),
    ] {
        match mount(kind, target, kind, flags, data) {
            // The kernel mounts /dev by itself where it was built to.
            Ok(()) | Err(Errno::BUSY) => {}
            Err(error) => say!("{target} cannot be mounted: {error}"),
        }
    }
}

/// Hides the kernel's own types (BTF). The loader of steering reads all of them, which takes some 20 MB, and the
/// programs name none.
pub fn hide_types() {
    const TYPES: &str = "/sys/kernel/btf";
    let bare = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    if Path::new(TYPES).is_dir()
        && let Err(error) = mount("none", TYPES, "tmpfs", bare, None)
    {
        say!("{TYPES} cannot be hidden: {error}");
    }
}

/// Mounts the firmware's variables, where the machine was started by UEFI.
pub fn firmware() {
    if Path::new("/sys/firmware/efi/efivars").is_dir() {
        let bare = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        if let Err(error) = mount(
            "efivarfs",
            "/sys/firmware/efi/efivars",
            "efivarfs",
            bare,
            None,
        ) && error != Errno::BUSY
        {
            say!("the firmware's variables cannot be read: {error}");
        }
    }
}

/// Mounts memory that only root and clinch may look into, once.
pub fn memory(target: &str) -> Result<(), Errno> {
    if is_mounted(target) {
        return Ok(());
    }
    let bare = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    std::fs::create_dir_all(target).map_err(|_| Errno::IO)?;
    mount(
        "tmpfs",
        target,
        "tmpfs",
        bare,
        Some(c"mode=755,size=16m,noswap"),
    )
}

fn is_mounted(target: &str) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(target))
}

/// Mounts a block device at `target`.
pub fn device(
    device: &Path,
    target: &str,
    kind: &str,
    read_only: bool,
) -> Result<(), rustix::io::Errno> {
    let mut flags =
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    if read_only {
        flags |= MountFlags::RDONLY;
    }
    let data = match kind {
        // A crash replays the journal; a damaged file system stops being written.
        "ext4" => Some(c"errors=remount-ro,data=ordered"),
        "vfat" => Some(c"umask=0077,iocharset=ascii"),
        _ => None,
    };
    mount(device, target, kind, flags, data)
}

/// Writes everything out and takes a mount away; it is detached where something still uses it.
pub fn release(target: &str) {
    rustix::fs::sync();
    if unmount(target, UnmountFlags::empty()).is_err() {
        let _ = unmount(target, UnmountFlags::DETACH);
    }
}
