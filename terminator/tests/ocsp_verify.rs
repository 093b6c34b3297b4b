//! The verdict on OCSP responses: valid, invalid in each way, and valid becoming invalid, on responses
//! that the demo authority signed. Responses that openssl signed are in `ocsp_openssl.rs`.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use clinch::certificate::{Fingerprint, SignatureError};
use clinch::cli::demo::authority::{
    Authority, HashAlgorithm, Issued, KeyAlgorithm, LeafSpec, OcspAnswer, Place as At, Responder,
    ResponderIdBy, ResponderSpec, Signer as SignedBy, Single, Status, Unsuccessful as Status6960,
    unsuccessful,
};
use clinch::clock;
use clinch::ocsp::{
    Place, Policy, Refusal, RefusalKind, Request, Signer, Unsuccessful, VerifiedStaple, verify,
};
use proptest::prelude::*;

#[test]
fn takes_good_responses_of_every_signer_key_name_and_digest() {
    for key in [
        KeyAlgorithm::P256,
        KeyAlgorithm::P384,
        KeyAlgorithm::P521,
        KeyAlgorithm::Rsa2048,
        KeyAlgorithm::Ed25519,
    ] {
        let ca = Ca::with_key(key);
        for signer in [SignedBy::Issuer, SignedBy::Responder] {
            for responder_id in [ResponderIdBy::Name, ResponderIdBy::Key] {
                for hash in [HashAlgorithm::Sha1, HashAlgorithm::Sha256] {
                    let staple = ca.verdict(|answer| {
                        answer.signer = signer.clone();
                        answer.responder_id = responder_id;
                        answer.hash = Some(hash);
                    });
                    let staple = staple.expect("a good response");
                    assert_eq!(staple.certificate(), Fingerprint::of(&ca.issued.leaf));
                    let delegated =
                        matches!(staple.signer(), Signer::Delegated { nocheck: true, .. });
                    assert_eq!(delegated, matches!(signer, SignedBy::Responder));
                }
            }
        }
    }
}

#[test]
fn a_staple_carries_the_times_and_bytes_of_the_response() {
    let (ca, answer) = (&*CA, OcspAnswer::good(now()));
    let response = ca.sign(&answer);
    let staple = ca.judge(&response).expect("good");
    assert_eq!(staple.der(), response);
    assert_eq!(staple.this_update(), answer.this_update);
    assert_eq!(staple.next_update(), answer.next_update);
    assert_eq!(staple.produced_at(), answer.produced_at);
    assert_eq!(Some(staple.not_after()), answer.next_update);
}

#[test]
fn revoked_is_a_verified_statement_with_time_and_reason() {
    let revoked_at = now() - DAY;
    let reason = Some(rasn_pkix::CrlReason::KeyCompromise);
    let refusal = refusal(|a| a.status = Status::Revoked(revoked_at, reason));
    assert_eq!(refusal.kind(), RefusalKind::Revoked);
    let text = refusal.to_string();
    assert!(
        text.contains("keyCompromise") && text.contains("2026-04-30"),
        "{text}"
    );
    match refusal {
        Refusal::Revoked { revoked_at: at, .. } => assert_eq!(at, revoked_at),
        other => panic!("{other}"),
    }
}

#[test]
fn a_revoked_that_nobody_with_the_right_signed_is_not_revoked() {
    for signer in [SignedBy::Impostor, delegate(|spec| spec.by_impostor = true)] {
        let refusal = refusal(|answer| {
            answer.status = Status::Revoked(now(), None);
            answer.signer = signer.clone();
        });
        assert_eq!(refusal.kind(), RefusalKind::Authority, "{refusal}");
    }
}

#[test]
fn refuses_unknown() {
    assert_eq!(refusal(|a| a.status = Status::Unknown), Refusal::Unknown);
}

#[test]
fn refuses_a_staple_for_another_serial_and_says_which() {
    let refusal = refusal(|a| a.serial = Some(vec![0x12, 0x34]));
    match refusal {
        Refusal::NoAnswer { answered, .. } => assert_eq!(answered, ["1234"]),
        other => panic!("{other}"),
    }
}

#[test]
fn refuses_a_good_response_of_another_ca_with_the_same_name_and_serial() {
    let spec = LeafSpec {
        names: vec!["a.test".into()],
        serial: Some(CA.issued.serial.clone()),
        ..LeafSpec::default()
    };
    let other = Ca::new(Authority::new(now()).expect("an authority"), &spec);
    let response = other.sign(&OcspAnswer::good(now()));
    other.judge(&response).expect("good for its own");
    assert_eq!(kind(CA.judge(&response)), RefusalKind::Authority);
    let mixed = verify(
        &response,
        &CA.issued.leaf,
        &other.issued.issuer,
        &Policy::default(),
        now(),
    );
    assert_eq!(mixed.expect_err("refused"), Refusal::NotTheIssuer);
}

#[test]
fn finds_the_answer_among_several() {
    let stranger = Single {
        serial: Some(vec![0x55]),
        status: Status::Revoked(now(), None),
    };
    let staple = CA.verdict(|a| a.before = vec![stranger.clone(), stranger.clone()]);
    staple.expect("the third is the right one");
}

#[test]
fn conflicting_answers_are_refused_and_revoked_outweighs_the_rest() {
    let also = |status| Single {
        serial: None,
        status,
    };
    let revoked = Status::Revoked(now(), None);
    for (before, main) in [
        (vec![Status::Good], revoked),
        (vec![revoked], Status::Good),
        (vec![Status::Unknown, revoked], Status::Good),
    ] {
        let refusal = refusal(|answer| {
            answer.status = main;
            answer.before = before.iter().copied().map(also).collect();
        });
        assert_eq!(refusal.kind(), RefusalKind::Revoked, "{before:?} {main:?}");
    }
    for (before, main) in [
        (Status::Unknown, Status::Good),
        (Status::Good, Status::Unknown),
    ] {
        let refusal = refusal(|answer| {
            answer.status = main;
            answer.before = vec![also(before)];
        });
        assert_eq!(refusal, Refusal::Unknown);
    }
}

#[test]
fn refuses_signers_without_the_right_to_sign() {
    assert_eq!(
        refusal(|a| a.signer = SignedBy::Impostor),
        // The impostor's key has another hash, so nobody here is called that.
        refusal(|a| {
            a.signer = SignedBy::Impostor;
            a.with_certificate = false;
        })
    );
    let by_name = refusal(|answer| {
        answer.signer = SignedBy::Impostor;
        answer.responder_id = ResponderIdBy::Name;
    });
    assert_eq!(by_name, Refusal::Signature(SignatureError::Invalid));
    let forged = refusal(|a| a.signer = delegate(|spec| spec.by_impostor = true));
    assert!(
        matches!(
            forged,
            Refusal::ResponderNotIssued {
                reason: Some(SignatureError::Invalid),
                ..
            }
        ),
        "{forged}"
    );
    let no_usage = refusal(|a| a.signer = delegate(|spec| spec.ocsp_signing = false));
    assert!(
        matches!(no_usage, Refusal::ResponderNotAllowed { .. }),
        "{no_usage}"
    );
    let no_certificate = refusal(|a| a.with_certificate = false);
    assert!(
        matches!(no_certificate, Refusal::UnknownResponder { .. }),
        "{no_certificate}"
    );
}

#[test]
fn refuses_a_responder_whose_certificate_is_out_of_date() {
    for validity in [
        (now() - DAY * 2, now() - DAY),
        (now() + DAY, now() + DAY * 2),
    ] {
        let refusal = refusal(|a| a.signer = delegate(|spec| spec.validity = Some(validity)));
        assert!(
            matches!(refusal, Refusal::ResponderOutOfDate { .. }),
            "{refusal}"
        );
    }
}

#[test]
fn a_responder_certificate_without_an_end_can_be_talked_about() {
    // RFC 5280 section 4.1.2.5: "no well-defined expiration date".
    let end = clock::parse_rfc3339("9999-12-31T23:59:59Z").expect("valid");
    let signer = delegate(|spec| spec.validity = Some((now() + DAY, end)));
    let text = refusal(|answer| answer.signer = signer).to_string();
    assert!(text.contains("is valid from 2026-05-02"), "{text}");
}

#[test]
fn a_staple_ends_with_the_certificate_of_its_responder() {
    let end = now() + DAY;
    let signer = delegate(|spec| spec.validity = Some((now() - DAY, end)));
    let answer = OcspAnswer {
        signer,
        ..OcspAnswer::good(now())
    };
    let response = CA.sign(&answer);
    let staple = CA.judge(&response).expect("still valid");
    assert_eq!(staple.not_after(), end + SECOND);
    let refusal = CA.judge_at(&response, staple.not_after());
    assert_eq!(kind(refusal), RefusalKind::Authority);
}

#[test]
fn a_valid_response_becomes_invalid_at_next_update() {
    let answer = OcspAnswer::good(now());
    let response = CA.sign(&answer);
    let next_update = answer.next_update.expect("there is one");
    CA.judge_at(&response, next_update - SECOND)
        .expect("the last second");
    let at = next_update;
    assert_eq!(
        CA.judge_at(&response, at).expect_err("over"),
        Refusal::Expired { next_update, at }
    );
}

#[test]
fn a_response_from_the_future_is_taken_within_the_skew_only() {
    let answer = OcspAnswer {
        this_update: now(),
        produced_at: now(),
        ..OcspAnswer::good(now())
    };
    let response = CA.sign(&answer);
    let skew = Policy::default().skew;
    CA.judge_at(&response, now() - skew)
        .expect("within the skew");
    let early = CA.judge_at(&response, now() - skew - SECOND);
    assert!(
        matches!(early, Err(Refusal::NotYetValid { .. })),
        "{early:?}"
    );
}

#[test]
fn without_next_update_the_age_is_bounded() {
    let answer = OcspAnswer {
        next_update: None,
        ..OcspAnswer::good(now())
    };
    let response = CA.sign(&answer);
    let end = answer.this_update + Policy::default().max_age;
    let staple = CA.judge(&response).expect("young enough");
    assert_eq!(staple.not_after(), end);
    assert_eq!(staple.next_update(), None);
    CA.judge_at(&response, end - SECOND)
        .expect("the last second");
    let old = CA.judge_at(&response, end);
    assert!(matches!(old, Err(Refusal::TooOld { .. })), "{old:?}");
}

#[test]
fn refuses_times_that_contradict_each_other() {
    let reversed = refusal(|a| a.next_update = Some(a.this_update - SECOND));
    assert!(matches!(reversed, Refusal::Reversed { .. }), "{reversed}");
    let changes: [fn(&mut OcspAnswer); 3] = [
        |a| a.produced_at = now() + DAY,
        |a| a.produced_at = a.this_update - DAY,
        |a| {
            a.this_update = now() - DAY * 3;
            a.produced_at = a.this_update - DAY;
        },
    ];
    for change in changes {
        let refusal = refusal(change);
        assert!(
            matches!(refusal, Refusal::ImplausibleProducedAt { .. }),
            "{refusal}"
        );
    }
}

#[test]
fn extreme_times_and_policies_do_not_overflow() {
    let policy = Policy {
        skew: Duration::MAX,
        max_age: Duration::MAX,
        allow_sha1: true,
        ..Policy::default()
    };
    let answer = OcspAnswer {
        next_update: None,
        ..OcspAnswer::good(now())
    };
    let response = CA.sign(&answer);
    for at in [SystemTime::UNIX_EPOCH, now()] {
        let (leaf, issuer) = (&CA.issued.leaf, &CA.issued.issuer);
        let _ = verify(&response, leaf, issuer, &policy, at);
    }
}

#[test]
fn refuses_critical_extensions_that_it_does_not_know() {
    for (put, seen) in [(At::Response, Place::Response), (At::Single, Place::Single)] {
        match refusal(|answer| answer.critical_extension = Some(put)) {
            Refusal::CriticalExtension { place, .. } => assert_eq!(place, seen),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn names_every_unsuccessful_status() {
    for (sent, named) in [
        (Status6960::TryLater, Unsuccessful::TryLater),
        (Status6960::Unauthorized, Unsuccessful::Unauthorized),
        (Status6960::InternalError, Unsuccessful::InternalError),
        (Status6960::MalformedRequest, Unsuccessful::MalformedRequest),
        (Status6960::SigRequired, Unsuccessful::SigRequired),
    ] {
        let refusal = CA.judge(&unsuccessful(sent)).expect_err("no answer");
        assert_eq!(refusal, Refusal::Unsuccessful(named));
    }
}

#[test]
fn refuses_what_is_not_one_whole_response() {
    let response = CA.sign(&OcspAnswer::good(now()));
    let mut longer = response.clone();
    longer.push(0);
    let html = b"<html><body>Please log in</body></html>".to_vec();
    for bytes in [
        Vec::new(),
        longer,
        html,
        vec![0x30; 65_536],
        vec![0; 65_537],
    ] {
        assert_eq!(kind(CA.judge(&bytes)), RefusalKind::Malformed);
    }
    for end in 0..response.len() {
        assert_eq!(kind(CA.judge(&response[..end])), RefusalKind::Malformed);
    }
}

/// Every byte of these responses counts: the wrappers must be DER, the data is signed, and so is the
/// responder's certificate beside it.
#[test]
fn no_change_of_a_single_byte_verifies() {
    for key in [KeyAlgorithm::P256, KeyAlgorithm::Rsa2048] {
        let ca = Ca::with_key(key);
        let response = ca.sign(&OcspAnswer::good(now()));
        ca.judge(&response).expect("good as it is");
        for at in 0..response.len() {
            for flip in [0x01, 0x20, 0x80, 0xff] {
                let mut changed = response.clone();
                changed[at] ^= flip;
                let verdict = ca.judge(&changed);
                assert!(verdict.is_err(), "byte {at} changed by {flip:#x} was taken");
            }
        }
    }
}

#[test]
fn a_request_is_understood_by_the_authority_and_fits_a_get() {
    let request = Request::new(&CA.issued.leaf, &CA.issued.issuer).expect("built");
    let asked = CA.authority.asked_for(&request.der).expect("understood");
    assert_eq!(asked.serial, CA.issued.serial);
    assert_eq!(asked.hash, HashAlgorithm::Sha1);
    assert!(asked.our_issuer);
    let url = request
        .get_url("http://ca.test/ocsp/")
        .expect("short enough");
    let encoded = url.strip_prefix("http://ca.test/ocsp/").expect("appended");
    assert!(
        encoded
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'%')
    );
    assert_eq!(request.get_url("http://ca.test/ocsp"), Some(url));
    assert_eq!(request.get_url("http://ca.test/ocsp?tenant=1"), None);
    assert_eq!(
        request.get_url(&format!("http://ca.test/{}", "x".repeat(200))),
        None
    );
}

proptest! {
    #[test]
    fn mutated_responses_never_panic_and_never_verify(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let response = &*RESPONSE;
        let mut changed = response.clone();
        for (at, byte) in changes {
            let at = at.index(changed.len());
            changed[at] = byte;
        }
        let verdict = CA.judge(&changed);
        prop_assert_eq!(verdict.is_ok(), changed == *response);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(CA.judge(&bytes).is_err());
        let leaf = bytes.into();
        let refused = verify(&RESPONSE, &leaf, &CA.issued.issuer, &Policy::default(), now());
        prop_assert!(refused.is_err());
        prop_assert!(Request::new(&leaf, &CA.issued.issuer).is_err());
    }
}

static CA: LazyLock<Ca> = LazyLock::new(|| Ca::with_key(KeyAlgorithm::P256));
static RESPONSE: LazyLock<Vec<u8>> = LazyLock::new(|| CA.sign(&OcspAnswer::good(now())));

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

struct Ca {
    authority: Authority,
    issued: Issued,
    request: Vec<u8>,
}

impl Ca {
    fn with_key(key: KeyAlgorithm) -> Self {
        let spec = LeafSpec {
            names: vec!["a.test".into()],
            ..LeafSpec::default()
        };
        Self::new(
            Authority::with_key(now(), key).expect("an authority"),
            &spec,
        )
    }

    fn new(authority: Authority, spec: &LeafSpec) -> Self {
        let issued = authority.issue(spec).expect("a leaf");
        let request = Request::new(&issued.leaf, &issued.issuer)
            .expect("built")
            .der;
        Self {
            authority,
            issued,
            request,
        }
    }

    fn sign(&self, answer: &OcspAnswer) -> Vec<u8> {
        self.authority
            .respond(answer, &self.request)
            .expect("signed")
    }

    fn judge(&self, response: &[u8]) -> Result<VerifiedStaple, Refusal> {
        self.judge_at(response, now())
    }

    fn judge_at(&self, response: &[u8], at: SystemTime) -> Result<VerifiedStaple, Refusal> {
        let (leaf, issuer) = (&self.issued.leaf, &self.issued.issuer);
        verify(response, leaf, issuer, &Policy::default(), at)
    }

    /// The verdict on a response that would be good but for a change.
    fn verdict(&self, change: impl FnOnce(&mut OcspAnswer)) -> Result<VerifiedStaple, Refusal> {
        let mut answer = OcspAnswer::good(now());
        change(&mut answer);
        self.judge(&self.sign(&answer))
    }
}

fn refusal(change: impl FnOnce(&mut OcspAnswer)) -> Refusal {
    CA.verdict(change).expect_err("it must be refused")
}

fn kind(verdict: Result<VerifiedStaple, Refusal>) -> RefusalKind {
    verdict.expect_err("it must be refused").kind()
}

fn delegate(change: impl FnOnce(&mut ResponderSpec)) -> SignedBy {
    let mut spec = ResponderSpec::default();
    change(&mut spec);
    let responder: std::sync::Arc<Responder> =
        CA.authority.issue_responder(&spec).expect("a responder");
    SignedBy::Delegated(responder)
}

fn now() -> SystemTime {
    clock::parse_rfc3339("2026-05-01T12:00:00Z").expect("valid")
}
