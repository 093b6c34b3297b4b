//! The plug pulled while staples are being written: what was on disk is there, and nothing is damaged.

use std::path::Path;
use std::process::Command;

use clinch_tests::appliance::{HOST, Machine, Place, disks};
use clinch_tests::responder::{Answer, Mode};

#[test]
fn a_power_cut_while_the_cache_is_written_damages_nothing_and_what_was_written_is_used() {
    let place = Place::new();
    let responder = format!("{HOST}:{}", place.responder.port());
    for number in 0..SITES {
        place.add_site(&format!("s{number}.test"), &responder);
    }
    for moment in MOMENTS {
        place.responder.set(Mode::Says(Answer::Good));
        // A machine that has its configuration, and an empty cache.
        let state = disks::state_with(&place.config(), place.dir.path());
        let mut machine = Machine::start(&place.parts(&[&state]));
        machine.says_times("ocsp_cached", moment);
        machine.cut_power();

        assert!(disks::is_whole(&state), "after a cut at {moment}");
        let written = complete(&state);
        eprintln!("cut at {moment} staples, {written} of them written");
        // Staples wait for the disk, which takes them one by one: those that wait are lost.
        assert!(written > 0 || moment == MOMENTS[0], "none of {moment}");
        place.responder.set(Mode::Refused);
        let mut machine = Machine::start(&place.parts(&[&state]));
        machine.says("clinch serves");
        let said = machine.said();
        assert_eq!(said.matches("cache_used").count(), written, "{said}");
        assert!(!said.contains("cache_refused"), "{said}");
        machine.assert_sound();
    }
}

/// How many staples lie in the cache under their own names.
fn complete(state: &Path) -> usize {
    let said = Command::new("debugfs")
        .args(["-R", "ls -p /cache"])
        .arg(state)
        .output()
        .expect("debugfs is there");
    let text = String::from_utf8_lossy(&said.stdout);
    text.lines().filter(|line| line.contains(".ocsp/")).count()
}

/// Sites besides those of every place.
const SITES: usize = 30;
/// How many staples have come when the plug is pulled.
const MOMENTS: [usize; 3] = [1, 8, 25];
