//! What `clinch ocsp show`, `fetch` and `explain` tell an operator about a running clinch; and that a
//! certificate without a responder is watched through its CRL.

use clinch_tests::backend::Backend;
use clinch_tests::openssl_ca::{OpensslCa, WHOLE};
use clinch_tests::peers::Said;
use clinch_tests::process::{Clinch, clinch};
use clinch_tests::responder::Answer;
use clinch_tests::setup::Setup;
use clinch_tests::{PROMPT, eventually};
use serde_json::Value;

/// Runs `clinch ocsp COMMAND` against the running one.
#[track_caller]
fn ocsp(running: &Clinch, command: &[&str]) -> Said {
    let admin = format!("unix:{}", running.admin().display());
    clinch(&[&["ocsp"], command, &["--admin", &admin]].concat())
}

#[track_caller]
fn json(said: &Said) -> Value {
    serde_json::from_str(&said.text).unwrap_or_else(|error| panic!("{error}: {}", said.text))
}

#[test]
fn an_operator_sees_what_is_stapled_and_why_and_can_ask_at_once() {
    let echo = Backend::echo();
    let (mut setup, _) = Setup::with_site("a.example", echo.written());
    let mut plain = setup.leaf("plain.example");
    plain.ocsp_urls.clear();
    setup.site_with(&plain, echo.written(), "");
    let clinch = setup.start();

    let shown = ocsp(&clinch, &["show"]);
    assert_eq!(shown.code, Some(0), "{}", shown.text);
    shown.has("a.example").has("stapled").has("next fetch");
    shown.has("plain.example").has("nothing to staple");

    let explained = ocsp(&clinch, &["explain", "A.example."]);
    assert_eq!(explained.code, Some(0));
    explained
        .has("(ocsp, ")
        .has("verified in full")
        .lacks("to do");
    let explained = json(&ocsp(&clinch, &["explain", "a.example", "--json"]));
    assert_eq!(explained["certificates"][0]["class"], "ocsp");
    assert_eq!(explained["certificates"][0]["staple"], "stapled");
    let explained = ocsp(&clinch, &["explain", "plain.example"]);
    assert_eq!(explained.code, Some(5));
    explained.has("nothing is wrong").lacks("to do");
    let unknown = ocsp(&clinch, &["explain", "nobody.example"]);
    assert_eq!(unknown.code, Some(8));

    let fetched = ocsp(&clinch, &["fetch", "a.example"]);
    assert_eq!(fetched.code, Some(0), "{}", fetched.text);
    fetched
        .has("GET http://")
        .has("connected (127.")
        .has("HTTP status 200")
        .has("verified: good")
        .has("in place: snapshot generation")
        .has("next fetch at");
    assert_eq!(setup.responder.count(), 2, "once at the start, once now");
    assert_eq!(ocsp(&clinch, &["fetch", "plain.example"]).code, Some(5));
    assert_eq!(ocsp(&clinch, &["fetch", "nobody.example"]).code, Some(8));

    setup.responder.says(Answer::Error(6));
    let failed = ocsp(&clinch, &["fetch", "a.example", "--json"]);
    assert_eq!(failed.code, Some(4), "{}", failed.text);
    let failed = json(&failed);
    assert_eq!(failed[0]["outcome"], "failed");
    let reason = failed[0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("unauthorized"), "{reason}");
    let steps = failed[0]["steps"].as_array().expect("steps");
    assert!(steps.len() > 3 && steps.iter().all(|step| step["at_ms"].is_number()));
    let explained = ocsp(&clinch, &["explain", "a.example"]);
    assert_eq!(explained.code, Some(0), "the staple in use stays");
    explained.has("the staple in use stays").has("unauthorized");
    let troubled = json(&ocsp(&clinch, &["show", "--troubled", "--json"]));
    assert_eq!(troubled.as_array().map(Vec::len), Some(1));
    let count = clinch.count(
        "clinch_ocsp_responder_fetches_total",
        &["result=\"unauthorized\""],
    );
    assert!(count >= 1.0);
}

#[test]
fn a_certificate_with_a_crl_only_is_watched_and_its_revocation_noticed() {
    let echo = Backend::echo();
    let ca = OpensslCa::new();
    let mut setup = Setup::new();
    for name in ["kept.example", "lost.example"] {
        let (chain, key) = ca.issue(name);
        let files = setup.write_pem(&chain, &key);
        setup.site_of(&[name], &files, &[echo.written()], "");
    }
    ca.publish();
    let clinch = setup.start();
    clinch.wait_for_count("clinch_crl_fetches_total", &["result=\"taken\""], 1.0);
    let shown = eventually("the CRL is judged", PROMPT, || {
        let shown = ocsp(&clinch, &["show"]);
        (shown.text.matches("not on the CRL").count() == 2).then_some(shown)
    });
    assert_eq!(shown.code, Some(0), "nothing is wrong: {}", shown.text);
    shown.has("crl-only");
    let log = clinch.log();
    let warned = log.lines().find(|line| {
        let about = ["crl", "ocsp", "certificate", "staple"];
        line.contains("WARN") && about.iter().any(|word| line.contains(word))
    });
    assert_eq!(warned, None, "a warning for nothing");
    let answers = ca.server.answers();
    assert_eq!(answers, [("/ca.crl".to_owned(), 200)], "one list for both");

    let explained = ocsp(&clinch, &["explain", "lost.example"]);
    assert_eq!(explained.code, Some(5));
    explained
        .has("its CRL is watched instead")
        .has(&ca.url())
        .lacks("to do");
    let unchanged = ocsp(&clinch, &["fetch", "lost.example"]);
    assert_eq!(unchanged.code, Some(0), "{}", unchanged.text);
    unchanged.has("HTTP status 304").has("not modified");
    assert!(connects(&setup, &ca, "lost.example"));

    let before = ca.server.body(WHOLE);
    ca.revoke("lost.example");
    let revoked = ocsp(&clinch, &["fetch", "lost.example"]);
    assert_eq!(revoked.code, Some(3), "{}", revoked.text);
    revoked.has("REVOKED: revoked by the CA since");
    assert_eq!(ocsp(&clinch, &["show"]).code, Some(3));
    ocsp(&clinch, &["explain", "lost.example"]).has("new key");
    eventually("the workers refuse it", PROMPT, || {
        (!connects(&setup, &ca, "lost.example")).then_some(())
    });
    assert!(connects(&setup, &ca, "kept.example"));

    // Somebody on the way plays back the CRL from before.
    ca.server.serve(WHOLE, before);
    let replayed = ocsp(&clinch, &["fetch", "lost.example"]);
    assert_eq!(replayed.code, Some(4), "{}", replayed.text);
    replayed.has("was seen before");
    assert!(!connects(&setup, &ca, "lost.example"));
    let reloaded = clinch_tests::process::clinch(&[
        "reload",
        "--admin",
        &format!("unix:{}", clinch.admin().display()),
    ]);
    assert_eq!(reloaded.code, Some(0), "{}", reloaded.text);
    assert!(
        !connects(&setup, &ca, "lost.example"),
        "a reload forgets nothing"
    );
}

#[test]
fn a_part_of_a_crl_counts_for_its_own_certificates_alone() {
    let echo = Backend::echo();
    let ca = OpensslCa::new();
    ca.publish_part("two");
    let mut setup = Setup::new();
    for (part, name) in [(WHOLE, "one.example"), ("two", "two.example")] {
        let (chain, key) = ca.issue_in(part, name);
        let files = setup.write_pem(&chain, &key);
        setup.site_of(&[name], &files, &[echo.written()], "");
    }
    let clinch = setup.start();
    eventually("both parts are judged", PROMPT, || {
        let shown = ocsp(&clinch, &["show"]);
        (shown.text.matches("not on the CRL").count() == 2).then_some(())
    });
    let mut answers = ca.server.answers();
    answers.sort();
    let each = |path: &str| (path.to_owned(), 200);
    assert_eq!(answers, [each("/ca.crl"), each("/two.crl")]);

    // The CA's own list, in order in all but its scope.
    ca.publish();
    ca.server.serve("two", ca.server.body(WHOLE));
    assert_eq!(ocsp(&clinch, &["fetch", "two.example"]).code, Some(4));
    ocsp(&clinch, &["show"]).has("CRL is silent");
    ocsp(&clinch, &["explain", "two.example"])
        .has("says nothing about it")
        .has("to do: ask the CA");
    assert_eq!(clinch.count("clinch_crl_unknown_certificates", &[]), 1.0);
    assert!(connects(&setup, &ca, "two.example"));

    ca.publish_part("two");
    assert_eq!(ocsp(&clinch, &["fetch", "two.example"]).code, Some(0));
    assert_eq!(clinch.count("clinch_crl_unknown_certificates", &[]), 0.0);
}

#[test]
fn a_restart_with_the_crl_gone_knows_of_a_revocation_and_believes_no_older_list() {
    let echo = Backend::echo();
    let ca = OpensslCa::new();
    let mut setup = Setup::new();
    for name in ["kept.example", "lost.example"] {
        let (chain, key) = ca.issue(name);
        let files = setup.write_pem(&chain, &key);
        setup.site_of(&[name], &files, &[echo.written()], "");
    }
    let before = ca.server.body(WHOLE);
    ca.revoke("lost.example");
    let clinch = setup.start();
    clinch.wait_for_log("crl_revoked");
    clinch.stop();

    ca.server.forget(WHOLE);
    let clinch = setup.start();
    assert!(!connects(&setup, &ca, "lost.example"));
    assert!(connects(&setup, &ca, "kept.example"));
    ocsp(&clinch, &["explain", "lost.example"]).has("says its CRL");
    ca.server.serve(WHOLE, before);
    let replayed = ocsp(&clinch, &["fetch", "lost.example"]);
    replayed.has("was seen before");
    assert!(!connects(&setup, &ca, "lost.example"));
    clinch.stop();

    // One bit of the kept list is turned.
    let kept = std::fs::read_dir(setup.cache()).expect("ours").flatten();
    let mut kept = kept.map(|entry| entry.path());
    let kept = kept.find(|path| path.extension().is_some_and(|e| e == "crl"));
    let kept = kept.expect("a kept list");
    let mut bytes = std::fs::read(&kept).expect("ours");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(&kept, bytes).expect("ours");
    ca.server.forget(WHOLE);
    let clinch = setup.start();
    clinch.wait_for_log("the kept CRL is not used");
    assert!(connects(&setup, &ca, "lost.example"), "nobody says so");

    ca.publish();
    assert_eq!(ocsp(&clinch, &["fetch", "lost.example"]).code, Some(3));
    eventually("the list is kept again", PROMPT, || {
        std::fs::read(&kept)
            .is_ok_and(|bytes| bytes == ca.server.body(WHOLE))
            .then_some(())
    });
    ca.take_back();
    assert_eq!(ocsp(&clinch, &["fetch", "lost.example"]).code, Some(0));
    clinch.wait_for_log("crl_restored");
    eventually("it is served again", PROMPT, || {
        connects(&setup, &ca, "lost.example").then_some(())
    });
    eventually("the list is kept no more", PROMPT, || {
        (!kept.exists()).then_some(())
    });
}

/// Whether a handshake for a name comes about, as `openssl` sees it.
fn connects(setup: &Setup, ca: &OpensslCa, name: &str) -> bool {
    let said = clinch_tests::peers::run(
        "openssl",
        &[
            "s_client",
            "-connect",
            &setup.address.to_string(),
            "-servername",
            name,
            "-CAfile",
            &ca.certificate().display().to_string(),
            "-verify_return_error",
            "-brief",
        ],
    );
    said.code == Some(0)
}
