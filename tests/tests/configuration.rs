//! An operator's mistakes: `clinch check` and `clinch run` refuse each with its cause, and nothing listens.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, SystemTime};

use clinch::cli::demo::authority::LeafSpec;
use clinch_tests::backend::Backend;
use clinch_tests::peers::{self, present};
use clinch_tests::process::{Clinch, Start, clinch};
use clinch_tests::setup::{Files, Setup, set_mode};
use clinch_tests::{PROMPT, skip};

const DAY: Duration = Duration::from_secs(86_400);

/// Asserts that this configuration is refused by `check` and by `run`, both naming all of `words`.
#[track_caller]
fn refused(setup: &Setup, words: &[&str]) {
    let config = setup.write_config();
    let checked = clinch(&["check", "-c", config.to_str().expect("UTF-8")]);
    assert_ne!(checked.code, Some(0), "check takes it:\n{}", checked.text);
    let how = Start {
        impatient: true,
        ..Start::default()
    };
    let mut run = Clinch::start(&config, &setup.admin_path(), &how);
    let status = run.wait(PROMPT);
    assert!(!status.success(), "run takes it:\n{}", run.log());
    for (command, text) in [("check", checked.text), ("run", run.log())] {
        assert!(!text.contains("panicked"), "{command}:\n{text}");
        for word in words {
            let (text, word) = (text.to_lowercase(), word.to_lowercase());
            assert!(
                text.contains(&word),
                "{command} does not name {word:?}:\n{text}"
            );
        }
    }
    TcpStream::connect(setup.address).expect_err("nothing listens");
}

/// A setup with one site of these PEM texts.
fn with_pem(chain: &str, key: &str) -> (Setup, Files) {
    let mut setup = Setup::new();
    let files = setup.write_pem(chain, key);
    setup.site_of(&["a.example"], &files, &["127.0.0.1:1"], "");
    (setup, files)
}

#[test]
fn a_sound_configuration_passes_the_check() {
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let config = setup.write_config();
    let said = clinch(&["check", "-c", config.to_str().expect("UTF-8")]);
    assert_eq!(said.code, Some(0), "{}", said.text);
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let setup = Setup::new();
    let one = setup
        .authority
        .issue(&setup.leaf("a.example"))
        .expect("sound");
    let other = setup
        .authority
        .issue(&setup.leaf("a.example"))
        .expect("sound");
    let (setup, files) = with_pem(&one.chain_pem, &other.key_pem);
    refused(&setup, &[files.key.to_str().expect("UTF-8"), "key"]);
}

#[test]
fn an_expired_certificate_is_refused_or_named_by_the_check() {
    let setup = Setup::new();
    let now = SystemTime::now();
    let spec = LeafSpec {
        validity: Some((now - DAY * 30, now - DAY)),
        ..setup.leaf("a.example")
    };
    let issued = setup.authority.issue(&spec).expect("sound");
    let (setup, _) = with_pem(&issued.chain_pem, &issued.key_pem);
    let config = setup.write_config();
    let said = clinch(&["check", "-c", config.to_str().expect("UTF-8")]);
    assert!(
        said.text.contains("expired") || said.text.contains("ran out"),
        "{}",
        said.text
    );
}

#[test]
fn a_chain_without_the_issuer_is_explained() {
    let mut setup = Setup::new();
    let echo = Backend::echo();
    let issued = setup
        .authority
        .issue(&setup.leaf("a.example"))
        .expect("sound");
    let leaf_alone = issued
        .chain_pem
        .split_inclusive("-----END CERTIFICATE-----\n")
        .next();
    let files = setup.write_pem(leaf_alone.expect("a leaf"), &issued.key_pem);
    setup.site_of(&["a.example"], &files, &[echo.written()], "");
    let config = setup.write_config();
    let said = clinch(&["check", "-c", config.to_str().expect("UTF-8")]);
    let text = said.text.to_lowercase();
    assert!(
        text.contains("issuer") || text.contains("chain"),
        "{}",
        said.text
    );
}

#[test]
fn a_chain_in_the_wrong_order_is_refused_with_the_right_one() {
    let setup = Setup::new();
    let issued = setup
        .authority
        .issue(&setup.leaf("a.example"))
        .expect("sound");
    let mut parts: Vec<&str> = issued
        .chain_pem
        .split_inclusive("-----END CERTIFICATE-----\n")
        .collect();
    parts.reverse();
    let (setup, files) = with_pem(&parts.concat(), &issued.key_pem);
    refused(&setup, &[files.cert.to_str().expect("UTF-8"), "order"]);
}

#[test]
fn an_encrypted_key_is_refused_with_the_remedy() {
    if !present("openssl") {
        skip!("openssl is not installed");
    }
    let setup = Setup::new();
    let issued = setup
        .authority
        .issue(&setup.leaf("a.example"))
        .expect("sound");
    let (setup, files) = with_pem(&issued.chain_pem, &issued.key_pem);
    let key = files.key.to_str().expect("UTF-8");
    let hidden = format!("{key}.encrypted");
    let arguments = [
        "pkcs8",
        "-topk8",
        "-in",
        key,
        "-out",
        &hidden,
        "-passout",
        "pass:secret",
    ];
    peers::run("openssl", &arguments).lacks("rror");
    std::fs::rename(&hidden, key).expect("our own file");
    set_mode(&files.key, 0o600);
    refused(&setup, &[key, "encrypted"]);
}

#[test]
fn a_key_that_others_may_read_is_refused_with_the_mode() {
    for mode in [0o644, 0o640, 0o604] {
        let setup = Setup::new();
        let issued = setup
            .authority
            .issue(&setup.leaf("a.example"))
            .expect("sound");
        let (setup, files) = with_pem(&issued.chain_pem, &issued.key_pem);
        set_mode(&files.key, mode);
        refused(
            &setup,
            &[
                files.key.to_str().expect("UTF-8"),
                &format!("{mode:o}"),
                "600",
            ],
        );
    }
}

#[test]
fn files_that_are_missing_or_hold_something_else_are_named() {
    let setup = Setup::new();
    let issued = setup
        .authority
        .issue(&setup.leaf("a.example"))
        .expect("sound");
    let (setup, files) = with_pem(&issued.chain_pem, &issued.key_pem);
    let cert = files.cert.to_str().expect("UTF-8");
    std::fs::write(&files.cert, "").expect("our own file");
    refused(&setup, &[cert]);
    std::fs::write(&files.cert, [0xff; 100]).expect("our own file");
    refused(&setup, &[cert]);
    std::fs::remove_file(&files.cert).expect("our own file");
    refused(&setup, &[cert, "exist"]);
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one() {
    let echo = Backend::echo();
    let (mut setup, _) = Setup::with_site("a.example", echo.written());
    setup.timeouts.push_str("handshaek = \"5s\"\n");
    let text = setup.text();
    let line = 1 + text
        .lines()
        .position(|line| line.starts_with("handshaek"))
        .expect("there");
    refused(&setup, &["handshaek", &format!("{line}"), "`handshake`"]);
}

#[test]
fn a_value_out_of_range_is_refused_with_the_range() {
    let echo = Backend::echo();
    let (mut setup, _) = Setup::with_site("a.example", echo.written());
    setup.listen = "tickets = 99\n".to_owned();
    refused(&setup, &["tickets", "8"]);
}

#[test]
fn a_name_that_two_sites_have_is_refused() {
    let echo = Backend::echo();
    let (mut setup, _) = Setup::with_site("a.example", echo.written());
    setup.site("A.Example", echo.written(), "");
    refused(&setup, &["a.example"]);
}

#[test]
fn an_address_in_use_is_named() {
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let holder = TcpListener::bind(setup.address).expect("ours");
    let config = setup.write_config();
    let how = Start {
        impatient: true,
        ..Start::default()
    };
    let mut run = Clinch::start(&config, &setup.admin_path(), &how);
    assert!(!run.wait(PROMPT).success());
    let log = run.log();
    assert!(log.contains(&setup.address.to_string()), "{log}");
    assert!(log.contains("in use") || log.contains("listens"), "{log}");
    drop(holder);
    // The address is free again, and so is the admin socket.
    let clinch = setup.start();
    setup.connect("a.example").echo(b"serving");
    clinch.stop();
}

#[test]
fn a_file_that_is_no_toml_is_refused_with_its_line() {
    let mut setup = Setup::new();
    setup.tables = "[[site]\nnames = 3\n".to_owned();
    refused(&setup, &["clinch.toml"]);
}
