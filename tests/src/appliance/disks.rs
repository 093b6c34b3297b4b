//! Disks, volumes and updates for a machine, made with the scripts that make the image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{build, image, must, path};

/// Fresh variables of the firmware: no keys, so the machine is in setup mode.
pub fn variables(dir: &Path) -> PathBuf {
    let path = dir.join("vars.fd");
    fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &path).expect("the package ovmf");
    path
}

/// A volume labelled CLINCH with the files of a folder.
pub fn volume(folder: &Path, to: &Path) -> PathBuf {
    build("disk.sh", &["volume", &path(folder), &path(to)]);
    to.to_owned()
}

/// An empty state partition, as a disk of its own.
pub fn state(to: &Path) -> PathBuf {
    let mut make = Command::new("mke2fs");
    must(
        make.args(["-q", "-t", "ext4", "-L", "clinch-state"])
            .arg(to)
            .arg("64M"),
    );
    to.to_owned()
}

/// A state partition that has a configuration in force, as a disk of its own.
pub fn state_with(config: &Path, dir: &Path) -> PathBuf {
    let to = dir.join("configured.img");
    build("disk.sh", &["state", &path(config), &path(&to)]);
    to
}

/// A copy of a built disk image, to be written to.
pub fn copy(name: &str, dir: &Path) -> PathBuf {
    let to = dir.join(name);
    must(
        Command::new("cp")
            .arg("--sparse=always")
            .arg(image().join(name))
            .arg(&to),
    );
    to
}

/// Whether a file system of ours is whole, as `e2fsck` sees it once the journal is replayed.
pub fn is_whole(state: &Path) -> bool {
    // 1: what the journal held was put in place.
    let said = Command::new("e2fsck")
        .args(["-f", "-p"])
        .arg(state)
        .output();
    said.is_ok_and(|said| matches!(said.status.code(), Some(0 | 1)))
}

/// A system that the firmware must not start.
#[derive(Clone, Copy, Debug)]
pub enum Refused {
    /// Without a signature.
    Unsigned,
    /// With one that does not fit any more.
    Tampered,
}

/// Makes such a system.
pub fn bad_system(kind: Refused, dir: &Path) -> PathBuf {
    let to = dir.join("bad.efi");
    let source = match kind {
        Refused::Unsigned => "clinch.efi.unsigned",
        Refused::Tampered => "clinch.efi",
    };
    let mut bytes = fs::read(image().join(source)).expect("make image was run");
    if matches!(kind, Refused::Tampered) {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    }
    fs::write(&to, bytes).expect("in our own directory");
    to
}

/// Puts a system in place of the one in the first slot of a disk.
pub fn put_system(disk: &Path, system: &Path) {
    let name = format!("::EFI/Linux/clinch-a_{}.efi", version());
    mtools(disk, system, &name);
}

/// Has systemd-boot enrol the keys of the build at the next start, if the firmware is in setup mode.
pub fn enrol_keys_at_boot(disk: &Path) {
    enrol(disk, "force");
}

/// Has it leave the firmware alone.
pub fn enrol_nothing_at_boot(disk: &Path) {
    enrol(disk, "off");
}

fn enrol(disk: &Path, how: &str) {
    let settings = disk.with_extension("loader.conf");
    let text = format!("timeout 0\neditor no\nsecure-boot-enroll {how}\n");
    fs::write(&settings, text).expect("beside the disk");
    mtools(disk, &settings, "::loader/loader.conf");
}

fn mtools(disk: &Path, from: &Path, to: &str) {
    // The boot partition begins at 1 MiB.
    let image = format!("{}@@1M", disk.display());
    must(
        Command::new("mcopy")
            .args(["-o", "-i", &image])
            .arg(from)
            .arg(to),
    );
}

fn version() -> String {
    let text = fs::read_to_string(image().join("os-release")).expect("make image was run");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("IMAGE_VERSION="));
    line.expect("every image has a version").to_owned()
}

/// What the init of an update does.
#[derive(Clone, Copy, Debug)]
pub enum Init {
    /// What it should.
    Good,
    /// Nothing: it cannot be executed.
    Broken,
}

/// Builds an update from the root of the image, with another version, and without the largest
/// drivers, so that it is packed quickly.
pub fn update(dir: &Path, version: &str, init: Init) -> String {
    let (work, to) = (dir.join("work"), dir.join(format!("{version}.update")));
    let root = work.join("root");
    let script = format!(
        "rm -rf {work} && mkdir -p {work} && cp -r {image}/root {image}/keys {work}/ && ln -s {image}/kernel {work}/kernel && \
         rm -rf {root}/lib/modules/*/kernel/drivers/net/ethernet && \
         sed 's/VERSION_ID=.*/VERSION_ID={version}/; s/IMAGE_VERSION=.*/IMAGE_VERSION={version}/' {image}/os-release > {work}/os-release && \
         cp {work}/os-release {root}/etc/os-release",
        work = work.display(),
        root = root.display(),
        image = image().display(),
    );
    must(Command::new("sh").args(["-c", &script]));
    if matches!(init, Init::Broken) {
        fs::write(root.join("init"), "this is no program").expect("our own copy");
    }
    let system = work.join("clinch.efi");
    build(
        "initrd.sh",
        &[&path(&root), &path(&work.join("clinch.initrd"))],
    );
    build("uki.sh", &[&path(&work), &path(&system)]);
    build(
        "update.sh",
        &[&path(&work), &path(&system), version, &path(&to)],
    );
    path(&to)
}
