//! The plug pulled while staples are being written: what the cache had kept is there, or what took its
//! place, and nothing is damaged.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use clinch_tests::appliance::{HOST, Machine, Parts, Place, disks};
use clinch_tests::responder::{Answer, Mode};

#[test]
fn a_power_cut_while_the_first_staples_are_written_loses_none_that_was_kept() {
    let place = place();
    for moment in MOMENTS {
        place.responder.set(Mode::Says(Answer::Good));
        // A machine that has its configuration, and an empty cache.
        let state = disks::state_with(&place.config(), place.dir.path());
        let mut machine = Machine::start(&place.parts(&[&state]));
        machine.says_times("ocsp_cached", moment);
        machine.cut_power();

        assert!(disks::is_whole(&state), "after a cut at {moment}");
        let kept = kept(&machine);
        let found = cache(&state).len();
        eprintln!("cut at {moment} staples: {kept} kept, {found} found");
        assert!(found >= kept, "{}", machine.said());
        assert_starts_from_cache(&place, &state, found);
    }
}

#[test]
fn a_power_cut_while_staples_are_replaced_loses_none() {
    let place = place();
    let state = disks::state_with(&place.config(), place.dir.path());
    let mut machine = Machine::start(&place.parts(&[&state]));
    // All but the one whose responder the packet filter does not let through.
    let all = SITES + 1;
    machine.says_until("every staple on the disk", |said| kept_in(said) >= all);
    machine.cut_power();

    for moment in MOMENTS {
        assert!(disks::is_whole(&state), "before a cut at {moment}");
        let before = cache(&state);
        assert_eq!(before.len(), all);
        place.responder.set(Mode::Says(Answer::Good));
        // Responses are good for a week and due again after five days.
        let mut machine = Machine::start(&Parts {
            more: vec!["-rtc".to_owned(), format!("base={}", in_days(6))],
            ..place.parts(&[&state])
        });
        machine.says_times("ocsp_cached", moment);
        machine.cut_power();

        assert!(disks::is_whole(&state), "after a cut at {moment}");
        let after = cache(&state);
        let kept = kept(&machine);
        let replaced = after.iter().filter(|(name, der)| before[*name] != **der);
        let replaced = replaced.count();
        eprintln!("cut at {moment} of {all} staples: {kept} kept, {replaced} replaced");
        assert!(replaced >= kept, "{}", machine.said());
        assert_starts_from_cache(&place, &state, all);
    }
}

/// A place with many sites, and a machine that says what it has kept.
fn place() -> Place {
    let place = Place::new();
    let responder = format!("{HOST}:{}", place.responder.port());
    for number in 0..SITES {
        place.add_site(&format!("s{number}.test"), &responder);
    }
    place.add(
        "clinch.toml",
        "[log]\nlevel = 'info,clinch::control=debug'\n",
    );
    place
}

/// Starts a machine while the responder is down, and asserts that it takes so many staples from the cache.
#[track_caller]
fn assert_starts_from_cache(place: &Place, state: &Path, staples: usize) {
    place.responder.set(Mode::Refused);
    let mut machine = Machine::start(&place.parts(&[state]));
    machine.says("clinch serves");
    let said = machine.said();
    assert_eq!(said.matches("cache_used").count(), staples, "{said}");
    assert!(!said.contains("cache_refused"), "{said}");
    machine.assert_sound();
}

/// How many staples a machine says are on its disk.
fn kept(machine: &Machine) -> usize {
    kept_in(&machine.said())
}

fn kept_in(said: &str) -> usize {
    let lines = said.lines().filter(|line| line.contains("cache_written"));
    let files = lines.filter_map(|line| {
        let after = line.split("files=").nth(1)?;
        let digits = after.split(|other: char| !other.is_ascii_digit()).next()?;
        digits.parse::<usize>().ok()
    });
    files.sum()
}

/// The responses that lie in the cache under their own names.
fn cache(state: &Path) -> BTreeMap<String, Vec<u8>> {
    let to = tempfile::tempdir().expect("a temporary directory");
    let said = Command::new("debugfs")
        .args(["-R", &format!("rdump /cache {}", to.path().display())])
        .arg(state)
        .output()
        .expect("debugfs is there");
    let Ok(entries) = fs::read_dir(to.path().join("cache")) else {
        // The machine had not made it.
        assert!(
            String::from_utf8_lossy(&said.stderr).contains("not found"),
            "{said:?}"
        );
        return BTreeMap::new();
    };
    let paths = entries.map(|entry| entry.expect("readable").path());
    let kept = paths.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "ocsp")
    });
    let file = |path: std::path::PathBuf| {
        let name = path
            .file_name()
            .expect("a file")
            .to_string_lossy()
            .into_owned();
        (name, fs::read(&path).expect("dumped"))
    };
    kept.map(file).collect()
}

/// A time for QEMU's clock.
fn in_days(days: u32) -> String {
    let said = Command::new("date")
        .args(["-u", "-d", &format!("+{days} days"), "+%FT%T"])
        .output()
        .expect("date is there");
    String::from_utf8_lossy(&said.stdout).trim().to_owned()
}

/// Sites besides those of every place.
const SITES: usize = 30;
/// How many staples have come when the plug is pulled.
const MOMENTS: [usize; 3] = [1, 8, 25];
