//! OCSP responses. The bytes are judged as they are, and once more as the signed part of a response
//! with a signature that is right, since no fuzzer guesses one.

use clinch::ocsp::{self, Policy, VerifiedStaple};
use rasn::types::{Any, GeneralizedTime, Integer, ObjectIdentifier, OctetString, Oid};
use rasn_ocsp::{
    CertId, CertStatus, OcspRequest, ResponderId, ResponseData, RevokedInfo, SingleResponse,
};
use rasn_pkix::{Certificate, Extension, Extensions};
use rustls::pki_types::CertificateDer;

use super::Seed;
use super::authority::{AUTHORITY, Authority, DAY, at, tlv};

/// Judges an OCSP response; true where it is taken.
///
/// # Panics
/// When a response is taken that must not be: after its end, for another certificate, or with a byte
/// more than was signed.
pub fn ocsp(bytes: &[u8]) -> bool {
    let authority = &*AUTHORITY;
    let mut taken = judge(authority, bytes);
    if bytes.first() == Some(&0x30) && bytes.len() < 0x8000 {
        taken |= judge(authority, &by_issuer(authority, bytes));
        taken |= judge(authority, &by_delegate(authority, bytes));
    }
    taken
}

fn judge(authority: &Authority, response: &[u8]) -> bool {
    let policy = Policy::default();
    let verify = |response: &[u8], leaf: &CertificateDer<'_>, at| {
        ocsp::verify(response, leaf, authority.issuer.der(), &policy, at)
    };
    let verdict = verify(response, &authority.leaf, at());
    match &verdict {
        Err(refusal) => drop(refusal.to_string()),
        Ok(staple) => {
            assert_eq!(staple.der(), response);
            assert!(staple.not_after() > at() && staple.this_update() <= at() + policy.skew);
            refused(
                "at its end",
                verify(response, &authority.leaf, staple.not_after()),
            );
            let early = staple.this_update().max(staple.produced_at()) - policy.skew;
            let early = early - std::time::Duration::from_secs(1);
            refused("before its time", verify(response, &authority.leaf, early));
            let longer = [response, &[0]].concat();
            refused("with a byte more", verify(&longer, &authority.leaf, at()));
        }
    }
    // A response may speak of both certificates; then each verdict is right by itself.
    if let (Ok(one), Ok(other)) = (&verdict, verify(response, &authority.other_leaf, at())) {
        assert_ne!(one.certificate(), other.certificate());
    }
    verdict.is_ok()
}

#[track_caller]
fn refused(when: &str, verdict: Result<VerifiedStaple, ocsp::Refusal>) {
    assert!(verdict.is_err(), "taken {when}: {verdict:?}");
}

fn by_issuer(authority: &Authority, data: &[u8]) -> Vec<u8> {
    successful(&authority.signed(data, authority.issuer.key(), &[]))
}

fn by_delegate(authority: &Authority, data: &[u8]) -> Vec<u8> {
    let certificates = tlv(0xa0, &tlv(0x30, &authority.delegate));
    successful(&authority.signed(data, &authority.delegate_key, &certificates))
}

/// OCSPResponse around a BasicOCSPResponse (RFC 6960 section 4.2.1).
fn successful(basic: &[u8]) -> Vec<u8> {
    let oid = [
        0x06, 0x09, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01,
    ];
    let bytes = tlv(0x30, &[&oid[..], &tlv(0x04, basic)].concat());
    let status = [0x0a, 0x01, 0x00];
    tlv(0x30, &[&status[..], &tlv(0xa0, &bytes)].concat())
}

/// Signed parts of many kinds, and whole responses around the first few.
pub(super) fn seeds() -> Vec<Seed> {
    let authority = &*AUTHORITY;
    let issuer = authority.issuer.der();
    let good = single(&authority.leaf, issuer);
    let other = single(&authority.other_leaf, issuer);
    let with = |change: &dyn Fn(&mut SingleResponse)| {
        let mut changed = good.clone();
        change(&mut changed);
        changed
    };
    let revoked = with(&|single| {
        single.cert_status = CertStatus::Revoked(RevokedInfo {
            revocation_time: time(-5),
            revocation_reason: Some(rasn_pkix::CrlReason::KeyCompromise),
        });
    });
    let unknown = with(&|single| single.cert_status = CertStatus::Unknown(()));
    let endless = with(&|single| single.next_update = None);
    let reversed = with(&|single| single.next_update = Some(time(-2)));
    let critical = with(&|single| single.single_extensions = Some(extension()));
    let parts = [
        ("good", vec![good.clone()]),
        ("revoked", vec![revoked.clone()]),
        ("unknown", vec![unknown]),
        ("without-next-update", vec![endless]),
        ("reversed", vec![reversed]),
        ("critical", vec![critical]),
        ("other", vec![other.clone()]),
        ("two", vec![other, good.clone()]),
        ("conflict", vec![good, revoked]),
        ("none", Vec::new()),
    ];
    let mut seeds = Vec::new();
    for (name, singles) in parts {
        let by_key = data(key_of_issuer(issuer), singles.clone());
        let by_name = data(name_of(&authority.delegate), singles);
        if matches!(name, "good" | "revoked" | "two") {
            seeds.push((format!("{name}-by-issuer"), by_issuer(authority, &by_key)));
            seeds.push((
                format!("{name}-by-delegate"),
                by_delegate(authority, &by_name),
            ));
        }
        if name == "good" {
            seeds.push(("delegate-signed-part".to_owned(), by_name));
        }
        seeds.push((format!("{name}-signed-part"), by_key));
    }
    for status in [1, 2, 3, 5, 6] {
        seeds.push((
            format!("unsuccessful-{status}"),
            vec![0x30, 0x03, 0x0a, 0x01, status],
        ));
    }
    seeds
}

fn data(responder_id: ResponderId, responses: Vec<SingleResponse>) -> Vec<u8> {
    let data = ResponseData {
        version: Integer::ZERO,
        responder_id,
        produced_at: time(-1),
        responses,
        response_extensions: None,
    };
    rasn::der::encode(&data).expect("sound response data")
}

/// SHA-1 of the issuer's key, which stands in every CertID too.
fn key_of_issuer(issuer: &CertificateDer<'_>) -> ResponderId {
    ResponderId::ByKey(cert_id(&AUTHORITY.leaf, issuer).issuer_key_hash)
}

fn name_of(certificate: &CertificateDer<'_>) -> ResponderId {
    let certificate: Certificate = rasn::der::decode(certificate).expect("our own certificate");
    ResponderId::ByName(certificate.tbs_certificate.subject)
}

fn single(leaf: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> SingleResponse {
    SingleResponse {
        cert_id: cert_id(leaf, issuer),
        cert_status: CertStatus::Good,
        this_update: time(-1),
        next_update: Some(time(6)),
        single_extensions: None,
    }
}

/// As clinch asks for it.
fn cert_id(leaf: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> CertId {
    let request = ocsp::Request::new(leaf, issuer).expect("our own certificates");
    let request: OcspRequest = rasn::der::decode(&request.der).expect("a request");
    request.tbs_request.request_list[0].req_cert.clone()
}

fn time(days: i32) -> GeneralizedTime {
    let length = DAY * days.unsigned_abs();
    let instant = if days < 0 {
        at() - length
    } else {
        at() + length
    };
    GeneralizedTime::parse_from_rfc3339(&clinch::clock::rfc3339(instant)).expect("a time")
}

fn extension() -> Extensions {
    let arcs = Oid::new(&[1, 3, 6, 1, 4, 1, 99_999, 1]).expect("arcs");
    Extensions::from(vec![Extension {
        extn_id: ObjectIdentifier::from(arcs),
        critical: true,
        extn_value: OctetString::from(Any::new(vec![5, 0]).as_bytes().to_vec()),
    }])
}
