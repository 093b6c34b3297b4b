//! CRLs (RFC 5280 sections 5 and 6.3): judged in full, for one certificate, at one instant. Pure: no
//! clock, no I/O.
//!
//! [`verify`] reads the list where it lies, entry by entry, and keeps none: beyond the bytes given it
//! needs the same little memory for ten entries as for a million. What passes is a [`NotRevoked`],
//! bound to one certificate; what does not is a [`Refusal`], of which [`Refusal::Revoked`] is a
//! verified statement of the CA and every other one is not. Delta and indirect CRLs are refused.
//!
//! Whether the certificate itself is still valid is not asked here, and must be elsewhere: CAs take
//! expired ones off their lists. The caller fetches, keeps time, compares [`NotRevoked::not_after`]
//! with the clock before each use, and remembers [`NotRevoked::number`] to pass it as [`Policy::last_number`] next time.

mod der;
mod entries;
mod extensions;
mod list;
mod name;
mod number;
mod refusal;
mod scope;
mod verify;

use std::time::Duration;

pub use der::DerError;
pub use list::decode;
pub use number::CrlNumber;
pub use refusal::{Kind, Place, Refusal, RefusalKind};
pub use verify::{NotRevoked, VerifiedList, verify};

/// What the verifier judges by, beyond the list itself.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How far the clock of the CA may be ahead of ours. Nothing is added to nextUpdate.
    pub skew: Duration,
    /// Oldest list taken. `None`: for as long as its nextUpdate says, and for
    /// [`AGE_WITHOUT_NEXT_UPDATE`] where it has none.
    pub max_age: Option<Duration>,
    /// Take SHA-1 signatures (legacy CAs).
    pub allow_sha1: bool,
    /// Number of the newest list seen in this place, if any: an older one is not taken.
    pub last_number: Option<CrlNumber>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            skew: Duration::from_secs(300),
            max_age: None,
            allow_sha1: false,
            last_number: None,
        }
    }
}

/// How long a list without nextUpdate is taken, unless the policy names an age.
pub const AGE_WITHOUT_NEXT_UPDATE: Duration = Duration::from_secs(7 * 86_400);
