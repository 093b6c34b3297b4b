//! Configurations sealed by a TPM: never on the disk as they are, opened after a boot like the one in
//! which they were sealed and after no other.

use std::fs;
use std::path::{Path, PathBuf};

use clinch_tests::appliance::disks;
use clinch_tests::appliance::tpm::Tpm;
use clinch_tests::appliance::{Firmware, Machine, Parts, Place};

#[test]
fn sealed_keys_are_opened_by_the_same_machine_under_the_same_secure_boot_alone() {
    let sealing = Sealing::new();
    let (place, disk, variables) = (&sealing.place, &sealing.disk, &sealing.variables);
    let tpm_state = place.dir.path().join("tpm");
    let parts = |with_volume: bool, variables: &Path, tpm: Option<&Tpm>| Parts {
        firmware: Firmware::SecureUefi(variables.to_owned()),
        ..sealing.parts(
            with_volume,
            tpm.map_or_else(Vec::new, |tpm| tpm.devices("tpm-tis")),
        )
    };

    // Without a TPM nothing is taken, and nothing is stored openly instead.
    let mut machine = Machine::start(&parts(true, variables, None));
    machine.says("is not used: this machine has no TPM 2.0");
    machine.says("there is no configuration");
    machine.press_power();
    assert_no_key(place, disk);

    let tpm = Tpm::start(&tpm_state);
    let mut machine = Machine::start(&parts(true, variables, Some(&tpm)));
    machine.says("init: proved:");
    place.assert_stapled();
    machine.says("configuration 1 is in force");
    machine.press_power();
    drop(tpm);
    assert_no_key(place, disk);

    // Without the volume, the TPM gives the keys back.
    let tpm = Tpm::start(&tpm_state);
    let mut machine = Machine::start(&parts(false, variables, Some(&tpm)));
    machine.says("init: proved:");
    place.assert_stapled();
    machine.press_power();
    drop(tpm);

    // The disk in another machine.
    let other = Tpm::start(&place.dir.path().join("other-tpm"));
    let mut machine = Machine::start(&parts(false, variables, Some(&other)));
    machine.says("cannot be used: it was sealed by another TPM");
    machine.says("there is no configuration");
    machine.press_power();
    drop(other);

    // This machine with Secure Boot off.
    let off = disks::variables(&fresh(&place.dir.path().join("off")));
    disks::enrol_nothing_at_boot(disk);
    let tpm = Tpm::start(&tpm_state);
    let mut machine = Machine::start(&parts(false, &off, Some(&tpm)));
    machine.says("cannot be used: this machine was not started as when it was sealed");
    machine.assert_sound();
}

#[test]
fn a_tpm_behind_crb_seals_and_opens() {
    let sealing = Sealing::new();
    for with_volume in [true, false] {
        let tpm = Tpm::start(&sealing.place.dir.path().join("tpm"));
        let parts = sealing.parts(with_volume, tpm.devices("tpm-crb"));
        let mut machine = Machine::start(&parts);
        machine.says("init: proved:");
        sealing.place.assert_stapled();
        machine.press_power();
        machine.assert_sound();
    }
}

/// A place whose configuration asks for seals, and a disk whose first boot enrols the keys of the build.
struct Sealing {
    place: Place,
    disk: PathBuf,
    volume: PathBuf,
    variables: PathBuf,
}

impl Sealing {
    fn new() -> Self {
        let place = Place::new();
        place.add("machine.toml", "[keys]\nsealed = true\n");
        let disk = disks::copy("clinch-uefi.img", place.dir.path());
        disks::enrol_keys_at_boot(&disk);
        Self {
            volume: place.volume(),
            variables: disks::variables(place.dir.path()),
            disk,
            place,
        }
    }

    /// A machine with the disk, and with the volume or without.
    fn parts(&self, with_volume: bool, more: Vec<String>) -> Parts {
        let disks = [self.disk.as_path(), &self.volume];
        Parts {
            firmware: Firmware::SecureUefi(self.variables.clone()),
            more,
            ..self.place.parts(&disks[..if with_volume { 2 } else { 1 }])
        }
    }
}

fn fresh(folder: &Path) -> PathBuf {
    fs::create_dir(folder).expect("in our own directory");
    folder.to_owned()
}

/// No line of a private key is anywhere on the disk.
#[track_caller]
fn assert_no_key(place: &Place, disk: &Path) {
    let key = place.read("edge.test.key");
    let line = key.lines().nth(1).expect("a PEM file");
    let found = std::process::Command::new("grep")
        .args(["--quiet", "--text", "--fixed-strings", line])
        .arg(disk)
        .status()
        .expect("grep is there");
    assert_eq!(found.code(), Some(1), "a private key is on the disk");
}
