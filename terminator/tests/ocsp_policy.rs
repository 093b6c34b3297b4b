//! What a site's policy changes about the verdict on OCSP responses: nonces, signers that the operator
//! trusts, the digest of the request; and what a revocation proves after its response has run out.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clinch::certificate::Fingerprint;
use clinch::cli::demo::authority::{
    Authority, HashAlgorithm, Issued, LeafSpec, OcspAnswer, ResponderSpec, Signer as SignedBy,
    Status,
};
use clinch::clock;
use clinch::config::CertIdHash;
use clinch::ocsp::{
    Nonce, NonceRule, Policy, Refusal, RefusalKind, Request, Revocation, Signer, VerifiedStaple,
    verify,
};

const DAY: Duration = Duration::from_secs(86_400);

fn now() -> SystemTime {
    clock::parse_rfc3339("2026-05-01T12:00:00Z").expect("an instant")
}

struct Ca {
    authority: Authority,
    issued: Issued,
}

impl Ca {
    fn new() -> Self {
        let authority = Authority::new(now()).expect("an authority");
        let spec = LeafSpec {
            names: vec!["a.test".into()],
            ..LeafSpec::default()
        };
        let issued = authority.issue(&spec).expect("a leaf");
        Self { authority, issued }
    }

    fn request(&self, hash: CertIdHash, nonce: Option<&Nonce>) -> Request {
        Request::with(&self.issued.leaf, &self.issued.issuer, hash, nonce).expect("built")
    }

    fn answer(&self, change: impl FnOnce(&mut OcspAnswer)) -> Vec<u8> {
        let mut answer = OcspAnswer::good(now());
        change(&mut answer);
        let request = self.request(CertIdHash::Sha1, None);
        let signed = self.authority.respond(&answer, &request.der);
        signed.expect("signed")
    }

    fn judge(&self, response: &[u8], policy: &Policy) -> Result<VerifiedStaple, Refusal> {
        let (leaf, issuer) = (&self.issued.leaf, &self.issued.issuer);
        verify(response, leaf, issuer, policy, now())
    }

    fn revocation(&self, response: &[u8], at: SystemTime) -> Result<Option<Revocation>, Refusal> {
        let (leaf, issuer) = (&self.issued.leaf, &self.issued.issuer);
        Revocation::verify(response, leaf, issuer, &Policy::default(), at)
    }
}

#[test]
fn a_request_names_the_issuer_by_the_digest_that_was_asked_for_and_carries_the_nonce() {
    let ca = Ca::new();
    let nonce = Nonce([7; 32]);
    for (hash, seen) in [
        (CertIdHash::Sha1, HashAlgorithm::Sha1),
        (CertIdHash::Sha256, HashAlgorithm::Sha256),
    ] {
        let request = ca.request(hash, Some(&nonce));
        let asked = ca.authority.asked_for(&request.der).expect("understood");
        assert_eq!((asked.hash, asked.our_issuer), (seen, true));
        // RFC 9654 section 2.1: an OCTET STRING of 32 bytes within the extension's value.
        let value = asked.nonce.expect("a nonce");
        assert_eq!(value[..2], [0x04, 32]);
        assert_eq!(value[2..], nonce.0);
        let plain = ca.request(hash, None);
        let asked = ca.authority.asked_for(&plain.der).expect("understood");
        assert_eq!(asked.nonce, None);
    }
}

#[test]
fn openssl_reads_the_nonce_of_a_request() {
    let ca = Ca::new();
    let request = ca.request(CertIdHash::Sha256, Some(&Nonce([0xab; 32])));
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("request.der");
    std::fs::write(&path, &request.der).expect("written");
    let said = std::process::Command::new("openssl")
        .args(["ocsp", "-req_text", "-reqin"])
        .arg(&path)
        .output()
        .expect("openssl is installed");
    let text = String::from_utf8_lossy(&said.stdout).to_lowercase();
    assert!(text.contains("hash algorithm: sha256"), "{text}");
    assert!(text.contains("ocsp nonce"), "{text}");
    assert!(text.contains(&"ab".repeat(32)), "{text}");
}

#[test]
fn a_nonce_must_come_back_as_it_was_sent_where_the_policy_says_so() {
    let ca = Ca::new();
    let sent = Nonce([7; 32]);
    let encoded = |byte: u8| [vec![0x04, 32], vec![byte; 32]].concat();
    let same = Policy {
        nonce: NonceRule::Same(sent.clone()),
        ..Policy::default()
    };
    let present = Policy {
        nonce: NonceRule::Present(sent),
        ..Policy::default()
    };
    let without = ca.answer(|_| {});
    let right = ca.answer(|answer| answer.nonce = Some(encoded(7)));
    let wrong = ca.answer(|answer| answer.nonce = Some(encoded(8)));
    let empty = ca.answer(|answer| answer.nonce = Some(Vec::new()));
    let long = ca.answer(|answer| answer.nonce = Some(vec![0x04; 200]));

    ca.judge(&right, &same).expect("the one that was sent");
    ca.judge(&right, &present).expect("the one that was sent");
    ca.judge(&without, &same).expect("none, which may be");
    let missing = ca.judge(&without, &present).expect_err("it must be there");
    assert_eq!(missing, Refusal::NoNonce);
    for policy in [&same, &present] {
        for response in [&wrong, &empty, &long] {
            let refusal = ca.judge(response, policy).expect_err("another one");
            assert!(matches!(refusal, Refusal::WrongNonce { .. }), "{refusal}");
        }
    }
    let sentence = ca
        .judge(&wrong, &same)
        .expect_err("another one")
        .to_string();
    for value in ["07".repeat(32), "08".repeat(32)] {
        assert!(sentence.contains(&value), "{sentence}");
    }
    // From the cache, nobody knows what was sent.
    for response in [&right, &wrong] {
        ca.judge(response, &Policy::default()).expect("any nonce");
    }
}

#[test]
fn a_signer_that_the_operator_trusts_needs_no_delegation_but_its_time_and_its_key() {
    let ca = Ca::new();
    let spec = ResponderSpec {
        by_impostor: true,
        ocsp_signing: false,
        ..ResponderSpec::default()
    };
    let signer = ca.authority.issue_responder(&spec).expect("a responder");
    let other = ca.authority.issue_responder(&spec).expect("a responder");
    let trusting = |certificates: &[&clinch::cli::demo::authority::Responder]| Policy {
        trusted: certificates
            .iter()
            .map(|responder| responder.certificate().clone())
            .collect(),
        ..Policy::default()
    };
    for with_certificate in [true, false] {
        let response = ca.answer(|answer| {
            answer.signer = SignedBy::Delegated(Arc::clone(&signer));
            answer.with_certificate = with_certificate;
        });
        let refusal = ca.judge(&response, &Policy::default());
        let refusal = refusal.expect_err("nobody trusts it");
        assert_eq!(refusal.kind(), RefusalKind::Authority, "{refusal}");
        let refusal = ca.judge(&response, &trusting(&[&other]));
        let refusal = refusal.expect_err("another one is trusted");
        assert_eq!(refusal.kind(), RefusalKind::Authority, "{refusal}");
        let staple = ca.judge(&response, &trusting(&[&other, &signer]));
        let staple = staple.expect("a trusted signer");
        let Signer::Trusted { not_after, .. } = staple.signer() else {
            panic!("signed by {:?}", staple.signer());
        };
        assert!(staple.not_after() <= *not_after);
    }
    let expired = ResponderSpec {
        validity: Some((now() - DAY * 9, now() - DAY)),
        ..spec
    };
    let expired = ca.authority.issue_responder(&expired).expect("a responder");
    let response = ca.answer(|answer| answer.signer = SignedBy::Delegated(Arc::clone(&expired)));
    let refusal = ca.judge(&response, &trusting(&[&expired]));
    let refusal = refusal.expect_err("its time is over");
    assert!(
        matches!(refusal, Refusal::ResponderOutOfDate { .. }),
        "{refusal}"
    );
}

#[test]
fn a_revocation_outlives_its_response_and_its_responder() {
    let ca = Ca::new();
    let response = ca.answer(|answer| answer.status = Status::Revoked(now() - DAY, None));
    let much_later = now() + DAY * 300;
    for at in [now(), much_later] {
        let revocation = ca.revocation(&response, at).expect("in order");
        let revocation = revocation.expect("revoked");
        assert_eq!(revocation.certificate(), Fingerprint::of(&ca.issued.leaf));
        assert_eq!(revocation.revoked_at(), now() - DAY);
        assert_eq!(revocation.der(), response);
    }
    // A staple of the same age is one no more.
    let (leaf, issuer) = (&ca.issued.leaf, &ca.issued.issuer);
    let refusal = verify(&response, leaf, issuer, &Policy::default(), much_later);
    let refusal = refusal.expect_err("over");
    assert_eq!(refusal.kind(), RefusalKind::Time, "{refusal}");
}

#[test]
fn nothing_but_a_right_revoked_proves_a_revocation() {
    let ca = Ca::new();
    let revoked = |answer: &mut OcspAnswer| answer.status = Status::Revoked(now(), None);
    let good = ca.answer(|_| {});
    assert_eq!(ca.revocation(&good, now()).expect("in order"), None);
    for (what, response) in [
        ("another key", {
            ca.answer(|answer| {
                revoked(answer);
                answer.signer = SignedBy::Impostor;
            })
        }),
        ("another certificate", {
            ca.answer(|answer| {
                revoked(answer);
                answer.serial = Some(vec![9]);
            })
        }),
        ("tomorrow", {
            ca.answer(|answer| {
                revoked(answer);
                answer.this_update = now() + DAY;
                answer.produced_at = now() + DAY;
                answer.next_update = Some(now() + DAY * 2);
            })
        }),
        ("a responder that was not valid yet when it signed", {
            let spec = ResponderSpec {
                validity: Some((now() + DAY, now() + DAY * 9)),
                ..ResponderSpec::default()
            };
            let signer = ca.authority.issue_responder(&spec).expect("a responder");
            ca.answer(|answer| {
                revoked(answer);
                answer.signer = SignedBy::Delegated(signer);
            })
        }),
    ] {
        let proved = ca.revocation(&response, now());
        assert!(proved.is_err(), "{what}: {proved:?}");
    }
}
