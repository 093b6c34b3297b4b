//! The memory that a long list takes beyond its own bytes. A test binary of its own, because the
//! kernel counts for the whole process.

use std::fs;
use std::time::SystemTime;

use clinch::clock;
use clinch::crl::{Policy, Refusal, RefusalKind, verify};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams, SerialNumber,
};

/// About 14 MB of list.
const ENTRIES: u64 = 300_000;
/// A tenth of what the bytes of the list take; a record of each entry would take more than that.
const BOUND: u64 = 1024 * 1024;

#[test]
fn a_list_of_300_000_entries_is_judged_in_less_than_a_megabyte() {
    let at = clock::parse_rfc3339("2026-05-01T12:00:00Z").expect("valid");
    let issuer = issuer();
    let leaf = |serial: u64| {
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from(serial_of(serial)));
        let key = KeyPair::generate().expect("a key");
        params.signed_by(&key, &issuer).expect("a leaf").into()
    };
    let (listed, unlisted) = (leaf(ENTRIES - 1), leaf(ENTRIES));
    let crl = long_list(&issuer, at);
    assert!(crl.len() > 12_000_000, "{} bytes", crl.len());

    let before = reset_peak();
    let judge = |leaf| {
        verify(
            &crl,
            leaf,
            std::slice::from_ref(issuer.der()),
            &Policy::default(),
            at,
        )
    };
    let proof = judge(&unlisted).expect("not listed");
    let revoked: Refusal = judge(&listed).expect_err("the last one listed");
    let taken = status("VmHWM") - before;

    assert_eq!(proof.entries() as u64, ENTRIES);
    assert_eq!(revoked.kind(), RefusalKind::Revoked);
    assert!(taken < BOUND, "{taken} bytes for {ENTRIES} entries");
}

fn issuer() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a CA")
}

fn long_list(issuer: &CertifiedIssuer<'static, KeyPair>, at: SystemTime) -> Vec<u8> {
    let revoked = |serial| RevokedCertParams {
        serial_number: SerialNumber::from(serial_of(serial)),
        revocation_time: at.into(),
        reason_code: Some(RevocationReason::Superseded),
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: at.into(),
        next_update: (at + std::time::Duration::from_secs(86_400)).into(),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: (0..ENTRIES).map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).expect("signed").der().to_vec()
}

/// Sixteen bytes, as public CAs have them.
fn serial_of(number: u64) -> Vec<u8> {
    [[0x40; 8], number.to_be_bytes()].concat()
}

/// Has the kernel count the peak from here on, and returns what is in use now (proc(5), clear_refs).
fn reset_peak() -> u64 {
    fs::write("/proc/self/clear_refs", "5").expect("Linux 4.0 or newer");
    status("VmRSS")
}

/// A field of /proc/self/status in bytes.
fn status(field: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find(|line| line.starts_with(field));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    kilobytes
        .and_then(|text| text.parse::<u64>().ok())
        .expect("a number")
        * 1024
}
