//! The certificate in question and its issuer, as a CertID names them (RFC 6960 section 4.1.1).

use aws_lc_rs::digest;
use rasn::types::{Any, Integer, ObjectIdentifier, OctetString, Oid};
use rasn_ocsp::CertId;
use rasn_pkix::AlgorithmIdentifier;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;

use super::Refusal;
use crate::certificate::{is_issued, parse_certificate};
use crate::config::CertIdHash;

/// A leaf and its issuer, parsed.
pub(super) struct Subject<'a> {
    leaf: X509Certificate<'a>,
    leaf_der: &'a [u8],
    pub(super) issuer: X509Certificate<'a>,
    serial: Integer,
}

impl<'a> Subject<'a> {
    pub(super) fn parse(
        leaf_der: &'a CertificateDer<'_>,
        issuer: &'a CertificateDer<'_>,
    ) -> Result<Self, Refusal> {
        let parse = |der: &'a CertificateDer<'_>, whose| {
            parse_certificate(der).map_err(|error| Refusal::Certificate {
                whose,
                reason: error.to_string(),
            })
        };
        let leaf = parse(leaf_der, "in question")?;
        let issuer = parse(issuer, "of the issuer")?;
        let serial = integer(leaf.raw_serial()).ok_or_else(|| Refusal::Certificate {
            whose: "in question",
            reason: "its serial number cannot be encoded".to_owned(),
        })?;
        Ok(Self {
            leaf,
            leaf_der,
            issuer,
            serial,
        })
    }

    /// Whether the issuer really issued the leaf.
    pub(super) fn is_issued(&self) -> bool {
        is_issued(self.leaf_der, &self.leaf, &self.issuer)
    }

    /// By SHA-1 as RFC 9919 section 3.1.1 has it, or by SHA-256: the digest names the issuer, it
    /// protects nothing.
    pub(super) fn cert_id(&self, hash: CertIdHash) -> CertId {
        self.cert_id_with(match hash {
            CertIdHash::Sha1 => &SHA1,
            CertIdHash::Sha256 => &SHA256,
        })
    }

    /// Whether a CertID, by SHA-1 or SHA-256, means this certificate.
    pub(super) fn is(&self, id: &CertId) -> bool {
        let oid = &id.hash_algorithm.algorithm;
        let known = [&SHA1, &SHA256].into_iter().find(|hash| *oid == hash.oid());
        known.is_some_and(|hash| {
            let own = self.cert_id_with(hash);
            own.issuer_name_hash == id.issuer_name_hash
                && own.issuer_key_hash == id.issuer_key_hash
                && own.serial_number == id.serial_number
        })
    }

    /// The serial number in hexadecimal.
    pub(super) fn serial(&self) -> String {
        hex(self.leaf.raw_serial())
    }

    fn cert_id_with(&self, hash: &Hash) -> CertId {
        let key = &self.issuer.public_key().subject_public_key;
        CertId {
            hash_algorithm: AlgorithmIdentifier {
                algorithm: hash.oid(),
                parameters: Some(Any::new(vec![0x05, 0x00])),
            },
            issuer_name_hash: hash.of(self.issuer.subject().as_raw()),
            issuer_key_hash: hash.of(&key.data),
            serial_number: self.serial.clone(),
        }
    }
}

/// The KeyHash of a ResponderID (RFC 6960 section 4.2.1): SHA-1 of the public key's bits.
pub(super) fn key_hash(certificate: &X509Certificate<'_>) -> OctetString {
    SHA1.of(&certificate.public_key().subject_public_key.data)
}

/// The serial number of a CertID in hexadecimal.
pub(super) fn serial_of(id: &CertId) -> String {
    let der = rasn::der::encode(&id.serial_number).unwrap_or_default();
    match der.as_slice() {
        [_, length, content @ ..] if *length < 0x80 => hex(content),
        all => hex(all),
    }
}

struct Hash {
    algorithm: &'static digest::Algorithm,
    arcs: &'static [u32],
}

impl Hash {
    fn oid(&self) -> ObjectIdentifier {
        ObjectIdentifier::from(Oid::new(self.arcs).expect("arcs written below are valid"))
    }

    fn of(&self, bytes: &[u8]) -> OctetString {
        let digest = digest::digest(self.algorithm, bytes);
        OctetString::from(digest.as_ref().to_vec())
    }
}

static SHA1: Hash = Hash {
    algorithm: &digest::SHA1_FOR_LEGACY_USE_ONLY,
    arcs: &[1, 3, 14, 3, 2, 26],
};
static SHA256: Hash = Hash {
    algorithm: &digest::SHA256,
    arcs: &[2, 16, 840, 1, 101, 3, 4, 2, 1],
};

/// The INTEGER with these content bytes, of which RFC 5280 section 4.1.2.2 allows 20.
fn integer(content: &[u8]) -> Option<Integer> {
    let length = u8::try_from(content.len()).ok()?;
    if length == 0 || length >= 0x80 {
        return None;
    }
    let mut der = vec![0x02, length];
    der.extend_from_slice(content);
    rasn::der::decode(&der).ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
