//! The files of `packaging/`, judged by systemd's own tools where they are installed.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::{Command, Output};
use std::{fs, thread};

use clinch::cli::demo::authority::LeafSpec;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use super::place::{Place, eventually};

#[test]
fn systemd_finds_no_fault_with_the_units_and_little_exposure() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let drop_in = "clinch.service.d/separate-egress.conf";
    for with_drop_in in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        // It looks for the program and the manual page; neither is installed here.
        let unit = fs::read_to_string(packaging.join("clinch.service")).expect("readable");
        let unit = unit
            .replace("/usr/bin/clinch", env!("CARGO_BIN_EXE_clinch"))
            .replace("Documentation=man:clinch(1)\n", "");
        fs::write(at("clinch.service"), unit).expect("written");
        fs::copy(packaging.join("clinch.socket"), at("clinch.socket")).expect("copied");
        if with_drop_in {
            fs::create_dir(at("clinch.service.d")).expect("ours");
            fs::copy(packaging.join(drop_in), at(drop_in)).expect("copied");
        }
        let Some(verified) = analyze(&["verify"], directory.path()) else {
            eprintln!("SKIPPED systemd_finds_no_fault_with_the_units: no systemd-analyze");
            return;
        };
        assert!(verified.status.success(), "{}", text(&verified));
        assert_eq!(text(&verified), "", "not even a warning");
        let threshold = ["security", "--offline=true", "--threshold=30", "--no-pager"];
        let judged = analyze(&threshold, directory.path()).expect("it was there just now");
        assert!(judged.status.success(), "{}", text(&judged));
    }
}

#[test]
fn systemd_finds_no_fault_with_the_unit_of_the_firewall_and_little_exposure() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let drop_in = "clinch-firewall.service.d/iptables.conf";
    for with_drop_in in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let unit = fs::read_to_string(packaging.join("clinch-firewall.service"));
        let unit = unit
            .expect("readable")
            .replace("/usr/bin/clinch", env!("CARGO_BIN_EXE_clinch"))
            .replace("Documentation=man:clinch(1)\n", "")
            .replace("Before=clinch.service\n", "");
        // By the name that `analyze` looks for.
        fs::write(at("clinch.service"), unit).expect("written");
        if with_drop_in {
            fs::create_dir(at("clinch.service.d")).expect("ours");
            let to = at("clinch.service.d/iptables.conf");
            fs::copy(packaging.join(drop_in), to).expect("copied");
        }
        let Some(verified) = analyze(&["verify"], directory.path()) else {
            eprintln!("SKIPPED systemd_finds_no_fault_with_the_unit: no systemd-analyze");
            return;
        };
        assert!(verified.status.success(), "{}", text(&verified));
        assert_eq!(text(&verified), "", "not even a warning");
        let threshold = ["security", "--offline=true", "--threshold=30", "--no-pager"];
        let judged = analyze(&threshold, directory.path()).expect("it was there just now");
        assert!(judged.status.success(), "{}", text(&judged));
    }
}

fn analyze(arguments: &[&str], directory: &Path) -> Option<Output> {
    Command::new("systemd-analyze")
        .args(arguments)
        .arg(directory.join("clinch.service"))
        .output()
        .ok()
}

fn text(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    text
}

#[test]
fn the_system_calls_of_the_unit_let_the_egress_process_resolve_and_confine_itself() {
    let Some(filter) = filter_of_the_unit() else {
        eprintln!(
            "SKIPPED the_system_calls_of_the_unit: no systemd-analyze, or no <asm/unistd_64.h>"
        );
        return;
    };
    let mut place = Place::with_leaf(LeafSpec {
        // Nobody listens there: that it says so shows that the name was looked up.
        ocsp_urls: vec!["http://localhost:1/".to_owned()],
        ..LeafSpec::default()
    });
    place.tables = "[log]\nlevel = \"debug\"\n".to_owned();
    let log = thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).expect("allowed");
        seccompiler::apply_filter(&filter).expect("the kernel takes it");
        let running = place.start();
        running.connect();
        eventually("the responder was asked", || {
            place.log().contains("ocsp_failed").then_some(())
        });
        place.log()
    });
    let log = log.join().expect("as it should be");
    assert!(log.contains("cannot connect to localhost:1"), "{log}");
    assert!(!log.contains("egress_unconfined"), "{log}");
}

/// What `SystemCallFilter` of the unit leaves, as systemd builds it: the first line says what is
/// allowed, a line with `~` takes away, a later one adds.
fn filter_of_the_unit() -> Option<BpfProgram> {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/clinch.service");
    let unit = fs::read_to_string(unit).expect("readable");
    let header = fs::read_to_string("/usr/include/x86_64-linux-gnu/asm/unistd_64.h").ok()?;
    let numbers: HashMap<&str, i64> = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define __NR_")?.split_once(' '))
        .filter_map(|(name, number)| Some((name, number.trim().parse().ok()?)))
        .collect();
    let mut allowed = BTreeMap::new();
    let lines = unit.lines();
    for line in lines.filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (taken, names) = match line.strip_prefix('~') {
            Some(names) => (true, names),
            None => (false, line),
        };
        for name in names.split(' ') {
            for call in calls(name)? {
                // A name of another architecture has no number here.
                let Some(&number) = numbers.get(&call[..]) else {
                    continue;
                };
                match taken {
                    true => drop(allowed.remove(&number)),
                    false => drop(allowed.insert(number, Vec::new())),
                }
            }
        }
    }
    let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(allowed, denied, SeccompAction::Allow, TargetArch::x86_64);
    filter.expect("sound").try_into().ok()
}

/// The system calls that a name, or a group of names, stands for.
fn calls(name: &str) -> Option<Vec<String>> {
    if !name.starts_with('@') {
        return Some(vec![name.to_owned()]);
    }
    let listed = Command::new("systemd-analyze")
        .args(["syscall-filter", name])
        .output()
        .ok()?;
    let mut calls = Vec::new();
    let listed = text(&listed);
    let names = listed.lines().skip(1).map(str::trim);
    for inner in names.filter(|name| !name.is_empty() && !name.starts_with('#')) {
        calls.extend(self::calls(inner)?);
    }
    Some(calls)
}
