//! What the process may still do once it serves.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::place::{Place, ask, is_root};

const NOBODY: u32 = 65534;

#[test]
fn root_is_given_up_for_good_by_every_thread_and_the_site_is_served() {
    if !is_root("root_is_given_up_for_good") {
        return;
    }
    let mut place = Place::new();
    place.top += "user = \"nobody:nogroup\"\n";
    place.give_key_to(NOBODY);
    let running = place.start();
    let four = format!("{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}");
    assert_eq!(running.proc_status("Uid"), four);
    assert_eq!(running.proc_status("Gid"), four);
    assert_eq!(running.proc_status("Groups"), NOBODY.to_string());
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(running.proc_status(set), "0000000000000000", "{set}");
    }
    assert_eq!(running.proc_status("NoNewPrivs"), "1");
    running.connect();

    let cache = fs::metadata(place.path("cache")).expect("made");
    assert_eq!((cache.uid(), cache.mode() & 0o777), (NOBODY, 0o700));
    let socket = fs::metadata(place.admin()).expect("there");
    assert_eq!((socket.uid(), socket.mode() & 0o777), (NOBODY, 0o600));
    assert!(
        !place.log().contains("cannot be read any more"),
        "{}",
        place.log()
    );
}

#[test]
fn keys_that_only_root_can_read_are_served_and_warned_about() {
    if !is_root("keys_that_only_root_can_read") {
        return;
    }
    let mut place = Place::new();
    place.top += "user = \"nobody\"\n";
    let running = place.start();
    running.connect();
    let log = place.log();
    assert!(log.contains("files cannot be read any more"), "{log}");
    assert!(log.contains("leaf.key"), "{log}");
}

#[test]
fn there_is_no_core_file_and_every_descriptor_that_the_system_allows() {
    let place = Place::new();
    let running = place.start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", running.pid())).expect("running");
    let of = |name: &str| -> Vec<String> {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        let line = line.expect(name).split_ascii_whitespace();
        line.take(2).map(str::to_owned).collect()
    };
    assert_eq!(of("Max core file size"), ["0", "0"]);
    let files = of("Max open files");
    assert_eq!(files[0], files[1]);
    assert_eq!(running.proc_status("NoNewPrivs"), "1");
    // Not dumpable: the kernel gives the files of such a process to root.
    let environment = format!("/proc/{}/environ", running.pid());
    assert_eq!(fs::metadata(environment).expect("running").uid(), 0);
}

#[test]
fn more_connections_than_descriptors_are_refused_with_the_figure_and_the_remedy() {
    let mut place = Place::new();
    place.tables = "[limits]\nconnections_per_worker = 10000000\n".to_owned();
    let (code, said) = place.fail_to_start();
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("needs 40000224 file descriptors"), "{said}");
    assert!(said.contains("LimitNOFILE=40000224"), "{said}");
}

#[test]
fn a_user_that_does_not_exist_prevents_the_start() {
    let mut place = Place::new();
    place.top += "user = \"no-such-user\"\n";
    let (code, said) = place.fail_to_start();
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("no-such-user") && said.contains("useradd"),
        "{said}"
    );
    assert!(ask(&place.admin_listen, "GET", "/healthz").is_none());
}
