//! Updates over the admin interface: a broken one falls back, a good one is kept, an older one and a
//! cut change nothing.

use clinch_tests::appliance::disks::{self, Init};
use clinch_tests::appliance::{Firmware, Machine, Parts, Place, operator, port, record};

#[test]
fn a_broken_update_falls_back_and_a_good_one_is_kept() {
    let place = Place::new();
    let admin = port();
    let key = place.allow_operator();
    let disk = disks::copy("clinch-uefi.img", place.dir.path());
    let volume = place.volume();
    let mut parts = Parts {
        firmware: Firmware::Uefi(disks::variables(place.dir.path())),
        // In 160 OVMF leaves the kernel no room to unpack itself.
        memory: 192,
        ..place.parts(&[&disk, &volume])
    };
    parts.forwards.push((admin, 9443));
    let mut machine = Machine::start(&parts);
    record("UEFI", machine.says("init: proved:"));
    let said = operator::command(admin, &key, &["update", "/etc/hostname"]);
    said.has("refused this is no update");

    // Its init cannot be executed, so the kernel panics, three times.
    let broken = disks::update(place.dir.path(), "9.0.0", Init::Broken);
    operator::command(admin, &key, &["update", &broken]).has("ok clinch-b_9.0.0+3.efi");
    machine.says_times("init: proved:", 2);
    let metrics = operator::command(admin, &key, &["metrics"]);
    metrics.has("clinch_build_info{").has("# EOF\n");
    let said = operator::command(admin, &key, &["status"]);
    said.has("slot clinch-a_").has("steering kernel").lacks("+");
    assert_eq!(
        machine.said().matches("Kernel panic").count(),
        3,
        "{}",
        machine.said()
    );

    let good = disks::update(place.dir.path(), "9.0.1", Init::Good);
    operator::command(admin, &key, &["update", &good]).has("ok clinch-b_9.0.1+3.efi");
    machine.says("init: blessed: clinch-b_9.0.1.efi");
    place.assert_stapled();
    operator::command(admin, &key, &["update", &broken]).has("not newer");

    // The plug is pulled while an update is being written: what ran before runs again.
    let next = disks::update(place.dir.path(), "9.0.2", Init::Good);
    let sender = std::thread::spawn(move || {
        let _ = operator::command(admin, &key, &["update", &next]);
    });
    machine.says("init: an update arrives");
    machine.cut_power();
    sender.join().expect("a sender that was cut off");
    let mut machine = Machine::start(&parts);
    machine.says("init: proved:");
    machine.says("slot clinch-b_9.0.1.efi");
    place.assert_stapled();
}
