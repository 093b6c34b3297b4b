//! What control does with responders and CRLs: an OCSP request built, a response read and verified, a
//! list walked.

use std::hint::black_box;
use std::time::SystemTime;

use clinch::cli::demo::authority::{
    Authority, HashAlgorithm, KeyAlgorithm, LeafSpec, OcspAnswer, Signer,
};
use clinch::crl;
use clinch::ocsp::{Policy, RefusalKind, Request, verify};
use criterion::{BenchmarkId, Criterion, Throughput};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::CertificateDer;

use super::{made, verified};

/// A request built; a response read; a response read and verified, from a delegated responder (two
/// signatures) and from the issuer itself (one).
pub(super) fn ocsp(c: &mut Criterion) {
    let now = SystemTime::now();
    let authority = Authority::new(now).expect("an authority");
    let issued = authority.issue(&LeafSpec {
        names: vec![super::NAME.to_owned()],
        ..LeafSpec::default()
    });
    let issued = issued.expect("a leaf");
    let sign = |answer: OcspAnswer| {
        let response = authority.respond_about(&answer, &issued.serial, HashAlgorithm::Sha1);
        response.expect("a response")
    };
    c.bench_function("ocsp/request", |b| {
        b.iter(|| Request::new(black_box(&issued.leaf), &issued.issuer).expect("a request"));
    });
    // Without the delegate's certificate nobody is found whose signature could be looked at.
    let unsigned = sign(OcspAnswer {
        with_certificate: false,
        ..OcspAnswer::good(now)
    });
    let judge = |response: &[u8]| {
        verify(
            response,
            &issued.leaf,
            &issued.issuer,
            &Policy::default(),
            now,
        )
    };
    c.bench_function("ocsp/response read, no signer", |b| {
        b.iter(|| {
            let refusal = judge(black_box(&unsigned)).expect_err("nobody signed");
            assert_eq!(refusal.kind(), RefusalKind::Authority);
        });
    });
    let own = sign(OcspAnswer {
        signer: Signer::Issuer,
        ..OcspAnswer::good(now)
    });
    c.bench_function("ocsp/verify, signed by the issuer", |b| {
        b.iter(|| judge(black_box(&own)).expect("a good response"));
    });
    let (_directory, site) = made(KeyAlgorithm::P256);
    c.bench_function("ocsp/verify, signed by a delegate", |b| {
        b.iter(|| verified(&site))
    });
}

/// Verifying a list and finding that a certificate is not in it, by the number of its entries.
pub(super) fn crl(c: &mut Criterion) {
    let ca = ca();
    let leaf = leaf(&ca);
    let issuers = [ca.der().clone()];
    let mut group = c.benchmark_group("crl");
    for entries in [10, 1_000, 100_000] {
        let list = list(&ca, entries);
        group.throughput(Throughput::Bytes(list.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(entries), |b| {
            b.iter(|| {
                let policy = crl::Policy::default();
                let proof = crl::verify(
                    black_box(&list),
                    &leaf,
                    &issuers,
                    &policy,
                    SystemTime::now(),
                );
                assert_eq!(proof.expect("not revoked").entries(), entries);
            });
        });
    }
}

fn ca() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a CA")
}

fn leaf(ca: &CertifiedIssuer<'static, KeyPair>) -> CertificateDer<'static> {
    let mut params = CertificateParams::new([super::NAME.to_owned()]).expect("a name");
    params.serial_number = Some(SerialNumber::from(vec![0x7f; 16]));
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().expect("a key");
    params.signed_by(&key, ca).expect("a leaf").into()
}

fn list(ca: &CertifiedIssuer<'static, KeyPair>, entries: usize) -> Vec<u8> {
    let now = time::OffsetDateTime::now_utc();
    let revoked = (1..=entries as u64).map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from((serial << 16).to_be_bytes().to_vec()),
        revocation_time: now - time::Duration::days(1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: now - time::Duration::hours(1),
        next_update: now + time::Duration::days(1),
        crl_number: SerialNumber::from(vec![1]),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(ca).expect("a list").der().to_vec()
}
