//! A verified *revoked*, which outlives its response: a CA does not take a revocation back but by a
//! newer *good* after a hold (RFC 5280 section 5.3.1), so a responder that is down, or nextUpdate gone
//! by, does not make a revoked certificate good again.

use std::fmt;
use std::time::SystemTime;

use rasn_ocsp::CertStatus;
use rustls_pki_types::CertificateDer;

use super::Policy;
use super::cert_id::Subject;
use super::refusal::Refusal;
use super::response::system_time;
use super::verify::Statement;
use crate::certificate::{Fingerprint, RevocationReason};

/// A response that was verified in full for one certificate and says *revoked*. Holding one proves
/// that the CA said so at [`Revocation::this_update`]; it never runs out. Only
/// [`Revocation::verify`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    der: Box<[u8]>,
    certificate: Fingerprint,
    this_update: SystemTime,
    revoked_at: SystemTime,
    reason: Option<RevocationReason>,
}

impl Revocation {
    /// Looks for a *revoked* in a response: `None` where it is in order and says something else.
    ///
    /// Everything is verified as for a staple, but as of the instant at which the responder signed,
    /// which must not be after `at`: then the responder's certificate had to be valid, and then the
    /// statement was made.
    pub fn verify(
        response: &[u8],
        leaf: &CertificateDer<'_>,
        issuer: &CertificateDer<'_>,
        policy: &Policy,
        at: SystemTime,
    ) -> Result<Option<Self>, Refusal> {
        let subject = Subject::parse(leaf, issuer)?;
        let statement = Statement::authentic(response, &subject, policy)?;
        let mine = statement
            .singles()
            .iter()
            .filter(|s| subject.is(&s.cert_id));
        let revoked = mine.filter(|s| matches!(s.cert_status, CertStatus::Revoked(_)));
        let Some(this_update) = revoked.map(|s| system_time(&s.this_update)).max() else {
            let judge = statement.judge(policy, at);
            return judge.all(statement.singles(), &subject).map(|_| None);
        };
        let then = statement.produced_at.max(this_update);
        if at.checked_add(policy.skew).unwrap_or(at) < then {
            return Err(Refusal::NotYetValid { this_update, at });
        }
        let judge = statement.judge(policy, then);
        match judge.all(statement.singles(), &subject) {
            Err(Refusal::Revoked { revoked_at, reason }) => Ok(Some(Self {
                der: response.into(),
                certificate: Fingerprint::of(leaf),
                this_update,
                revoked_at,
                reason,
            })),
            Err(refusal) => Err(refusal),
            Ok(_) => Ok(None),
        }
    }

    /// The response as the responder sent it, DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The leaf certificate that is revoked.
    pub fn certificate(&self) -> Fingerprint {
        self.certificate
    }

    /// When the CA was known to say so. An answer from before says nothing against it.
    pub fn this_update(&self) -> SystemTime {
        self.this_update
    }

    /// Since when it is revoked.
    pub fn revoked_at(&self) -> SystemTime {
        self.revoked_at
    }
}

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refusal = Refusal::Revoked {
            revoked_at: self.revoked_at,
            reason: self.reason,
        };
        refusal.fmt(f)
    }
}
