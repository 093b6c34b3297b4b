//! Certificates and keys as bytes read from files become facts that hold: parsed, ordered, matched.
//!
//! Pure: no file is read and no clock is looked at here. The caller reads the files and passes the
//! bytes; what comes out proves what its type says.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;

/// SHA-256 over the DER of a leaf certificate. A staple is bound to exactly one of these.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What kind of key a certificate carries, as far as the choice between certificates cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// ECDSA on P-256, P-384 or P-521.
    Ecdsa,
    /// RSA, 2048 bits or more.
    Rsa,
    /// Ed25519.
    Ed25519,
}

/// The facts of a leaf certificate that clinch acts on.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Identity of the certificate.
    pub fingerprint: Fingerprint,
    /// SHA-256 over the SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// Subject for people: the CN, else the first name, else the fingerprint.
    pub subject: String,
    /// Issuer distinguished name for people.
    pub issuer: String,
    /// Serial number, big-endian DER content bytes.
    pub serial: Vec<u8>,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
    /// DNS names of the subjectAltName, lower case, wildcards as `*.example.com`.
    pub names: Vec<String>,
    /// Kind of the public key.
    pub key_kind: KeyKind,
    /// RFC 7633: the TLS feature extension asks for status_request.
    pub must_staple: bool,
    /// OCSP responders of the AIA extension, in order.
    pub ocsp_urls: Vec<String>,
    /// CRL distribution points (URLs), in order.
    pub crl_urls: Vec<String>,
    /// Subject equals issuer and the certificate signs itself.
    pub self_signed: bool,
}

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

impl Identity {
    /// Reads a chain and a key from PEM text and checks that they belong together.
    ///
    /// Expiry is not judged here (`validity_at` does).
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let _ = (chain, key);
        todo!()
    }

    /// The certificate that issued the leaf, where the chain carries it.
    pub fn issuer(&self) -> Option<&CertificateDer<'static>> {
        self.chain.get(1)
    }
}

/// Why a chain and a key cannot be used, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {}

impl Leaf {
    /// Reads the facts of a leaf certificate from its DER.
    pub fn parse(der: &[u8]) -> Result<Self, IdentityError> {
        let _ = der;
        todo!()
    }
}
