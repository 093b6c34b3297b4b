//! What a site's `ocsp` table changes about the questions that control asks, whose answers it takes,
//! and where from.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use clinch::cli::demo::authority::{
    AskedFor, HashAlgorithm, OcspAnswer, ResponderSpec, Signer, Status as CertStatus,
};
use clinch::control::status::StapleStatus;
use clinch::observability::counters::FetchResult;

use crate::support::{Reply, eventually};
use crate::world::{World, good, replace, signed};

/// A world whose responder writes down what it is asked, and how.
async fn world_that_listens() -> (World, Arc<Mutex<Vec<(String, AskedFor)>>>) {
    let world = World::new().await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    world.answers(move |authority, request, method| {
        let read = authority.asked_for(request).expect("a request");
        let nonce = read.nonce.clone();
        let mut heard = heard.lock().expect("no panic");
        heard.push((method.to_owned(), read));
        signed(authority, request, |answer| answer.nonce.clone_from(&nonce))
    });
    (world, asked)
}

#[tokio::test]
async fn the_request_is_made_as_the_site_says() {
    for (settings, method, hash, nonce) in [
        ("", "GET", HashAlgorithm::Sha1, false),
        ("hash = \"sha256\"", "GET", HashAlgorithm::Sha256, false),
        ("method = \"post\"", "POST", HashAlgorithm::Sha1, false),
        ("nonce = \"ask\"", "POST", HashAlgorithm::Sha1, true),
        (
            "nonce = \"require\", method = \"get\", hash = \"sha256\"",
            "GET",
            HashAlgorithm::Sha256,
            true,
        ),
    ] {
        let (mut world, asked) = world_that_listens().await;
        world.site(&world.spec("a.test"), &format!("ocsp = {{ {settings} }}"));
        let running = world.start(WAIT).await;
        let status = running.status().await;
        let staple = status.certificates[0].staple;
        assert_eq!(staple, StapleStatus::Stapled, "{settings}");
        let asked = asked.lock().expect("no panic");
        let (how, what) = asked.first().expect("one question");
        assert_eq!((how.as_str(), what.hash), (method, hash), "{settings}");
        assert_eq!(what.nonce.is_some(), nonce, "{settings}");
    }
}

#[tokio::test]
async fn two_questions_have_two_nonces_and_a_nonce_of_before_is_refused() {
    let (mut world, asked) = world_that_listens().await;
    world.site(&world.spec("a.test"), "ocsp = { nonce = \"ask\" }");
    let other = world.spec("b.test");
    world.site(&other, "ocsp = { nonce = \"ask\" }");
    let running = world.start(WAIT).await;
    running.handle.shutdown().await;
    let nonces: Vec<Option<Vec<u8>>> = {
        let asked = asked.lock().expect("no panic");
        asked.iter().map(|(_, what)| what.nonce.clone()).collect()
    };
    assert!(nonces.len() == 2 && nonces[0] != nonces[1], "{nonces:?}");

    for entry in fs::read_dir(world.path("cache")).expect("listed") {
        fs::remove_file(entry.expect("listed").path()).expect("removed");
    }
    let played_back = nonces[0].clone();
    world.answers(move |authority, request, _| {
        signed(authority, request, |answer| {
            answer.nonce.clone_from(&played_back);
        })
    });
    let running = world.start(WAIT).await;
    let status = running.status().await;
    for certificate in &status.certificates {
        assert_eq!(certificate.staple, StapleStatus::Missing);
        let error = certificate.last_error.as_deref().unwrap_or_default();
        assert!(error.contains("nonce"), "{error}");
    }
}

#[tokio::test]
async fn a_response_is_read_from_a_file_and_again_when_the_file_is_replaced() {
    let mut world = World::new().await;
    let path = world.path("response.der");
    let ocsp = format!("ocsp = {{ responder = \"file://{}\" }}", path.display());
    let issued = world.site(&world.spec("a.test"), &ocsp);
    let sign = |world: &World, change: &dyn Fn(&mut OcspAnswer)| {
        let mut answer = OcspAnswer::good(SystemTime::now());
        change(&mut answer);
        let respond = world
            .authority
            .respond_about(&answer, &issued.serial, HashAlgorithm::Sha1);
        respond.expect("signed")
    };
    let write = |bytes: &[u8]| {
        let beside = path.with_extension("new");
        fs::write(&beside, bytes).expect("written");
        fs::rename(&beside, &path).expect("renamed");
    };

    let running = world.start(Duration::ZERO).await;
    let missing = running
        .status_when("a file that is missed", |status| {
            status.certificates[0].failures > 0
        })
        .await;
    let error = missing.certificates[0]
        .last_error
        .clone()
        .unwrap_or_default();
    assert!(
        error.contains("response.der") && error.contains("cannot be read"),
        "{error}"
    );
    assert!(running.counters.results.value(FetchResult::File) > 0);

    write(&sign(&world, &|_| {}));
    let first = running
        .status_when("a staple from the file", |status| {
            status.certificates[0].staple == StapleStatus::Stapled
        })
        .await;
    write(&sign(&world, &|answer| {
        answer.this_update = SystemTime::now() - Duration::from_secs(60);
        answer.produced_at = answer.this_update;
    }));
    running
        .status_when("the new one", |status| {
            status.certificates[0].this_update > first.certificates[0].this_update
        })
        .await;
    // What it says is verified like anything else.
    write(b"no response");
    running
        .status_when("a refusal", |status| status.certificates[0].failures > 0)
        .await;
    let status = running.status().await;
    assert_eq!(status.certificates[0].staple, StapleStatus::Stapled);
    write(&sign(&world, &|answer| {
        answer.status = CertStatus::Revoked(SystemTime::now() - Duration::from_secs(9), None);
        answer.this_update = SystemTime::now();
        answer.produced_at = answer.this_update;
    }));
    running
        .status_when("a revocation", |status| {
            status.certificates[0].staple == StapleStatus::Revoked
        })
        .await;
    assert_eq!(world.asked(), 0, "nobody was asked over the network");
}

#[tokio::test]
async fn the_file_of_trust_has_the_issuer_that_the_certificate_file_lacks() {
    let mut world = World::new().await;
    let issued = world.site(&world.spec("a.test"), "");
    let leaf = issued
        .chain_pem
        .split_inclusive("-----END CERTIFICATE-----\n");
    let leaf = leaf.into_iter().next().expect("the leaf");
    replace(&world.path("a.test.pem"), leaf, 0o644);
    let running = world.start(WAIT).await;
    let status = running.status().await;
    assert_eq!(status.certificates[0].staple, StapleStatus::NotApplicable);
    running.handle.shutdown().await;

    let trust = world.path("trust.pem");
    let both = world.authority.root_pem() + &world.authority.intermediate_pem();
    replace(&trust, &both, 0o644);
    world.clear_sites();
    let spec = world.spec("a.test");
    world.name_site(&spec, &format!("ocsp = {{ trust = {trust:?} }}"));
    let running = world.start(WAIT).await;
    let status = running.status().await;
    assert_eq!(status.certificates[0].staple, StapleStatus::Stapled);
}

#[tokio::test]
async fn a_signer_in_the_file_of_trust_is_believed_and_the_file_is_watched() {
    let mut world = World::new().await;
    let spec = ResponderSpec {
        by_impostor: true,
        ..ResponderSpec::default()
    };
    let signer = world.authority.issue_responder(&spec).expect("a responder");
    let (signs, trust) = (Arc::clone(&signer), world.path("trust.pem"));
    replace(&trust, &world.authority.root_pem(), 0o644);
    let leaf = world.spec("a.test");
    world.site(&leaf, &format!("ocsp = {{ trust = {trust:?} }}"));
    world.answers(move |authority, request, _| {
        signed(authority, request, |answer| {
            answer.signer = Signer::Delegated(Arc::clone(&signs));
        })
    });
    let running = world.start(WAIT).await;
    let status = running.status().await;
    assert_eq!(status.certificates[0].staple, StapleStatus::Missing);
    let error = status.certificates[0]
        .last_error
        .clone()
        .unwrap_or_default();
    assert!(error.contains("`ocsp.trust`"), "{error}");

    replace(&trust, &pem(signer.certificate()), 0o644);
    running
        .status_when("a staple by the trusted signer", |status| {
            status.certificates[0].staple == StapleStatus::Stapled
        })
        .await;
    // And no longer once it is not trusted.
    world.answers(|_, _, _| Reply::Http(500, Vec::new(), Vec::new()));
    replace(&trust, &world.authority.root_pem(), 0o644);
    running
        .status_when("the staple dropped", |status| {
            status.certificates[0].staple == StapleStatus::Missing
        })
        .await;
}

#[tokio::test]
async fn a_file_of_trust_that_cannot_be_used_is_told_before_anything_is_served() {
    let mut world = World::new().await;
    let trust = world.path("trust.pem");
    let leaf = world.spec("a.test");
    world.site(&leaf, &format!("ocsp = {{ trust = {trust:?} }}"));
    let absent = world.prepare().await.err().expect("no such file");
    assert!(absent.to_string().contains("`ocsp.trust`"), "{absent}");
    replace(&trust, "no certificate", 0o644);
    let empty = world.prepare().await.err().expect("nothing in it");
    assert!(empty.to_string().contains("trust.pem"), "{empty}");
}

#[tokio::test]
async fn a_responder_has_as_long_as_the_site_says() {
    let mut world = World::new().await;
    let leaf = world.spec("a.test");
    world.site(&leaf, "ocsp = { timeout = \"500ms\" }");
    world.answers(|_, _, _| Reply::Hang);
    let began = Instant::now();
    let running = world.start(WAIT).await;
    running
        .status_when("a failure", |status| status.certificates[0].failures > 0)
        .await;
    assert!(began.elapsed() < WAIT, "{:?}", began.elapsed());
    world.answers(good);
    eventually("a staple after all", async || {
        let status = running.status().await;
        (status.certificates[0].staple == StapleStatus::Stapled).then_some(())
    })
    .await;
}

fn pem(certificate: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("ASCII"))
        .collect();
    let body = lines.join("\n");
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

const WAIT: Duration = Duration::from_secs(8);
