//! Why a CA revoked a certificate, as OCSP responses and CRLs say it (RFC 5280 section 5.3.1).

use std::fmt;

use rasn_pkix::CrlReason;

/// Why a certificate was revoked (RFC 5280 section 5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevocationReason(CrlReason);

impl RevocationReason {
    /// The reason with a CRLReason's number; 7 and all beyond 10 mean nothing.
    pub fn from_code(code: u8) -> Option<Self> {
        Some(Self(match code {
            0 => CrlReason::Unspecified,
            1 => CrlReason::KeyCompromise,
            2 => CrlReason::CaCompromise,
            3 => CrlReason::AffiliationChanged,
            4 => CrlReason::Superseded,
            5 => CrlReason::CessationOfOperation,
            6 => CrlReason::CertificateHold,
            8 => CrlReason::RemoveFromCRL,
            9 => CrlReason::PrivilegeWithdrawn,
            10 => CrlReason::AaCompromise,
            _ => return None,
        }))
    }

    /// Whether the CA may take it back.
    pub fn is_hold(self) -> bool {
        self.0 == CrlReason::CertificateHold
    }

    /// Whether it takes a hold back, as only delta CRLs do.
    pub fn is_removal(self) -> bool {
        self.0 == CrlReason::RemoveFromCRL
    }
}

impl From<CrlReason> for RevocationReason {
    fn from(reason: CrlReason) -> Self {
        Self(reason)
    }
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            CrlReason::Unspecified => "unspecified",
            CrlReason::KeyCompromise => "keyCompromise",
            CrlReason::CaCompromise => "cACompromise",
            CrlReason::AffiliationChanged => "affiliationChanged",
            CrlReason::Superseded => "superseded",
            CrlReason::CessationOfOperation => "cessationOfOperation",
            CrlReason::CertificateHold => "certificateHold",
            CrlReason::RemoveFromCRL => "removeFromCRL",
            CrlReason::PrivilegeWithdrawn => "privilegeWithdrawn",
            CrlReason::AaCompromise => "aACompromise",
        })
    }
}
