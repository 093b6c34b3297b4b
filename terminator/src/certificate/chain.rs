//! A chain and its key: read from PEM, put to the test that each certificate was issued and signed
//! by the next, and that the key is the leaf's.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::{any_ecdsa_type, any_supported_type};
use rustls::sign::SigningKey;
use rustls_pki_types::pem::{Error as PemError, PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroize as _;

use super::leaf::{parse_certificate, printable};
use super::{IdentityError, KeyKind, Leaf, Signed, Tolerance};

/// A certificate chain whose leaf was parsed, whose order was checked (each certificate is issued
/// and signed by the next), and whose key is the leaf's.
pub struct Identity {
    /// Leaf first, then issuers.
    pub chain: Vec<CertificateDer<'static>>,
    /// Facts of `chain[0]`.
    pub leaf: Leaf,
    /// The leaf's private key. Its bytes are wiped when the identity is dropped.
    pub key: PrivateKeyDer<'static>,
}

/// Something about a chain that does not prevent serving, with its consequence and remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainNote {
    /// The leaf's issuer is not in the file.
    IssuerMissing {
        /// The issuer's name.
        issuer: String,
    },
    /// The leaf signs itself.
    SelfSigned,
}

impl Identity {
    /// Reads a chain and a key from PEM text and checks that they belong together.
    ///
    /// Expiry is not judged here ([`Leaf::validity_at`] does). A chain without the leaf's issuer is
    /// taken; [`Identity::note`] explains what that means.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let chain = certificates_from_pem(chain)?;
        check_order(&chain)?;
        let leaf = Leaf::parse(&chain[0])?;
        // The identity is made before the key is judged, so that the key is wiped in any case.
        let identity = Self {
            key: key_from_pem(key)?,
            leaf,
            chain,
        };
        check_key(&identity)?;
        Ok(identity)
    }

    /// Whether this key is what a PEM text holds, byte for byte.
    pub fn has_key(&self, pem: &[u8]) -> bool {
        key_from_pem(pem).is_ok_and(|mut key| {
            let same = key == self.key;
            key.zeroize();
            same
        })
    }

    /// A key object that signs, made anew.
    ///
    /// What the leaf says about the key's kind is tried first: to try RSA, as rustls does, parses a key
    /// for ECDSA twice, and each time its point is computed.
    ///
    /// # Errors
    /// The key is malformed, or of a kind that rustls does not sign with.
    pub fn signing_key(&self) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        if self.leaf.key_kind == KeyKind::Ecdsa
            && let Ok(key) = any_ecdsa_type(&self.key)
        {
            return Ok(key);
        }
        any_supported_type(&self.key)
    }

    /// The certificate that issued the leaf, where the chain carries it.
    pub fn issuer(&self) -> Option<&CertificateDer<'static>> {
        self.chain.get(1)
    }

    /// What an operator should know about the chain, if anything.
    pub fn note(&self) -> Option<ChainNote> {
        if self.leaf.self_signed {
            return Some(ChainNote::SelfSigned);
        }
        self.issuer().is_none().then(|| ChainNote::IssuerMissing {
            issuer: self.leaf.issuer.clone(),
        })
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl fmt::Display for ChainNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IssuerMissing { issuer } => write!(
                f,
                "the certificate file holds only the leaf, not its issuer ({issuer}): many clients will \
                 not trust it, and no OCSP response can be asked for or verified; append the issuer's \
                 certificate to the file"
            ),
            Self::SelfSigned => f.write_str(
                "the certificate is self-signed: nobody but its owner can say whether it is revoked, \
                 so nothing is stapled",
            ),
        }
    }
}

/// Reads every certificate of a PEM text, in order; there is at least one.
pub fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| IdentityError::Pem(pem_error(&error)))?;
    if chain.is_empty() {
        let binary = pem.first() == Some(&0x30);
        return Err(IdentityError::NoCertificate { binary });
    }
    Ok(chain)
}

fn key_from_pem(pem: &[u8]) -> Result<PrivateKeyDer<'static>, IdentityError> {
    if ENCRYPTED.iter().any(|marker| contains(pem, marker)) {
        return Err(IdentityError::EncryptedKey);
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        PemError::NoItemsFound => IdentityError::NoKey {
            certificate: <(SectionKind, Vec<u8>)>::pem_slice_iter(pem)
                .any(|section| matches!(section, Ok((SectionKind::Certificate, _)))),
        },
        error => IdentityError::Pem(pem_error(&error)),
    })
}

/// The file's own lines are left out: they may be those of a key.
fn pem_error(error: &PemError) -> String {
    match error {
        PemError::MissingSectionEnd { .. } => "a section has no END line".to_owned(),
        PemError::IllegalSectionStart { .. } => "a BEGIN line is not well formed".to_owned(),
        PemError::Base64Decode(_) => "a section is not base64".to_owned(),
        other => other.to_string(),
    }
}

fn check_key(identity: &Identity) -> Result<(), IdentityError> {
    let signer = identity
        .signing_key()
        .map_err(|error| IdentityError::BadKey(error.to_string()))?;
    let certificate = parse_certificate(&identity.chain[0])?;
    let own = signer.public_key();
    if own.is_none_or(|own| own.as_ref() != certificate.public_key().raw) {
        let subject = identity.leaf.subject.clone();
        return Err(IdentityError::KeyMismatch { subject });
    }
    Ok(())
}

/// What the order of a chain depends on.
struct Link<'a> {
    der: &'a CertificateDer<'static>,
    subject: &'a [u8],
    issuer: &'a [u8],
    public_key: &'a [u8],
    /// Subject and issuer for people.
    said: (String, String),
}

fn check_order(chain: &[CertificateDer<'static>]) -> Result<(), IdentityError> {
    let parsed = chain
        .iter()
        .enumerate()
        .map(|(i, der)| parse_certificate(der).map_err(|error| broken(i + 1, &error)))
        .collect::<Result<Vec<_>, _>>()?;
    let links: Vec<Link<'_>> = chain
        .iter()
        .zip(&parsed)
        .map(|(der, certificate)| Link {
            der,
            subject: certificate.subject().as_raw(),
            issuer: certificate.issuer().as_raw(),
            public_key: certificate.public_key().raw,
            said: (
                printable(&certificate.subject().to_string()),
                printable(&certificate.issuer().to_string()),
            ),
        })
        .collect();
    let Some((at, reason)) = first_break(&links) else {
        return Ok(());
    };
    for (second, link) in links.iter().enumerate() {
        if let Some(first) = links[..second].iter().position(|l| l.der == link.der) {
            let (first, second) = (first + 1, second + 1);
            return Err(IdentityError::Duplicate { first, second });
        }
    }
    if let Some(right) = right_order(&links) {
        return Err(IdentityError::WrongOrder { right });
    }
    let (position, subject) = (at + 1, links[at].said.0.clone());
    Err(match reason {
        Some(reason) => IdentityError::NotSigned {
            position,
            subject,
            reason,
        },
        None => IdentityError::Unrelated {
            position,
            subject,
            wanted: links[at - 1].said.1.clone(),
        },
    })
}

/// Index of the first certificate that did not issue the one before it, and what is wrong with the
/// signature where the names fit.
fn first_break(links: &[Link<'_>]) -> Option<(usize, Option<super::SignatureError>)> {
    links.windows(2).enumerate().find_map(|(i, pair)| {
        if pair[0].issuer != pair[1].subject {
            return Some((i + 1, None));
        }
        let error = signed_by(&pair[0], &pair[1]).err()?;
        Some((i + 1, Some(error)))
    })
}

/// This is about order; clients judge the strength of the CA's signature.
fn signed_by(link: &Link<'_>, issuer: &Link<'_>) -> Result<(), super::SignatureError> {
    Signed::parse(link.der)?.verify(issuer.public_key, Tolerance::ALL)
}

/// The subjects in the order in which each is followed by its issuer, if there is such an order.
fn right_order(links: &[Link<'_>]) -> Option<Vec<String>> {
    let issued = |issuer: usize, other: usize| {
        issuer != other
            && links[other].issuer == links[issuer].subject
            && signed_by(&links[other], &links[issuer]).is_ok()
    };
    let all = 0..links.len();
    let mut leaves = all.clone().filter(|&i| !all.clone().any(|j| issued(i, j)));
    let mut order = vec![leaves.next()?];
    while order.len() < links.len() {
        let last = order[order.len() - 1];
        let next = all
            .clone()
            .find(|&i| !order.contains(&i) && issued(i, last))?;
        order.push(next);
    }
    Some(order.into_iter().map(|i| links[i].said.0.clone()).collect())
}

fn broken(position: usize, error: &IdentityError) -> IdentityError {
    let reason = match error {
        IdentityError::Malformed(reason) => reason.clone(),
        other => other.to_string(),
    };
    IdentityError::BrokenCertificate { position, reason }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// PKCS#8 EncryptedPrivateKeyInfo (RFC 5958 section 3), and the older headers of RFC 1421.
const ENCRYPTED: [&[u8]; 3] = [
    b"-----BEGIN ENCRYPTED PRIVATE KEY-----",
    b"Proc-Type: 4,ENCRYPTED",
    b"DEK-Info:",
];
