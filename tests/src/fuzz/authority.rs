//! An authority that is the same in every run, so that what it signed once verifies in the next:
//! fixed Ed25519 keys, whose signatures involve no chance, fixed serial numbers and a fixed time.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SerialNumber, SigningKey as _,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// The authority, made once in a process.
pub(super) static AUTHORITY: LazyLock<Authority> = LazyLock::new(Authority::new);

/// Issuer, leaf and delegated responder.
pub(super) struct Authority {
    pub(super) issuer: CertifiedIssuer<'static, KeyPair>,
    /// The certificate in question.
    pub(super) leaf: CertificateDer<'static>,
    pub(super) leaf_pem: String,
    pub(super) leaf_key_pem: String,
    /// Another certificate of the same issuer.
    pub(super) other_leaf: CertificateDer<'static>,
    pub(super) delegate: CertificateDer<'static>,
    pub(super) delegate_key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = params("Fuzz CA", 1);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, key(1)).expect("a sound certificate");
        let leaf_key = key(2);
        let leaf = issue(&issuer, "a.example", 0x55, &leaf_key, |_| ());
        let other_leaf = issue(&issuer, "b.example", 0x66, &key(3), |_| ());
        let delegate_key = key(4);
        let delegate = issue(&issuer, "Responder", 0x77, &delegate_key, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
        });
        Self {
            issuer,
            leaf_pem: leaf.pem(),
            leaf: leaf.into(),
            leaf_key_pem: leaf_key.serialize_pem(),
            other_leaf: other_leaf.into(),
            delegate: delegate.into(),
            delegate_key,
        }
    }

    /// Wraps what is to be signed: itself, the algorithm, the signature of `key`, and `more`.
    pub(super) fn signed(&self, tbs: &[u8], key: &KeyPair, more: &[u8]) -> Vec<u8> {
        let signature = key.sign(tbs).expect("Ed25519 signs anything");
        let signature = tlv(0x03, &[&[0], &signature[..]].concat());
        tlv(0x30, &[tbs, &ED25519, &signature, more].concat())
    }
}

fn issue(
    issuer: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    serial: u8,
    key: &KeyPair,
    change: impl FnOnce(&mut CertificateParams),
) -> rcgen::Certificate {
    let mut params = params(name, serial);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    change(&mut params);
    params.signed_by(key, issuer).expect("a sound certificate")
}

fn params(name: &str, serial: u8) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.replace(' ', "-")]).expect("a name");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(vec![serial; 8]));
    params.not_before = (at() - 10 * DAY).into();
    params.not_after = (at() + 80 * DAY).into();
    params
}

/// The key number `n`: PKCS#8 (RFC 8410 section 7) around a seed of 32 equal bytes.
fn key(n: u8) -> KeyPair {
    let head = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    let der = PrivatePkcs8KeyDer::from([&head[..], &[n; 32]].concat());
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519).expect("an Ed25519 key")
}

/// A DER element with a content of less than 64 KiB.
pub(super) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).map_or([0xff; 2], u16::to_be_bytes);
    let length = match (high, low) {
        (0, ..0x80) => vec![low],
        (0, _) => vec![0x81, low],
        _ => vec![0x82, high, low],
    };
    [&[tag], &length[..], content].concat()
}

/// The content of the first element in `der`, and the bytes of the element with its header.
pub(super) fn first_element(der: &[u8]) -> (&[u8], &[u8]) {
    let (header, length) = match der[1] {
        0x82 => (4, usize::from(u16::from_be_bytes([der[2], der[3]]))),
        0x81 => (3, usize::from(der[2])),
        short => (2, usize::from(short)),
    };
    (&der[header..header + length], &der[..header + length])
}

/// The instant at which everything is judged.
pub(super) fn at() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// AlgorithmIdentifier of Ed25519 (RFC 8410 section 3).
const ED25519: [u8; 7] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
