//! Whatever the responder does, clinch serves, staples nothing wrong, and counts and names the reason.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clinch_tests::backend::Backend;
use clinch_tests::peers::{self, present};
use clinch_tests::process::Clinch;
use clinch_tests::responder::{Answer, Mode, ODD, STUCK, WRONG};
use clinch_tests::setup::{Setup, assert_stapled};
use clinch_tests::{eventually, skip};

const FETCHES: &str = "clinch_ocsp_fetches_total";

/// Starts clinch against one misbehaviour and checks what clients and operators see.
fn outlive(name: &str, mode: &Mode, result: &str) {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    setup.timeouts.push_str("startup_wait = \"2s\"\n");
    let issued = setup.site("a.example", echo.written(), "");
    setup.responder.set(match mode {
        Mode::Redirects(_) => Mode::Redirects(setup.url.clone()),
        other => other.clone(),
    });
    let clinch = setup.start();
    let outcome = setup.client().connect(setup.address, "a.example");
    if result == "revoked" {
        outcome
            .err()
            .unwrap_or_else(|| panic!("{name}: a revoked certificate was served"));
        let reason = ["reason=\"revoked\""];
        clinch.wait_for_count("clinch_handshake_failures_total", &reason, 1.0);
    } else {
        let mut session = outcome.unwrap_or_else(|error| panic!("{name}: handshake: {error}"));
        assert_eq!(session.staple, None, "{name}: something was stapled");
        session.echo(b"served all the same");
    }
    clinch.wait_for_count(FETCHES, &[&format!("result=\"{result}\"")], 1.0);
    assert_eq!(clinch.count(FETCHES, &["result=\"good\""]), 0.0, "{name}");
    let certificate = &clinch.status()["control"]["certificates"][0];
    let error = certificate["last_error"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(
        error.len() > 10,
        "{name}: the status says nothing: {certificate}"
    );
    if result == "revoked" {
        // So that a restart knows of it.
        eventually("the revocation is kept", clinch_tests::PROMPT, || {
            (std::fs::read_dir(setup.cache()).ok()?.count() == 1).then_some(())
        });
    } else {
        let cached = std::fs::read_dir(setup.cache()).expect("readable").count();
        assert_eq!(cached, 0, "{name}: something was cached");
    }

    setup.responder.says(Answer::Good);
    if result != "revoked" {
        let session = setup.connect("a.example");
        if session.staple.is_some() {
            assert_stapled(&session, &issued);
        }
    }
    clinch.stop();
}

#[test]
fn no_wrong_answer_is_ever_stapled() {
    // A process each; a few at a time, since they mostly wait.
    for some in WRONG.chunks(10) {
        std::thread::scope(|scope| {
            for (name, mode, result) in some {
                scope.spawn(move || outlive(name, mode, result));
            }
        });
    }
}

#[test]
fn a_responder_that_does_not_come_to_an_end_is_left_at_the_deadline() {
    std::thread::scope(|scope| {
        for (name, mode) in STUCK {
            scope.spawn(move || outlive(name, mode, "timed_out"));
        }
    });
}

#[test]
fn what_is_odd_and_right_is_stapled() {
    std::thread::scope(|scope| {
        for (name, mode) in ODD {
            scope.spawn(move || {
                let echo = Backend::echo();
                let (setup, issued) = Setup::with_site("a.example", echo.written());
                setup.responder.set(mode.clone());
                let clinch = setup.start();
                let session = setup.connect("a.example");
                assert!(session.staple.is_some(), "{name}: not stapled");
                assert_stapled(&session, &issued);
                clinch.stop();
            });
        }
    });
}

#[test]
fn a_good_staple_outlives_a_responder_that_goes_wrong() {
    let echo = Backend::echo();
    let (setup, issued) = Setup::with_site("a.example", echo.written());
    setup
        .responder
        .says(Answer::GoodFor(Duration::from_secs(12)));
    let clinch = setup.start();
    setup.responder.says(Answer::WrongSerial);
    // The refresh is due well before the 12 seconds are over.
    clinch.wait_for_count(FETCHES, &["result=\"refused\""], 1.0);
    assert_stapled(&setup.connect("a.example"), &issued);
    clinch.stop();
}

#[test]
fn a_certificate_that_is_revoked_later_is_no_longer_served() {
    let echo = Backend::echo();
    let (setup, issued) = Setup::with_site("a.example", echo.written());
    setup
        .responder
        .says(Answer::GoodFor(Duration::from_secs(12)));
    let clinch = setup.start();
    assert_stapled(&setup.connect("a.example"), &issued);
    setup.responder.says(Answer::Revoked);
    clinch.wait_for_count(FETCHES, &["result=\"revoked\""], 1.0);
    eventually("it is refused", clinch_tests::PROMPT, || {
        setup.client().connect(setup.address, "a.example").err()
    });
    clinch.stop();
}

#[test]
fn after_a_restart_with_the_responder_down_the_first_handshake_is_stapled_from_the_cache() {
    let echo = Backend::echo();
    let (setup, issued) = Setup::with_site("a.example", echo.written());
    setup.start().stop();
    setup.responder.set(Mode::Refused);
    let clinch = setup.start();
    assert_stapled(&setup.connect("a.example"), &issued);
    let metrics = clinch.metrics();
    assert_eq!(metrics.sum("clinch_ocsp_cache_loads_total", &[]), 1.0);
    clinch.wait_for_count("clinch_staplings_total", &["result=\"stapled\""], 1.0);
    clinch.stop();
}

#[test]
fn a_crash_loses_no_staple_from_the_cache() {
    let echo = Backend::echo();
    let (setup, issued) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    clinch.wait_for_count("clinch_ocsp_cache_writes_total", &[], 1.0);
    clinch.crash();
    setup.responder.set(Mode::Refused);
    let clinch = setup.start();
    assert_stapled(&setup.connect("a.example"), &issued);
    clinch.stop();
}

#[test]
fn a_corrupted_cache_entry_is_not_stapled_but_counted() {
    for spoil in [flip_last_byte, truncate, replace_by_text] {
        let echo = Backend::echo();
        let (setup, _) = Setup::with_site("a.example", echo.written());
        // Signed by the issuer: the last byte of the response is the signature's.
        setup.responder.says(Answer::GoodByIssuer);
        setup.start().stop();
        for entry in entries(&setup.cache()) {
            spoil(&entry);
        }
        setup.responder.set(Mode::Refused);
        let clinch = setup.start();
        assert_eq!(setup.connect("a.example").staple, None);
        let metrics = clinch.metrics();
        assert_eq!(metrics.sum("clinch_ocsp_cache_refusals_total", &[]), 1.0);
        assert_eq!(metrics.sum("clinch_ocsp_cache_loads_total", &[]), 0.0);
        clinch.stop();
    }
}

#[test]
fn an_expired_cache_entry_is_not_stapled() {
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    setup
        .responder
        .says(Answer::GoodFor(Duration::from_secs(3)));
    let clinch = setup.start();
    setup.responder.set(Mode::Refused);
    eventually("the staple has run out", clinch_tests::PROMPT, || {
        setup.connect("a.example").staple.is_none().then_some(())
    });
    clinch.stop();
    let clinch = setup.start();
    assert_eq!(setup.connect("a.example").staple, None);
    clinch.stop();
}

#[test]
fn a_staple_from_the_cache_of_another_certificate_is_not_taken() {
    let echo = Backend::echo();
    let (mut setup, _) = Setup::with_site("a.example", echo.written());
    setup.start().stop();
    setup.clear_sites();
    setup.site("a.example", echo.written(), "");
    setup.responder.set(Mode::Refused);
    let clinch = setup.start();
    assert_eq!(setup.connect("a.example").staple, None);
    clinch.stop();
}

#[test]
fn a_read_only_cache_directory_does_not_keep_the_staple_from_being_served() {
    cache_on("size=64k,ro");
}

#[test]
fn a_full_disk_does_not_keep_the_staple_from_being_served() {
    // One inode is the directory itself: no file can be made.
    cache_on("size=4k,nr_inodes=1");
}

fn cache_on(options: &str) {
    let echo = Backend::echo();
    let (setup, issued) = Setup::with_site("a.example", echo.written());
    let Some(_mount) = Mount::tmpfs(&setup.cache(), options) else {
        skip!("a tmpfs cannot be mounted here, which this disk is made of");
    };
    let clinch: Clinch = setup.start();
    assert_stapled(&setup.connect("a.example"), &issued);
    clinch.wait_for_count("clinch_ocsp_cache_write_failures_total", &[], 1.0);
    clinch.stop();
}

/// A mounted tmpfs, unmounted in the end.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(at: &Path, options: &str) -> Option<Self> {
        let path = at.display().to_string();
        let said = present("mount")
            .then(|| peers::run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", &path]))?;
        (said.code == Some(0)).then(|| Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        peers::run("umount", &["-l", &self.0.display().to_string()]);
    }
}

fn entries(cache: &Path) -> Vec<PathBuf> {
    let entries: Vec<_> = std::fs::read_dir(cache)
        .expect("readable")
        .map(|entry| entry.expect("readable").path())
        .collect();
    assert!(!entries.is_empty(), "nothing was cached");
    entries
}

fn flip_last_byte(entry: &Path) {
    let mut bytes = std::fs::read(entry).expect("our own file");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(entry, bytes).expect("our own file");
}

fn truncate(entry: &Path) {
    let bytes = std::fs::read(entry).expect("our own file");
    std::fs::write(entry, &bytes[..bytes.len() / 2]).expect("our own file");
}

fn replace_by_text(entry: &Path) {
    std::fs::write(entry, "not a response").expect("our own file");
}
