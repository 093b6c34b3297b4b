//! OCSP (RFC 6960, RFC 9919): requests built, responses verified. Pure: no clock, no I/O.

use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;

use crate::certificate::Fingerprint;

/// A response that was verified in full for one certificate and says *good*: status, type,
/// signature and the signer's right to sign, CertID, validity at the time given.
///
/// Only [`verify`] makes one. It does not prove that the response is still valid: whoever sends it
/// compares [`VerifiedStaple::not_after`] with the present.
#[derive(Debug)]
pub struct VerifiedStaple {
    der: Box<[u8]>,
    certificate: Fingerprint,
    this_update: SystemTime,
    next_update: Option<SystemTime>,
    produced_at: SystemTime,
    not_after: SystemTime,
}

impl VerifiedStaple {
    /// The response as the responder sent it, DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }
    /// The leaf certificate it speaks about.
    pub fn certificate(&self) -> Fingerprint {
        self.certificate
    }
    /// When the status was known to be right.
    pub fn this_update(&self) -> SystemTime {
        self.this_update
    }
    /// When newer information will be there, if the responder says so.
    pub fn next_update(&self) -> Option<SystemTime> {
        self.next_update
    }
    /// When the responder signed.
    pub fn produced_at(&self) -> SystemTime {
        self.produced_at
    }
    /// From this instant on it must not be sent: nextUpdate, or the age bound where there is none,
    /// or the end of the responder certificate's validity if that comes first.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

/// What the verifier lets pass beyond the strict reading.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How far the clocks of responder and server may differ.
    pub skew: Duration,
    /// Oldest response taken where the response names no nextUpdate.
    pub max_age: Duration,
    /// Take SHA-1 signatures (legacy responders).
    pub allow_sha1: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            skew: Duration::from_secs(300),
            max_age: Duration::from_secs(7 * 86400),
            allow_sha1: false,
        }
    }
}

/// Why a response is not stapled. `Display` is a sentence for a person: what was wrong, in which
/// field, with both values, and what to do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {}

/// Verifies a response in full for one certificate of one issuer at one instant (RFC 6960 section 3.2).
pub fn verify(
    response: &[u8],
    leaf: &CertificateDer<'_>,
    issuer: &CertificateDer<'_>,
    policy: &Policy,
    at: SystemTime,
) -> Result<VerifiedStaple, Refusal> {
    let _ = (response, leaf, issuer, policy, at);
    todo!()
}

/// An OCSP request for one certificate.
#[derive(Clone, Debug)]
pub struct Request {
    /// DER of the OCSPRequest.
    pub der: Vec<u8>,
}

impl Request {
    /// Builds the request: one CertID, SHA-1 as the field does (RFC 9919 section 3.1.1), no nonce.
    pub fn new(leaf: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> Result<Self, Refusal> {
        let _ = (leaf, issuer);
        todo!()
    }

    /// The URL for a GET where it fits in [`crate::limits::OCSP_GET_BYTES`] (RFC 6960 appendix A.1), else `None`: POST.
    pub fn get_url(&self, responder: &str) -> Option<String> {
        let _ = responder;
        todo!()
    }
}
