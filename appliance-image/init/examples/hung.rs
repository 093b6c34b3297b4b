//! A PID 1 whose main loop hangs, to see the hardware watchdog act. `make image-test` puts it in the
//! place of the init; it is in no image.
#![forbid(unsafe_code)]

use std::time::Duration;

use clinch_init::modules::Modules;
use clinch_init::power::Watchdog;
use clinch_init::{mounts, say};

fn main() {
    if std::process::id() != 1 {
        eprintln!("this is the init of a test");
        std::process::exit(2);
    }
    mounts::kernel();
    Modules::of_running_kernel().coldplug();
    let watchdog = Watchdog::start();
    for _ in 0..3 {
        watchdog.beat();
        std::thread::sleep(Duration::from_secs(1));
    }
    say!("hung: the main loop beats no more");
    loop {
        std::thread::park();
    }
}
