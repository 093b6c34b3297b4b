//! A PID 1 that hangs, under the hardware watchdog.

use std::path::Path;
use std::process::Command;

use clinch_tests::appliance::{self, Firmware, Machine, Parts, image};

#[test]
fn a_hung_init_is_reset_by_the_hardware() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let initrd = with_another_init(dir.path());
    // A card of QEMU's, and the chipset's own, which is there unless it is disabled.
    let chipset = ["-global", "ICH9-LPC.noreboot=false"];
    for watchdog in [Parts::default().watchdog, chipset] {
        let mut machine = Machine::start(&Parts {
            firmware: Firmware::DirectWith(initrd.clone()),
            watchdog,
            ..Parts::default()
        });
        machine.says("hung: the main loop beats no more");
        // The hardware acts, and the machine starts again.
        machine.says_times("hung: the main loop beats no more", 2);
    }
}

/// The initrd of the image with the example `hung` as its init: an archive behind another one takes
/// the place of what is in that.
fn with_another_init(dir: &Path) -> std::path::PathBuf {
    let hung = std::env::var("CLINCH_HUNG").expect("appliance-image/test.sh sets it");
    let root = dir.join("root");
    std::fs::create_dir(&root).expect("in our own directory");
    std::fs::copy(hung, root.join("init")).expect("built by appliance-image/test.sh");
    let more = dir.join("more");
    appliance::build(
        "initrd.sh",
        &[&root.display().to_string(), &more.display().to_string()],
    );
    let initrd = dir.join("initrd");
    let script = format!(
        "cat {} {} > {}",
        image().join("pxe/initrd").display(),
        more.display(),
        initrd.display()
    );
    let made = Command::new("sh").args(["-c", &script]).status();
    assert!(made.is_ok_and(|status| status.success()), "{script}");
    initrd
}
