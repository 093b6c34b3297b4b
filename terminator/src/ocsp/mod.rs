//! OCSP (RFC 6960, RFC 9919): requests built, responses verified. Pure: no clock, no I/O.
//!
//! [`Request`] says what to send, [`verify`] judges what came back. What passes is a
//! [`VerifiedStaple`], bound to one certificate; what does not is a [`Refusal`], of which
//! [`Refusal::Revoked`] is a verified statement of the CA and every other one is not. The caller
//! fetches, keeps time, and compares [`VerifiedStaple::not_after`] with the clock before each use.

mod cert_id;
mod nonce;
mod refusal;
mod request;
mod response;
mod revocation;
mod signer;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;

pub use nonce::{Nonce, NonceRule};
pub use refusal::{Place, Refusal, RefusalKind, Unsuccessful};
pub use request::Request;
pub use revocation::Revocation;
pub use signer::Signer;
pub use verify::{VerifiedStaple, verify};

/// What the verifier lets pass beyond the strict reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How far the clock of the responder may be ahead of ours. Nothing is added to nextUpdate:
    /// clients compare it with their own clocks.
    pub skew: Duration,
    /// Oldest response taken where the response names no nextUpdate.
    pub max_age: Duration,
    /// Take SHA-1 signatures (legacy responders).
    pub allow_sha1: bool,
    /// Certificates that may sign responses without the CA's word (RFC 6960 section 4.2.2.2, the
    /// local configuration of OCSP signing authority).
    pub trusted: Arc<[CertificateDer<'static>]>,
    /// What the response must say about the request's nonce.
    pub nonce: NonceRule,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            skew: Duration::from_secs(300),
            max_age: Duration::from_secs(7 * 86400),
            allow_sha1: false,
            trusted: Arc::default(),
            nonce: NonceRule::Any,
        }
    }
}
