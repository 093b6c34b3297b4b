//! Certificates and CRLs.

use std::slice::from_ref;

use clinch::certificate::{Identity, Leaf, certificates_from_pem};
use clinch::crl::{self, Policy};
use clinch::ocsp;
use rcgen::{
    CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope,
    KeyIdMethod, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::CertificateDer;

use super::authority::{AUTHORITY, Authority, DAY, at, first_element};
use super::{Seed, named};

/// Judges a CRL: the bytes as they are, and once more as the signed part of a list with a signature
/// that is right; true where it is taken.
///
/// # Panics
/// When a list is taken after its end, or two readings of it disagree.
pub fn crl(bytes: &[u8]) -> bool {
    let authority = &*AUTHORITY;
    let mut taken = crl::decode(bytes).is_ok_and(|der| judge(authority, &der));
    if bytes.first() == Some(&0x30) && bytes.len() < 0x8000 {
        taken |= judge(
            authority,
            &authority.signed(bytes, authority.issuer.key(), &[]),
        );
    }
    taken
}

fn judge(authority: &Authority, list: &[u8]) -> bool {
    let issuers = from_ref(authority.issuer.der());
    let policy = Policy::default();
    let verify = |list: &[u8], at| crl::verify(list, &authority.leaf, issuers, &policy, at);
    let verdict = verify(list, at());
    match &verdict {
        Err(refusal) => drop(refusal.to_string()),
        Ok(proof) => {
            assert!(proof.not_after() > at());
            assert!(verify(list, proof.not_after()).is_err(), "taken at its end");
            let longer = [list, &[0]].concat();
            assert!(verify(&longer, at()).is_err(), "taken with a byte more");
        }
    }
    verdict.is_ok()
}

/// Reads a certificate, as DER and as PEM, and uses it in every place that takes one; true where it
/// is one.
///
/// # Panics
/// When it leads to a verdict about nothing, or to a request that is too long for a URL.
pub fn certificate(bytes: &[u8]) -> bool {
    let authority = &*AUTHORITY;
    let leaf = Leaf::parse(bytes);
    if let Ok(leaf) = &leaf {
        let _ = (leaf.class(), leaf.validity_at(at()));
        let _ = format!("{leaf:?}");
    }
    let der = CertificateDer::from(bytes);
    for (leaf, issuer) in [(&der, authority.issuer.der()), (&authority.leaf, &der)] {
        if let Ok(request) = ocsp::Request::new(leaf, issuer) {
            let url = request.get_url("http://responder.example/");
            assert!(url.is_none_or(|url| url.len() < 400));
        }
        let verdict = ocsp::verify(&[], leaf, issuer, &ocsp::Policy::default(), at());
        assert!(verdict.is_err(), "nothing is no response");
        let verdict = crl::verify(&[], leaf, from_ref(issuer), &Policy::default(), at());
        assert!(verdict.is_err(), "nothing is no list");
    }
    let chain = certificates_from_pem(bytes);
    assert!(!chain.as_ref().is_ok_and(Vec::is_empty), "an empty chain");
    match Identity::from_pem(bytes, authority.leaf_key_pem.as_bytes()) {
        Ok(identity) => drop((identity.note().is_some(), identity.issuer().is_some())),
        Err(error) => drop(error.to_string()),
    }
    let _ = Identity::from_pem(authority.leaf_pem.as_bytes(), bytes);
    leaf.is_ok() || chain.is_ok()
}

pub(super) fn crl_seeds() -> Vec<Seed> {
    let entries = |serials: &[u8]| -> Vec<RevokedCertParams> {
        let entry = |serial: &u8| RevokedCertParams {
            serial_number: SerialNumber::from(vec![*serial; 8]),
            revocation_time: (at() - DAY).into(),
            reason_code: Some(rcgen::RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        serials.iter().map(entry).collect()
    };
    let point = |scope| CrlIssuingDistributionPoint {
        distribution_point: CrlDistributionPoint {
            uris: vec!["http://crl.example/1.crl".to_owned()],
        },
        scope,
    };
    let lists = [
        ("empty", entries(&[]), None),
        ("others", entries(&[0x11, 0x22, 0x33]), None),
        ("revoked", entries(&[0x11, 0x55]), None),
        ("point", entries(&[0x11]), Some(point(None))),
        (
            "users",
            entries(&[]),
            Some(point(Some(CrlScope::UserCertsOnly))),
        ),
        (
            "cas",
            entries(&[]),
            Some(point(Some(CrlScope::CaCertsOnly))),
        ),
    ];
    let mut seeds = Vec::new();
    for (name, revoked_certs, issuing_distribution_point) in lists {
        let params = CertificateRevocationListParams {
            this_update: (at() - DAY).into(),
            next_update: (at() + DAY).into(),
            crl_number: SerialNumber::from(7_u64),
            issuing_distribution_point,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&AUTHORITY.issuer).expect("a sound list");
        let (content, _) = first_element(list.der());
        seeds.push((
            format!("{name}-signed-part"),
            first_element(content).1.to_vec(),
        ));
        seeds.push((name.to_owned(), list.der().to_vec()));
        if name == "others" {
            seeds.push(("pem".to_owned(), list.pem().expect("PEM").into_bytes()));
        }
    }
    seeds
}

pub(super) fn certificate_seeds() -> Vec<Seed> {
    let authority = &*AUTHORITY;
    named([
        ("leaf", authority.leaf.to_vec()),
        ("issuer", authority.issuer.der().to_vec()),
        ("delegate", authority.delegate.to_vec()),
        ("leaf-pem", authority.leaf_pem.clone().into_bytes()),
        (
            "chain-pem",
            (authority.leaf_pem.clone() + &authority.issuer.pem()).into_bytes(),
        ),
        ("key-pem", authority.leaf_key_pem.clone().into_bytes()),
    ])
}
