//! The signed envelope that certificates, OCSP responses and CRLs share (RFC 5280 section 4.1.1), and
//! the check of its signature.
//!
//! The signed bytes are kept as they came, never encoded anew, and the envelope must be DER to the
//! last length byte: nothing around the signed bytes can be changed without notice. Whether a key
//! *may* sign is not decided here; the caller does that.

use std::fmt;

use aws_lc_rs::signature::{self, UnparsedPublicKey};
use rasn::types::{Any, BitString};
use rasn::{AsnType, Decode, Decoder, Encode};
use rustls_pki_types::{SignatureVerificationAlgorithm, alg_id};
use webpki::aws_lc_rs as algorithms;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Bytes, and a signature over them that was not checked yet.
#[derive(AsnType, Clone, Debug, Decode, Encode)]
pub struct Signed {
    /// The signed value, DER.
    tbs: Any,
    /// AlgorithmIdentifier, DER.
    algorithm: Any,
    signature: BitString,
}

/// The same three parts where they lie, for structures too long to be copied: the caller took the
/// envelope apart and answers for its being DER.
#[derive(Clone, Copy, Debug)]
pub struct SignedParts<'a> {
    /// The signed value, DER.
    pub tbs: &'a [u8],
    /// AlgorithmIdentifier, DER.
    pub algorithm: &'a [u8],
    /// The signature's bits, of which there are whole bytes.
    pub signature: &'a [u8],
}

/// What is taken though it no longer protects by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// SHA-1: whoever may choose what is signed can choose two contents for one signature.
    pub sha1: bool,
    /// RSA keys from 1024 bits with PKCS#1: with effort, the key can be found.
    pub short_rsa: bool,
}

impl Tolerance {
    /// For questions of origin and order, where others judge the strength.
    pub const ALL: Self = Self {
        sha1: true,
        short_rsa: true,
    };
}

/// Why a signature does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The envelope or the key is not what DER and RFC 5280 say.
    #[error("the signed structure is not valid DER")]
    Malformed,
    /// Not among the algorithms taken.
    #[error("the signature algorithm {0} is not supported")]
    Unsupported(Oid),
    /// SHA-1, and the policy does not allow it.
    #[error(
        "the signature uses SHA-1, which no longer protects; allow it only if the CA cannot do better"
    )]
    Sha1,
    /// The signer's RSA key has fewer than 2048 bits.
    #[error("the signer's RSA key has fewer than 2048 bits, which no longer protects")]
    ShortKey,
    /// The algorithm needs another kind of key, or a longer one, than the signer has.
    #[error("the signature algorithm {0} does not suit the signer's key")]
    WrongKey(Oid),
    /// The signature was made by another key, or over other bytes.
    #[error("the signature was not made by the signer's key, or the signed bytes were changed")]
    Invalid,
}

/// An object identifier for people: dotted, or the algorithm's name where it is a known one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oid(String);

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Signed {
    /// Reads an envelope that fills `der` exactly.
    pub fn parse(der: &[u8]) -> Result<Self, SignatureError> {
        let signed: Self = rasn::der::decode(der).map_err(|_| SignatureError::Malformed)?;
        // rasn takes lengths longer than they must be; DER is the one encoding that comes out again.
        let again = rasn::der::encode(&signed).map_err(|_| SignatureError::Malformed)?;
        if again != der {
            return Err(SignatureError::Malformed);
        }
        Ok(signed)
    }

    /// Puts an envelope together from its parts: `tbs` and `algorithm` as DER.
    pub fn from_parts(tbs: Any, algorithm: Any, signature: BitString) -> Self {
        Self {
            tbs,
            algorithm,
            signature,
        }
    }

    /// The bytes that are signed, DER.
    pub fn tbs(&self) -> &[u8] {
        self.tbs.as_bytes()
    }

    /// The AlgorithmIdentifier beside the signature, DER.
    pub fn algorithm(&self) -> &[u8] {
        self.algorithm.as_bytes()
    }

    /// Checks the signature against a SubjectPublicKeyInfo (DER), as [`SignedParts::verify`] does.
    pub fn verify(&self, public_key: &[u8], tolerance: Tolerance) -> Result<(), SignatureError> {
        if !self.signature.len().is_multiple_of(8) {
            return Err(SignatureError::Malformed);
        }
        let parts = SignedParts {
            tbs: self.tbs(),
            algorithm: self.algorithm(),
            signature: self.signature.as_raw_slice(),
        };
        parts.verify(public_key, tolerance)
    }
}

impl SignedParts<'_> {
    /// Checks the signature against a SubjectPublicKeyInfo (DER).
    ///
    /// RSA PKCS#1 and PSS from 2048 bits, ECDSA on P-256, P-384 and P-521, each with SHA-256 to
    /// SHA-512, and Ed25519. SHA-1 with RSA or ECDSA, and shorter RSA keys, only where `tolerance`
    /// says so.
    pub fn verify(&self, public_key: &[u8], tolerance: Tolerance) -> Result<(), SignatureError> {
        let key: KeyInfo = rasn::der::decode(public_key).map_err(|_| SignatureError::Malformed)?;
        let bits = key.bits.as_raw_slice();
        let key_algorithm = content(key.algorithm.as_bytes())?;
        let algorithm = content(self.algorithm)?;
        if !key.bits.len().is_multiple_of(8) {
            return Err(SignatureError::Malformed);
        }
        let short = is_short_rsa(public_key);
        if short && !tolerance.short_rsa {
            return Err(SignatureError::ShortKey);
        }
        if RSA_SHA1.contains(&algorithm) || algorithm == ECDSA_SHA1 {
            return self.verify_sha1(algorithm, key_algorithm, bits, tolerance);
        }
        if short {
            return self.verify_short(algorithm, bits);
        }
        let mut known = false;
        for candidate in ALGORITHMS {
            if candidate.signature_alg_id().as_ref() != algorithm {
                continue;
            }
            known = true;
            if candidate.public_key_alg_id().as_ref() == key_algorithm {
                return candidate
                    .verify_signature(bits, self.tbs, self.signature)
                    .map_err(|_| SignatureError::Invalid);
            }
        }
        Err(match known {
            true => SignatureError::WrongKey(oid(algorithm)),
            false => SignatureError::Unsupported(oid(algorithm)),
        })
    }

    fn verify_sha1(
        &self,
        algorithm: &[u8],
        key_algorithm: &[u8],
        bits: &[u8],
        tolerance: Tolerance,
    ) -> Result<(), SignatureError> {
        if !tolerance.sha1 {
            return Err(SignatureError::Sha1);
        }
        let is = |id: rustls_pki_types::AlgorithmIdentifier| id.as_ref() == key_algorithm;
        let verifier: &'static dyn signature::VerificationAlgorithm =
            if RSA_SHA1.contains(&algorithm) && is(alg_id::RSA_ENCRYPTION) {
                &signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY
            } else if algorithm == ECDSA_SHA1 && is(alg_id::ECDSA_P256) {
                &signature::ECDSA_P256_SHA1_ASN1
            } else {
                return Err(SignatureError::WrongKey(oid(algorithm)));
            };
        self.verify_with(verifier, bits)
    }

    /// RSA from 1024 to 2047 bits.
    fn verify_short(&self, algorithm: &[u8], bits: &[u8]) -> Result<(), SignatureError> {
        let is = |id: rustls_pki_types::AlgorithmIdentifier| id.as_ref() == algorithm;
        let verifier = if is(alg_id::RSA_PKCS1_SHA256) {
            &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY
        } else if is(alg_id::RSA_PKCS1_SHA512) {
            &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY
        } else {
            return Err(SignatureError::WrongKey(oid(algorithm)));
        };
        self.verify_with(verifier, bits)
    }

    fn verify_with(
        &self,
        verifier: &'static dyn signature::VerificationAlgorithm,
        bits: &[u8],
    ) -> Result<(), SignatureError> {
        UnparsedPublicKey::new(verifier, bits)
            .verify(self.tbs, self.signature)
            .map_err(|_| SignatureError::Invalid)
    }
}

/// SubjectPublicKeyInfo with the algorithm as it came.
#[derive(AsnType, Debug, Decode)]
struct KeyInfo {
    algorithm: Any,
    bits: BitString,
}

/// Whether a SubjectPublicKeyInfo has an RSA key of fewer than 2048 bits. What does not parse fails in
/// the verification.
fn is_short_rsa(public_key: &[u8]) -> bool {
    let Ok((_, key)) = SubjectPublicKeyInfo::from_der(public_key) else {
        return false;
    };
    matches!(key.parsed(), Ok(PublicKey::RSA(rsa)) if rsa.key_size() < 2048)
}

/// What is inside an AlgorithmIdentifier's SEQUENCE. All that are supported are short.
fn content(algorithm: &[u8]) -> Result<&[u8], SignatureError> {
    match algorithm {
        [0x30, length, content @ ..] if *length < 0x80 && content.len() == usize::from(*length) => {
            Ok(content)
        }
        _ => Err(SignatureError::Malformed),
    }
}

fn oid(algorithm: &[u8]) -> Oid {
    let id = rasn::der::decode_with_remainder::<rasn::types::ObjectIdentifier>(algorithm);
    let Ok((id, _)) = id else {
        return Oid("that is not an object identifier".to_owned());
    };
    let arcs: Vec<String> = id.iter().map(u32::to_string).collect();
    let dotted = arcs.join(".");
    let known = NAMES.iter().find(|(known, _)| *known == dotted);
    Oid(known.map_or(dotted, |(_, name)| (*name).to_owned()))
}

static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P256_SHA512,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ECDSA_P384_SHA512,
    algorithms::ECDSA_P521_SHA256,
    algorithms::ECDSA_P521_SHA384,
    algorithms::ECDSA_P521_SHA512,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
    algorithms::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
    algorithms::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
    algorithms::ED25519,
];

/// sha1WithRSAEncryption, with the NULL that RFC 3279 section 2.2.1 demands and without, as some sign.
const RSA_SHA1: [&[u8]; 2] = [
    &[
        0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05, 0x05, 0x00,
    ],
    &[
        0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05,
    ],
];
/// ecdsa-with-SHA1.
const ECDSA_SHA1: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];

const NAMES: &[(&str, &str)] = &[
    ("1.2.840.113549.1.1.4", "MD5 with RSA"),
    ("1.2.840.113549.1.1.5", "SHA-1 with RSA"),
    ("1.2.840.113549.1.1.10", "RSA-PSS"),
    ("1.2.840.113549.1.1.11", "SHA-256 with RSA"),
    ("1.2.840.113549.1.1.12", "SHA-384 with RSA"),
    ("1.2.840.113549.1.1.13", "SHA-512 with RSA"),
    ("1.2.840.10045.4.1", "ECDSA with SHA-1"),
    ("1.2.840.10045.4.3.2", "ECDSA with SHA-256"),
    ("1.2.840.10045.4.3.3", "ECDSA with SHA-384"),
    ("1.2.840.10045.4.3.4", "ECDSA with SHA-512"),
    ("1.3.101.112", "Ed25519"),
];
