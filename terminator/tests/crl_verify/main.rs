//! The verdict on CRLs: valid, invalid in each way, and valid becoming invalid. Lists that openssl
//! signed, and the command, are in `crl_command.rs`; the memory that a long list takes, in
//! `crl_memory.rs`.

mod any_bytes;
mod authority;
mod scope;

use std::slice::from_ref;
use std::sync::LazyLock;

use clinch::certificate::{Fingerprint, SignatureError};
use clinch::crl::{
    CrlNumber, NotRevoked, Place, Policy, Refusal, RefusalKind, VerifiedList, verify,
};
use rcgen::{
    BasicConstraints, CertificateRevocationListParams, IsCa, KeyIdMethod, KeyUsagePurpose,
    SerialNumber, SigningKey as _,
};

use authority::{
    Ca, DAY, ECDSA_SHA256, List, SECOND, SERIAL, entry, extension, name, named, now, number,
    reason, sequence, tlv,
};

static CA: LazyLock<Ca> = LazyLock::new(Ca::new);

#[test]
fn a_list_without_the_certificate_is_the_proof_that_it_is_not_revoked() {
    let proof = CA.verdict(|_| ()).expect("not listed");
    assert_eq!(proof.certificate(), Fingerprint::of(&CA.leaf));
    assert_eq!(proof.this_update(), now() - DAY);
    assert_eq!(proof.next_update(), Some(now() + DAY));
    assert_eq!(proof.not_after(), now() + DAY);
    assert_eq!(proof.number(), Some(CrlNumber::from(7)));
    assert_eq!(proof.entries(), 1);
    let proof = CA.verdict(|list| list.entries = None).expect("empty");
    assert_eq!(proof.entries(), 0);
}

#[test]
fn takes_what_another_library_makes() {
    let mut params = CertificateRevocationListParams {
        this_update: (now() - DAY).into(),
        next_update: (now() + DAY).into(),
        crl_number: SerialNumber::from(0x1234_u64),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let signed = params.signed_by(&*CA.issuer).expect("signed");
    let proof = CA.judge(signed.der()).expect("not listed");
    assert_eq!(proof.number(), Some(CrlNumber::from(0x1234)));
    params.revoked_certs.push(rcgen::RevokedCertParams {
        serial_number: SerialNumber::from(SERIAL.to_vec()),
        revocation_time: (now() - DAY).into(),
        reason_code: Some(rcgen::RevocationReason::KeyCompromise),
        invalidity_date: Some((now() - DAY * 2).into()),
    });
    let signed = params.signed_by(&*CA.issuer).expect("signed");
    assert_eq!(kind(CA.judge(signed.der())), RefusalKind::Revoked);
}

#[test]
fn revoked_is_a_verified_statement_with_time_and_reason() {
    let refusal = CA.refusal(|list| list.revoke(&[reason(1)]));
    let text = refusal.to_string();
    for part in ["4a01", "2026-04-30T12:00:00Z", "keyCompromise", "replace"] {
        assert!(text.contains(part), "{text}");
    }
    match refusal {
        Refusal::Revoked { revoked_at, .. } => assert_eq!(revoked_at, now() - DAY),
        other => panic!("{other}"),
    }
}

#[test]
fn a_reason_that_means_nothing_makes_nothing_less_revoked() {
    let broken = extension(&[0x55, 0x1d, 0x15], false, b"?");
    for extensions in [vec![], vec![reason(7)], vec![reason(99)], vec![broken]] {
        let refusal = CA.refusal(|list| list.revoke(&extensions));
        assert!(
            matches!(refusal, Refusal::Revoked { reason: None, .. }),
            "{refusal}"
        );
    }
}

#[test]
fn a_hold_is_revoked_and_says_that_the_ca_can_release_it() {
    let text = CA.refusal(|list| list.revoke(&[reason(6)])).to_string();
    assert!(text.contains("certificateHold"), "{text}");
    assert!(text.contains("release"), "{text}");
}

#[test]
fn remove_from_crl_is_no_answer_in_a_complete_list_and_revoked_outweighs_it() {
    let refusal = CA.refusal(|list| list.revoke(&[reason(8)]));
    assert!(matches!(refusal, Refusal::Removed { .. }), "{refusal}");
    for order in [[8, 1], [1, 8]] {
        let refusal = CA.refusal(|list| {
            order.iter().for_each(|code| list.revoke(&[reason(*code)]));
        });
        assert_eq!(refusal.kind(), RefusalKind::Revoked, "{order:?}");
    }
}

#[test]
fn serial_numbers_are_compared_by_value() {
    let longer = [&[0, 0], SERIAL].concat();
    for (serial, listed) in [(&longer[..], true), (&SERIAL[1..], false), (&[0x4a], false)] {
        let verdict = CA.verdict(|list| list.entries = Some(vec![entry(serial, &[])]));
        let revoked = matches!(verdict, Err(Refusal::Revoked { .. }));
        assert_eq!(revoked, listed, "{serial:x?}");
        assert_eq!(verdict.is_ok(), !listed, "{serial:x?}");
    }
}

#[test]
fn a_revoked_that_the_issuer_did_not_sign_is_not_revoked() {
    let forger = Ca::new();
    let mut list = List::new();
    list.revoke(&[]);
    let refusal = CA.judge(&forger.sign(&list)).expect_err("forged");
    assert_eq!(refusal, Refusal::Signature(SignatureError::Invalid));
}

#[test]
fn a_signature_with_bits_left_over_is_no_signature() {
    let tbs = List::new().encode();
    let signature = CA.issuer.key().sign(&tbs).expect("signed");
    let crl = sequence(&[&tbs, &ECDSA_SHA256, &tlv(0x03, &[&[1], &signature])]);
    let refusal = CA.judge(&crl).expect_err("refused");
    assert_eq!(refusal, Refusal::Signature(SignatureError::Malformed));
}

#[test]
fn refuses_a_list_in_another_name() {
    let refusal = CA.refusal(|list| list.issuer = "other");
    let (found, wanted) = ("CN=other".to_owned(), "CN=ca".to_owned());
    assert_eq!(refusal, Refusal::OtherIssuer { found, wanted });
    assert_eq!(refusal.kind(), RefusalKind::Authority);
}

#[test]
fn the_issuer_may_sign_lists_if_its_key_usage_says_so_or_is_not_there() {
    Ca::with(|params| params.key_usages.clear())
        .verdict(|_| ())
        .expect("no key usage");
    let refusal =
        Ca::with(|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]).refusal(|_| ());
    assert_eq!(
        refusal,
        Refusal::IssuerNotAllowed {
            issuer: "CN=ca".into()
        }
    );
    assert_eq!(refusal.kind(), RefusalKind::Authority);
}

#[test]
fn refuses_an_issuer_that_did_not_issue_the_certificate() {
    let other = Ca::new();
    let crl = other.sign(&List::new());
    let (policy, issuer) = (Policy::default(), other.issuer.der());
    let verdict = verify(&crl, &CA.leaf, from_ref(issuer), &policy, now());
    assert_eq!(verdict.expect_err("refused"), Refusal::NotTheIssuer);
}

#[test]
fn a_list_may_be_signed_with_another_key_of_the_ca_that_is_given() {
    let (new, stranger) = (Ca::new(), Ca::with(|params| *params = named("stranger")));
    let mut list = List::new();
    let judge = |list: &List, issuers: &[_]| {
        let crl = new.sign(list);
        verify(&crl, &CA.leaf, issuers, &Policy::default(), now())
    };
    let (old, stranger) = (CA.issuer.der().clone(), stranger.issuer.der().clone());
    let all = [old.clone(), stranger.clone(), new.issuer.der().clone()];
    judge(&list, &all).expect("one of its keys");
    assert_eq!(kind(judge(&list, &all[..2])), RefusalKind::Authority);
    assert_eq!(kind(judge(&list, &all[1..2])), RefusalKind::Authority);
    assert_eq!(kind(judge(&list, &[])), RefusalKind::Authority);
    list.revoke(&[]);
    assert_eq!(kind(judge(&list, &all)), RefusalKind::Revoked);
}

#[test]
fn a_list_of_a_ca_above_the_issuer_says_nothing_about_the_leaf() {
    let root = Ca::with(|params| {
        *params = named("root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    let list = List {
        issuer: "root",
        ..List::new()
    };
    let chain = [CA.issuer.der().clone(), root.issuer.der().clone()];
    let verdict = verify(
        &root.sign(&list),
        &CA.leaf,
        &chain,
        &Policy::default(),
        now(),
    );
    let (found, wanted) = ("CN=root".to_owned(), "CN=ca".to_owned());
    let refusal = verdict.expect_err("the root's list");
    assert_eq!(refusal, Refusal::OtherIssuer { found, wanted });
}

#[test]
fn the_issuers_name_may_be_spelled_in_another_way() {
    CA.verdict(|list| list.issuer = "CA")
        .expect("the same name");
}

#[test]
fn a_valid_list_becomes_invalid_at_next_update() {
    let crl = CA.sign(&List::new());
    let (policy, next_update) = (Policy::default(), now() + DAY);
    CA.judge_by(&crl, &policy, next_update - SECOND)
        .expect("the last second");
    let at = next_update;
    let verdict = CA.judge_by(&crl, &policy, at);
    assert_eq!(
        verdict.expect_err("over"),
        Refusal::Expired { next_update, at }
    );
}

#[test]
fn a_list_from_the_future_is_taken_within_the_skew_only() {
    let crl = CA.sign(&List::new());
    let (policy, this_update) = (Policy::default(), now() - DAY);
    CA.judge_by(&crl, &policy, this_update - policy.skew)
        .expect("within the skew");
    let at = this_update - policy.skew - SECOND;
    let verdict = CA.judge_by(&crl, &policy, at);
    assert_eq!(
        verdict.expect_err("too early"),
        Refusal::NotYetValid { this_update, at }
    );
}

#[test]
fn an_old_revoked_says_no_more_than_an_old_not_revoked() {
    let refusal = CA.refusal(|list| {
        list.revoke(&[]);
        list.next_update = Some(now());
    });
    assert_eq!(refusal.kind(), RefusalKind::Time, "{refusal}");
}

#[test]
fn refuses_a_next_update_before_this_update() {
    let refusal = CA.refusal(|list| list.next_update = Some(list.this_update - SECOND));
    assert!(matches!(refusal, Refusal::Reversed { .. }), "{refusal}");
}

#[test]
fn without_next_update_the_age_bound_counts_and_with_it_only_if_it_is_set() {
    let verdict = |change: fn(&mut List), max_age| {
        let mut list = List::new();
        change(&mut list);
        let policy = Policy {
            max_age,
            ..Policy::default()
        };
        CA.judge_by(&CA.sign(&list), &policy, now())
    };
    let ageless: fn(&mut List) = |list| list.next_update = None;
    let proof = verdict(ageless, None).expect("a day old");
    assert_eq!(proof.not_after(), now() + DAY * 6);
    let old: fn(&mut List) = |list| {
        list.next_update = None;
        list.this_update = now() - DAY * 7;
    };
    assert_eq!(kind(verdict(old, None)), RefusalKind::Time);
    verdict(old, Some(DAY * 8)).expect("allowed");
    for change in [ageless, |_: &mut List| ()] {
        let refusal = verdict(change, Some(DAY)).expect_err("too old");
        assert!(matches!(refusal, Refusal::TooOld { .. }), "{refusal}");
    }
    verdict(ageless, Some(std::time::Duration::MAX)).expect("no overflow");
}

#[test]
fn numbers_only_rise() {
    let verdict = |extensions: Vec<Vec<u8>>, last: u64| {
        let policy = Policy {
            last_number: Some(CrlNumber::from(last)),
            ..Policy::default()
        };
        let list = List {
            extensions,
            ..List::new()
        };
        CA.judge_by(&CA.sign(&list), &policy, now())
    };
    verdict(vec![number(8)], 7).expect("newer");
    verdict(vec![number(7)], 7).expect("the same again");
    let refusal = verdict(vec![number(6)], 7).expect_err("older");
    assert_eq!(refusal.kind(), RefusalKind::Time);
    let text = refusal.to_string();
    assert!(text.contains("0x06") && text.contains("0x07"), "{text}");
    let last = CrlNumber::from(7);
    let refusal = verdict(vec![], 7).expect_err("no number");
    assert_eq!(refusal, Refusal::Unnumbered { last });
}

#[test]
fn a_list_without_a_number_is_taken_where_none_was_seen_before() {
    let proof = CA.verdict(|list| list.extensions.clear()).expect("taken");
    assert_eq!(proof.number(), None);
}

#[test]
fn refuses_numbers_that_no_list_may_have() {
    let of = |value: Vec<u8>, critical| extension(&[0x55, 0x1d, 0x14], critical, &value);
    for extensions in [
        vec![of(tlv(0x02, &[&[0x80]]), false)],
        vec![of(tlv(0x02, &[&[0x01; 21]]), false)],
        vec![of(tlv(0x02, &[&[7]]), true)],
        vec![number(7), number(8)],
    ] {
        let refusal = CA.refusal(|list| list.extensions = extensions);
        match refusal {
            Refusal::Malformed { field, .. } => assert_eq!(field, "cRLNumber"),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn refuses_critical_extensions_that_it_does_not_know_and_ignores_others() {
    let unknown = |critical| extension(&[0x2a, 0x03], critical, &[0x05, 0x00]);
    CA.verdict(|list| list.extensions.push(unknown(false)))
        .expect("not critical");
    CA.verdict(|list| list.entries = Some(vec![entry(&[1], &[unknown(false)])]))
        .expect("not critical");
    let in_list = CA.refusal(|list| list.extensions.push(unknown(true)));
    let in_entry = CA.refusal(|list| {
        list.revoke(&[]);
        list.entries
            .get_or_insert_default()
            .push(entry(&[1], &[unknown(true)]));
    });
    for (refusal, place) in [(in_list, Place::List), (in_entry, Place::Entry)] {
        let oid = "1.2.3".to_owned();
        assert_eq!(refusal, Refusal::CriticalExtension { oid, place });
        assert_eq!(refusal.kind(), RefusalKind::Authority);
    }
}

#[test]
fn refuses_delta_and_indirect_lists_and_says_so() {
    let base = extension(&[0x55, 0x1d, 0x1b], true, &tlv(0x02, &[&[3]]));
    let refusal = CA.refusal(|list| list.extensions.push(base));
    assert_eq!(refusal, Refusal::Delta { base: 3.into() });
    assert!(refusal.to_string().contains("complete CRL"), "{refusal}");
    let indirect = CA.refusal(|list| list.scope(&[tlv(0x84, &[&[0xff]])]));
    let of_another = CA.refusal(|list| {
        let issuer = extension(&[0x55, 0x1d, 0x1d], true, &tlv(0x30, &[&name("x")]));
        list.revoke(&[issuer]);
    });
    for refusal in [indirect, of_another] {
        assert_eq!(refusal, Refusal::Indirect);
        assert_eq!(refusal.kind(), RefusalKind::NoAnswer);
    }
}

#[test]
fn versions_have_what_is_theirs() {
    let plain = |list: &mut List| {
        list.version = None;
        list.extensions.clear();
    };
    CA.verdict(plain).expect("version 1");
    let revoked = CA.refusal(|list| {
        plain(list);
        list.revoke(&[]);
    });
    assert_eq!(revoked.kind(), RefusalKind::Revoked);
    let with_extensions: [fn(&mut List); 4] = [
        |list| list.version = None,
        |list| {
            list.version = None;
            list.extensions.clear();
            list.revoke(&[reason(1)]);
        },
        |list| list.version = Some(0),
        |list| list.version = Some(2),
    ];
    for change in with_extensions {
        let refusal = CA.refusal(change);
        assert_eq!(refusal.kind(), RefusalKind::Malformed, "{refusal}");
    }
}

#[test]
fn refuses_what_stands_where_nothing_belongs() {
    let changes: [fn(&mut List); 7] = [
        |list| {
            let date = tlv(0x17, &[b"260431000000Z"]);
            let entry = tlv(0x30, &[&tlv(0x02, &[&[1]]), &date]);
            list.entries.get_or_insert_default().push(entry);
        },
        |list| list.rest = vec![0x05, 0x00],
        |list| list.entries = Some(Vec::new()),
        |list| list.entries = Some(vec![tlv(0x30, &[])]),
        |list| list.entries = Some(vec![vec![0x05, 0x00]]),
        |list| list.extensions.push(vec![0x05, 0x00]),
        |list| list.algorithm = tlv(0x30, &[&[0x06, 0x03, 0x2b, 0x65, 0x70]]),
    ];
    for change in changes {
        let refusal = CA.refusal(change);
        assert_eq!(refusal.kind(), RefusalKind::Malformed, "{refusal}");
    }
}

#[test]
fn a_list_is_verified_once_for_many_certificates() {
    let mut list = List::new();
    list.revoke(&[]);
    let crl = CA.sign(&list);
    let (policy, issuer) = (Policy::default(), CA.issuer.der());
    let list = VerifiedList::verify(&crl, from_ref(issuer), &policy, now()).expect("valid");
    assert_eq!(kind(list.judge(&CA.leaf)), RefusalKind::Revoked);
    let other = CA.issue(|params| params.serial_number = Some(SerialNumber::from(9_u64)));
    list.judge(&other).expect("not listed");
    let garbage = vec![0x30, 0x00].into();
    let verdicts = list.judge_all(&[&CA.leaf, &garbage, &other, &CA.leaf]);
    let kinds: Vec<_> = verdicts
        .into_iter()
        .map(|verdict| verdict.err().map(|refusal| refusal.kind()))
        .collect();
    let revoked = Some(RefusalKind::Revoked);
    assert_eq!(kinds, [revoked, Some(RefusalKind::Input), None, revoked]);
}

#[test]
fn certificates_that_cannot_be_used_are_not_the_lists_fault() {
    let crl = CA.sign(&List::new());
    let (policy, garbage) = (Policy::default(), vec![0x30, 0x00].into());
    for (leaf, issuer) in [(&garbage, CA.issuer.der()), (&CA.leaf, &garbage)] {
        let verdict = verify(&crl, leaf, from_ref(issuer), &policy, now());
        assert_eq!(kind(verdict), RefusalKind::Input);
    }
}

fn kind(verdict: Result<NotRevoked, Refusal>) -> RefusalKind {
    verdict.expect_err("it must be refused").kind()
}
