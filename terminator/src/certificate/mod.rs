//! Certificates and keys as bytes read from files become facts that hold: parsed, ordered, matched.
//!
//! Pure: no file is read and no clock is looked at here. The caller reads the files and passes the
//! bytes; what comes out proves what its type says. Whether a certificate has expired, and whether
//! anybody trusts its CA, is not part of that.

mod chain;
mod error;
mod leaf;
mod revocation;
mod signed;

use std::fmt;

pub use chain::{ChainNote, Identity, certificates_from_pem};
pub use error::IdentityError;
pub use leaf::{Class, KeyKind, Leaf, ValidityError};
pub(crate) use leaf::{is_issued, parse_certificate, printable};
pub use revocation::RevocationReason;
pub use signed::{Oid, SignatureError, Signed, SignedParts, Tolerance};

/// SHA-256 over the DER of a leaf certificate. A staple is bound to exactly one of these.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub fn of(der: &[u8]) -> Self {
        Self(leaf::sha256(der))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
