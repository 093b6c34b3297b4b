//! Disks, volumes, cards and watchdogs that machines of metal have, as far as QEMU has them too.

use std::path::{Path, PathBuf};
use std::process::Command;

use clinch_tests::appliance::{Firmware, Machine, Parts, Place, disks};
use clinch_tests::responder::Mode;

#[test]
fn uefi_boots_from_nvme_and_takes_its_configuration_from_a_usb_stick() {
    let place = Place::new();
    let disk = disks::copy("clinch-uefi.img", place.dir.path());
    let stick = place.volume();
    let parts = |with_stick: bool| {
        let mut more = drive("disk", &disk);
        more.extend(words("-device nvme,serial=1,drive=disk,bootindex=0"));
        if with_stick {
            more.extend(drive("stick", &stick));
            more.extend(words("-device qemu-xhci -device usb-storage,drive=stick"));
        }
        Parts {
            firmware: Firmware::Uefi(disks::variables(place.dir.path())),
            card: "e1000",
            more,
            ..place.parts(&[])
        }
    };
    serves_with_the_volume_and_without(&place, &parts(true), &parts(false));
}

#[test]
fn bios_boots_from_sata_and_takes_its_configuration_from_an_iso() {
    let place = Place::new();
    let disk = disks::copy("clinch-bios.img", place.dir.path());
    let iso = iso(&place);
    let parts = |with_iso: bool| {
        let mut more = drive("disk", &disk);
        more.extend(words("-device ide-hd,bus=ide.0,drive=disk,bootindex=0"));
        if with_iso {
            more.extend(drive("iso", &iso));
            more.extend(words("-device ide-cd,bus=ide.1,drive=iso"));
        }
        Parts {
            firmware: Firmware::Bios,
            more,
            ..place.parts(&[])
        }
    };
    serves_with_the_volume_and_without(&place, &parts(true), &parts(false));
}

#[test]
fn the_state_lies_on_scsi_and_the_configuration_comes_by_uas_or_ehci() {
    for stick in [
        "-device qemu-xhci -device usb-uas,id=uas -device scsi-hd,bus=uas.0,drive=stick",
        "-device usb-ehci -device usb-storage,drive=stick",
    ] {
        let place = Place::new();
        let (state, volume) = (place.state(), place.volume());
        let parts = |with_stick: bool| {
            let mut more = drive("disk", &state);
            more.extend(words(
                "-device virtio-scsi-pci,id=scsi -device scsi-hd,bus=scsi.0,drive=disk",
            ));
            if with_stick {
                more.extend(drive("stick", &volume));
                more.extend(words(stick));
            }
            Parts {
                more,
                ..place.parts(&[])
            }
        };
        serves_with_the_volume_and_without(&place, &parts(true), &parts(false));
    }
}

#[test]
fn sticks_that_are_plugged_into_a_machine_without_a_configuration_are_tried_until_one_is_right() {
    let place = Place::new();
    let (state, good) = (place.state(), place.volume());
    place.add("clinch.toml", "no_such_key = 1\n");
    let bad = disks::volume(&place.config(), &place.dir.path().join("bad.img"));
    let mut more = drive("bad", &bad);
    more.extend(drive("good", &good));
    more.extend(words("-device qemu-xhci"));
    let mut machine = Machine::start(&Parts {
        more,
        ..place.parts(&[&state])
    });
    machine.says("there is no configuration");
    machine.says("configuration none");
    machine.plug("bad");
    machine.says("a volume labelled CLINCH came");
    machine.says("no_such_key");
    machine.says("the one of /dev/sda was refused");
    machine.unplug("bad");
    machine.says("the volume labelled CLINCH is gone");
    machine.plug("good");
    machine.says_times("a volume labelled CLINCH came", 2);
    machine.says("init: proved:");
    place.assert_stapled();
    machine.assert_sound();
}

/// Starts from a fresh disk with a volume that brings the configuration, and then from the disk alone,
/// which has the staples as well.
#[track_caller]
fn serves_with_the_volume_and_without(place: &Place, with: &Parts, without: &Parts) {
    let mut machine = Machine::start(with);
    machine.says("init: proved:");
    place.assert_stapled();
    machine.press_power();
    machine.assert_sound();
    place.responder.set(Mode::Refused);
    let mut machine = Machine::start(without);
    machine.says("init: proved:");
    place.assert_stapled();
    machine.assert_sound();
}

/// QEMU's arguments for a medium that a device is to have.
fn drive(id: &str, medium: &Path) -> Vec<String> {
    let medium = medium.display();
    let drive = format!("id={id},if=none,format=raw,cache=writethrough,file={medium}");
    ["-drive".to_owned(), drive].to_vec()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// The configuration of a place as an ISO 9660 volume.
fn iso(place: &Place) -> PathBuf {
    let to = place.dir.path().join("volume.iso");
    let made = Command::new("xorriso")
        .args(["-as", "mkisofs", "-quiet", "-R", "-V", "CLINCH", "-o"])
        .arg(&to)
        .arg(place.config())
        .status();
    assert!(made.is_ok_and(|status| status.success()), "xorriso");
    to
}
