//! Which certificates a list speaks about.

use std::slice::from_ref;

use clinch::crl::{Kind, NotRevoked, Policy, Refusal, RefusalKind, verify};
use rcgen::{BasicConstraints, CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope, IsCa};
use rustls_pki_types::CertificateDer;

use super::CA;
use super::authority::{
    List, POINT, directory, distribution_points, full_name, name, name_of, now, point,
    relative_name, sequence, tlv, uri,
};

#[test]
fn a_list_about_one_kind_of_certificates_says_nothing_about_others() {
    let ca = CA.issue(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let plain = CA.issue(|params| params.is_ca = IsCa::NoCa);
    for (flag, only, taken_for) in [
        (0x81, Kind::User, Some(&CA.leaf)),
        (0x82, Kind::Ca, Some(&ca)),
        (0x85, Kind::Attribute, None),
    ] {
        for leaf in [&CA.leaf, &ca] {
            let verdict = judge(leaf, &[tlv(flag, &[&[0xff]])]);
            match taken_for == Some(leaf) {
                true => drop(verdict.expect("of this kind")),
                false => assert_eq!(verdict.expect_err("other"), Refusal::WrongKind { only }),
            }
        }
    }
    // Without basicConstraints it is an end-entity certificate.
    judge(&plain, &[tlv(0x81, &[&[0xff]])]).expect("an end entity");
    judge(&CA.leaf, &[tlv(0x81, &[&[0x00]])]).expect("FALSE written out");
}

#[test]
fn a_listed_certificate_out_of_scope_is_not_revoked_by_the_list() {
    let refusal = CA.refusal(|list| {
        list.revoke(&[]);
        list.scope(&[tlv(0x82, &[&[0xff]])]);
    });
    assert_eq!(refusal, Refusal::WrongKind { only: Kind::Ca });
    assert_eq!(refusal.kind(), RefusalKind::NoAnswer);
}

#[test]
fn refuses_scopes_that_contradict_themselves() {
    let both = [tlv(0x81, &[&[0xff]]), tlv(0x82, &[&[0xff]])];
    let swapped = [tlv(0x82, &[&[0xff]]), tlv(0x81, &[&[0xff]])];
    let odd = [tlv(0x81, &[&[0x01]])];
    let name = tlv(0xa2, &[]);
    let nameless = [tlv(0xa0, &[&name])];
    let two_names = [tlv(0xa0, &[&full_name(&[]), &full_name(&[])])];
    for fields in [&[][..], &both, &swapped, &odd, &nameless, &two_names] {
        let refusal = judge(&CA.leaf, fields).expect_err("refused");
        assert_eq!(refusal.kind(), RefusalKind::Malformed, "{refusal}");
    }
}

#[test]
fn the_lists_distribution_point_must_be_one_of_the_certificates() {
    let of = |uri: &str| CrlIssuingDistributionPoint {
        distribution_point: CrlDistributionPoint {
            uris: vec!["ldap://x".into(), uri.into()],
        },
        scope: Some(CrlScope::UserCertsOnly),
    };
    let judge = |point| {
        let params = rcgen::CertificateRevocationListParams {
            this_update: now().into(),
            next_update: (now() + super::DAY).into(),
            crl_number: 1_u64.into(),
            issuing_distribution_point: Some(point),
            revoked_certs: Vec::new(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        CA.judge(params.signed_by(&*CA.issuer).expect("signed").der())
    };
    judge(of(POINT)).expect("one of both is the certificate's");
    let refusal = judge(of("http://crl.test/2.crl")).expect_err("another part");
    assert_eq!(refusal.kind(), RefusalKind::NoAnswer);
    let text = refusal.to_string();
    assert!(text.contains("http://crl.test/2.crl"), "{text}");
    assert!(text.contains(POINT), "{text}");
}

#[test]
fn a_certificate_without_distribution_points_has_its_issuers_name_as_one() {
    let bare = CA.issue(|_| ());
    let part = [tlv(0xa0, &[&full_name(&[uri(POINT)])])];
    let text = judge(&bare, &part).expect_err("not its").to_string();
    assert!(text.contains("no distribution point"), "{text}");
    let whole = [tlv(0xa0, &[&full_name(&[directory(&name("ca"))])])];
    judge(&bare, &whole).expect("the issuer's own");
    judge(&bare, &[tlv(0x81, &[&[0xff]])]).expect("no point at all");
}

#[test]
fn names_relative_to_the_issuer_are_the_same_as_full_ones() {
    let full = full_name(&[directory(&name_of(&["ca", "part 1"]))]);
    let relative = relative_name("part 1");
    for own in [&full, &relative] {
        let leaf = CA.issue(|params| {
            params.custom_extensions = vec![distribution_points(sequence(&[&point(own)]))];
        });
        for lists in [&full, &relative] {
            judge(&leaf, &[tlv(0xa0, &[lists])]).expect("the same name");
        }
        let other = relative_name("part 2");
        let refusal = judge(&leaf, &[tlv(0xa0, &[&other])]).expect_err("another");
        assert!(matches!(refusal, Refusal::OtherPoint { .. }), "{refusal}");
    }
}

#[test]
fn a_distribution_point_with_another_issuer_is_not_the_lists() {
    let name = full_name(&[uri(POINT)]);
    let elsewhere = sequence(&[
        &tlv(0xa0, &[&name]),
        &tlv(0xa2, &[&directory(&super::name("other"))]),
    ]);
    let leaf = CA.issue(|params| {
        params.custom_extensions = vec![distribution_points(sequence(&[&elsewhere]))];
    });
    for fields in [&[tlv(0xa0, &[&name])], &[tlv(0x81, &[&[0xff]])]] {
        let refusal = judge(&leaf, fields).expect_err("another CA's");
        assert_eq!(refusal, Refusal::KeptElsewhere);
    }
    let both = CA.issue(|params| {
        let points = sequence(&[&elsewhere, &point(&full_name(&[uri("http://x")]))]);
        params.custom_extensions = vec![distribution_points(points)];
    });
    judge(&both, &[tlv(0x81, &[&[0xff]])]).expect("the issuer keeps lists, too");
    let refusal = judge(&both, &[tlv(0xa0, &[&name])]).expect_err("not this one");
    assert!(matches!(refusal, Refusal::OtherPoint { .. }), "{refusal}");
}

#[test]
fn a_list_of_some_reasons_revokes_and_never_clears() {
    // keyCompromise and cACompromise.
    let some = [tlv(0x83, &[&[5, 0b0110_0000]])];
    let refusal = judge(&CA.leaf, &some).expect_err("others are not covered");
    assert_eq!(refusal.kind(), RefusalKind::NoAnswer);
    let text = refusal.to_string();
    assert!(text.contains("keyCompromise, cACompromise"), "{text}");
    let refusal = CA.refusal(|list| {
        list.revoke(&[]);
        list.scope(&some);
    });
    assert_eq!(refusal.kind(), RefusalKind::Revoked);
    // Bits 1 to 8.
    judge(&CA.leaf, &[tlv(0x83, &[&[7, 0x7f, 0x80]])]).expect("all reasons");
}

#[test]
fn a_certificate_that_sends_some_reasons_here_is_not_cleared_here() {
    let name = full_name(&[uri(POINT)]);
    let at = tlv(0xa0, &[&name]);
    let (first, rest) = (tlv(0x81, &[&[6, 0x40]]), tlv(0x81, &[&[7, 0x3f, 0x80]]));
    let leaf = |points: Vec<u8>| {
        CA.issue(|params| params.custom_extensions = vec![distribution_points(points)])
    };
    let some = leaf(sequence(&[&sequence(&[&at, &first])]));
    let refusal = judge(&some, from_ref(&at)).expect_err("some reasons only");
    assert!(matches!(refusal, Refusal::SomeReasons { .. }), "{refusal}");
    let all = leaf(sequence(&[
        &sequence(&[&at, &first]),
        &sequence(&[&at, &rest]),
    ]));
    judge(&all, &[at]).expect("together they are all");
}

/// The verdict on a list with an issuing distribution point of these fields.
fn judge(leaf: &CertificateDer<'_>, fields: &[Vec<u8>]) -> Result<NotRevoked, Refusal> {
    let mut list = List::new();
    list.scope(fields);
    let (crl, policy) = (CA.sign(&list), Policy::default());
    verify(&crl, leaf, from_ref(CA.issuer.der()), &policy, now())
}
