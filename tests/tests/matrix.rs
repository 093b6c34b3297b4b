//! The misbehaviour matrix in small: a few faults at clinch and at nginx, with the faults of the way
//! to the responder, which need namespaces, at clinch. `make matrix` runs all of it.

use std::process::Command;

use clinch_tests::peers::{Said, run};
use clinch_tests::process::binary;
use clinch_tests::skip;

/// Runs the matrix of the tests' clinch.
fn matrix(arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_clinch-matrix"))
        .arg("--no-record")
        .args(["--fault-seconds", "3"])
        .args(arguments)
        .env("CLINCH_BIN", binary())
        .output()
        .expect("our own program runs");
    let text = [output.stdout, output.stderr].concat();
    Said {
        code: output.status.code(),
        text: String::from_utf8_lossy(&text).into_owned(),
    }
}

fn namespaces() -> bool {
    run("unshare", &["--mount", "--net", "--pid", "--fork", "true"]).code == Some(0)
}

#[test]
fn a_fault_that_nginx_staples_is_found_and_clinch_does_not_staple_it() {
    if !namespaces() {
        skip!("namespaces cannot be made here, in which the matrix runs");
    }
    if !std::path::Path::new("/usr/sbin/nginx").exists() {
        skip!("nginx is not installed");
    }
    let servers = ["--server", "clinch", "--server", "nginx"];
    let faults = ["--fault", "delegate of another CA", "--fault", "good twice"];
    let bound = ["--recovery-seconds", "5"];
    let said = matrix(&[&servers[..], &faults, &bound].concat());
    assert_eq!(said.code, Some(0), "{}", said.text);
    let row = |fault: &str| {
        let start = format!("| {fault} |");
        let row = said.text.lines().find(|line| line.starts_with(&start));
        row.unwrap_or_else(|| panic!("no {fault} in {}", said.text))
    };
    let bad = row("delegate of another CA");
    assert!(
        bad.contains("| none") && bad.contains("**wrong: signer not authorised**"),
        "{bad}"
    );
    let twice = row("good twice");
    assert!(twice.contains("| right |"), "{twice}");
}

#[test]
fn what_is_wrong_with_the_way_to_the_responder_makes_no_staple_wrong_and_stalls_nothing() {
    if !namespaces() {
        skip!("namespaces cannot be made here, in which the matrix runs");
    }
    let faults = ["--fault", "DNS", "--fault", "black hole", "--fault", "slow"];
    let bound = ["--recovery-seconds", "20"];
    // Fails by itself where a staple is wrong or a handshake stalls.
    let said = matrix(&[&["--server", "clinch"], &faults[..], &bound].concat());
    assert_eq!(said.code, Some(0), "{}", said.text);
    said.has("| IPv6 black hole beside a good IPv4 address | right |")
        .has("| DNS: no such name | none; ")
        .lacks("> 20 s");
}
