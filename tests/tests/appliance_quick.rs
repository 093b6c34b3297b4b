//! The appliance in its quick form, booted once: a kernel given directly to QEMU, with the init and the
//! clinch of this build. `make image-test` boots the image itself, in every way that it has.

use clinch_tests::appliance::{Machine, Parts, Place, quick};
use clinch_tests::{peers, skip};

#[test]
fn a_machine_boots_serves_a_stapled_handshake_and_is_closed_otherwise() {
    for program in ["qemu-system-x86_64", "mke2fs", "mcopy", "zstd", "cpio"] {
        if !peers::present(program) {
            skip!("no {program}: `tests/bootstrap.sh image-quick` installs it");
        }
    }
    if let Err(reason) = quick::build() {
        skip!("{reason}");
    }
    let place = Place::new();
    let (state, volume) = (place.state(), place.volume());
    let mut machine = Machine::start(&Parts {
        // The binaries are those of a debug build, and the root lies in memory.
        memory: 512,
        ..place.parts(&[&state, &volume])
    });
    let proved = machine.says("init: proved:");
    eprintln!("booted in {:.1} s, emulated", proved.as_secs_f64());
    place.assert_serves_closed(&mut machine);
    machine.press_power();
    machine.assert_sound();
}
