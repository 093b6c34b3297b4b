//! Every way in which a machine starts, each up to a stapled handshake.

use std::fs;

use clinch_tests::appliance::disks::{self, Refused};
use clinch_tests::appliance::http::{HttpServer, boot_next};
use clinch_tests::appliance::{Firmware, Machine, Parts, Place, image, record};
use clinch_tests::responder::Mode;

#[test]
fn a_fresh_machine_serves_closed_and_a_restart_needs_no_responder() {
    let place = Place::new();
    let (state, volume) = (place.state(), place.volume());
    let mut machine = Machine::start(&place.parts(&[&state, &volume]));
    record("direct", machine.says("init: proved:"));
    place.assert_serves_closed(&mut machine);

    // With the responder gone and the volume taken away, the state partition has it all.
    machine.press_power();
    machine.assert_sound();
    place.responder.set(Mode::Refused);
    let asked = place.responder.count();
    let mut machine = Machine::start(&place.parts(&[&state]));
    machine.says("init: proved:");
    place.assert_stapled();
    assert_eq!(place.responder.count(), asked);
}

#[test]
fn a_machine_of_128_mib_serves_and_steers() {
    let place = Place::new();
    let (state, volume) = (place.state(), place.volume());
    let mut machine = Machine::start(&Parts {
        memory: 128,
        ..place.parts(&[&state, &volume])
    });
    record("direct, 128 MiB", machine.says("init: proved:"));
    machine.says("steering kernel");
    place.assert_stapled();
    machine.press_power();
    machine.assert_sound();
}

#[test]
fn bios_boots_in_128_mib_and_serves_on_an_e1000e() {
    let place = Place::new();
    let disk = disks::copy("clinch-bios.img", place.dir.path());
    let volume = place.volume();
    let mut machine = Machine::start(&Parts {
        firmware: Firmware::Bios,
        card: "e1000e",
        memory: 128,
        ..place.parts(&[&disk, &volume])
    });
    record("BIOS", machine.says("init: proved:"));
    place.assert_stapled();
}

#[test]
fn secure_boot_takes_the_signed_system_and_no_other() {
    let place = Place::new();
    let disk = disks::copy("clinch-uefi.img", place.dir.path());
    let volume = place.volume();
    let variables = disks::variables(place.dir.path());
    disks::enrol_keys_at_boot(&disk);
    let parts = Parts {
        firmware: Firmware::SecureUefi(variables),
        ..place.parts(&[&disk, &volume])
    };
    let mut machine = Machine::start(&parts);
    machine.says("init: proved:");
    place.assert_stapled();
    machine.says("secure boot on, lockdown integrity, modules locked");
    machine.press_power();
    // Again, without the enrolling: this is the time of a boot.
    let mut machine = Machine::start(&parts);
    record("UEFI, Secure Boot", machine.says("init: proved:"));
    machine.press_power();

    for bad in [Refused::Unsigned, Refused::Tampered] {
        disks::put_system(&disk, &disks::bad_system(bad, place.dir.path()));
        let mut machine = Machine::start(&parts);
        machine.says("Access Denied");
        assert!(!machine.said().contains("init:"), "{}", machine.said());
    }
}

#[test]
fn a_machine_without_a_system_on_disk_starts_from_the_network() {
    let place = Place::new();
    let (state, volume) = (place.state(), place.volume());
    let folder = place.dir.path().join("tftp");
    fs::create_dir(&folder).expect("in our own directory");
    for name in ["vmlinuz", "initrd", "boot.ipxe"] {
        fs::copy(image().join("pxe").join(name), folder.join(name)).expect("make image was run");
    }
    let mut machine = Machine::start(&Parts {
        firmware: Firmware::Network(folder, "boot.ipxe"),
        ..place.parts(&[&state, &volume])
    });
    record("PXE, iPXE over TFTP", machine.says("init: proved:"));
    place.assert_stapled();
}

#[test]
fn the_signed_system_starts_from_the_network_under_uefi() {
    let place = Place::new();
    let (state, volume) = (place.state(), place.volume());
    let folder = place.dir.path().join("tftp");
    fs::create_dir(&folder).expect("in our own directory");
    fs::copy(image().join("clinch.efi"), folder.join("clinch.efi")).expect("make image was run");
    let mut machine = Machine::start(&Parts {
        firmware: Firmware::SecureNetwork(disks::variables(place.dir.path()), folder, "clinch.efi"),
        ..place.parts(&[&state, &volume])
    });
    record("PXE, UEFI over TFTP", machine.says("init: proved:"));
    place.assert_stapled();
}

#[test]
fn firmware_starts_the_signed_system_over_http() {
    let place = Place::new();
    let (state, volume) = (place.state(), place.volume());
    let server = HttpServer::start(&image().join("clinch.efi"));
    let variables = disks::variables(place.dir.path());
    boot_next(&variables, &server.url);
    let mut machine = Machine::start(&Parts {
        firmware: Firmware::Uefi(variables),
        ..place.parts(&[&state, &volume])
    });
    record("HTTP, UEFI", machine.says("init: proved:"));
    place.assert_stapled();
    assert_eq!(server.sent(), 1);
}
