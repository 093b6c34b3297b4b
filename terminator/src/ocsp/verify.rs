//! The verdict on a response: in full, for one certificate, at one instant (RFC 6960 section 3.2).

use std::time::{Duration, SystemTime};

use rasn_ocsp::{CertStatus, SingleResponse};
use rustls_pki_types::CertificateDer;

use super::Policy;
use super::cert_id::{Subject, serial_of};
use super::refusal::{Place, Refusal};
use super::response::{Basic, check_extensions, system_time};
use super::signer::{Signer, authorise};
use crate::certificate::{Fingerprint, RevocationReason};

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
    signer: Signer,
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
    /// Who signed it.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }
}

/// Verifies a response in full for one certificate of one issuer at one instant.
///
/// The order is that of RFC 6960 section 3.2, with the signature before everything that it
/// protects: [`Refusal::Revoked`] and [`Refusal::Unknown`] are therefore statements of the CA that
/// hold at `at`, not of whoever answered.
pub fn verify(
    response: &[u8],
    leaf: &CertificateDer<'_>,
    issuer: &CertificateDer<'_>,
    policy: &Policy,
    at: SystemTime,
) -> Result<VerifiedStaple, Refusal> {
    let subject = Subject::parse(leaf, issuer)?;
    let statement = Statement::authentic(response, &subject, policy)?;
    let window = statement
        .judge(policy, at)
        .all(statement.singles(), &subject)?;
    let end = statement.signer.not_after();
    Ok(VerifiedStaple {
        der: response.into(),
        certificate: Fingerprint::of(leaf),
        this_update: window.this_update,
        next_update: window.next_update,
        produced_at: statement.produced_at,
        not_after: end.map_or(window.not_after, |end| window.not_after.min(end)),
        signer: statement.signer,
    })
}

/// A response that really comes from somebody who may speak about the certificate. What it says, and
/// whether that holds at an instant, was not looked at.
pub(super) struct Statement {
    basic: Basic,
    signer: Signer,
    /// When it was signed.
    pub(super) produced_at: SystemTime,
}

impl Statement {
    pub(super) fn authentic(
        response: &[u8],
        subject: &Subject<'_>,
        policy: &Policy,
    ) -> Result<Self, Refusal> {
        let basic = Basic::parse(response)?;
        let signer = authorise(&basic, subject, policy)?;
        if !subject.is_issued() {
            return Err(Refusal::NotTheIssuer);
        }
        check_extensions(basic.data.response_extensions.as_ref(), Place::Response)?;
        policy
            .nonce
            .check(basic.data.response_extensions.as_ref())?;
        Ok(Self {
            produced_at: system_time(&basic.data.produced_at),
            basic,
            signer,
        })
    }

    /// What it says about certificates, one by one.
    pub(super) fn singles(&self) -> &[SingleResponse] {
        &self.basic.data.responses
    }

    /// A judge of what it says as of an instant.
    pub(super) fn judge<'a>(&'a self, policy: &'a Policy, at: SystemTime) -> Judge<'a> {
        Judge {
            signer: &self.signer,
            produced_at: self.produced_at,
            policy,
            at,
        }
    }
}

/// When a single response holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    this_update: SystemTime,
    next_update: Option<SystemTime>,
    not_after: SystemTime,
}

/// What the answers of a response are judged by.
pub(super) struct Judge<'a> {
    signer: &'a Signer,
    produced_at: SystemTime,
    policy: &'a Policy,
    at: SystemTime,
}

impl Judge<'_> {
    /// Finds what the response says about the certificate. It may say so more than once, and a client
    /// may look at any of the places: so all must be good and valid, and revoked outweighs the rest.
    pub(super) fn all(
        &self,
        singles: &[SingleResponse],
        subject: &Subject<'_>,
    ) -> Result<Window, Refusal> {
        let mut verdict: Option<Result<Window, Refusal>> = None;
        for single in singles.iter().filter(|s| subject.is(&s.cert_id)) {
            let judged = self.one(single);
            if let Err(Refusal::Revoked { .. }) = judged {
                return judged;
            }
            verdict = Some(match (verdict, judged) {
                (None, judged) => judged,
                (Some(Ok(a)), Ok(b)) => Ok(if b.not_after < a.not_after { b } else { a }),
                (Some(Err(error)), _) | (Some(Ok(_)), Err(error)) => Err(error),
            });
        }
        verdict.unwrap_or_else(|| {
            let answered = singles.iter().take(4).map(|s| serial_of(&s.cert_id));
            Err(Refusal::NoAnswer {
                serial: subject.serial(),
                answered: answered.collect(),
            })
        })
    }

    /// The time comes before the status: an old *revoked* says no more than an old *good*. The
    /// response's own time comes before that of the responder's certificate, which ends later.
    fn one(&self, single: &SingleResponse) -> Result<Window, Refusal> {
        check_extensions(single.single_extensions.as_ref(), Place::Single)?;
        let window = self.window(single)?;
        self.signer.check_validity(self.policy.skew, self.at)?;
        match &single.cert_status {
            CertStatus::Good => Ok(window),
            CertStatus::Unknown(()) => Err(Refusal::Unknown),
            CertStatus::Revoked(info) => Err(Refusal::Revoked {
                revoked_at: system_time(&info.revocation_time),
                reason: info.revocation_reason.map(RevocationReason::from),
            }),
        }
    }

    /// RFC 6960 section 4.2.2.1, with the responder's clock allowed to be ahead by the skew.
    fn window(&self, single: &SingleResponse) -> Result<Window, Refusal> {
        let (at, produced_at) = (self.at, self.produced_at);
        let this_update = system_time(&single.this_update);
        let next_update = single.next_update.as_ref().map(system_time);
        let with_skew = |time: SystemTime| time.checked_add(self.policy.skew).unwrap_or(time);
        if let Some(next_update) = next_update
            && next_update < this_update
        {
            return Err(Refusal::Reversed {
                this_update,
                next_update,
            });
        }
        if with_skew(at) < this_update {
            return Err(Refusal::NotYetValid { this_update, at });
        }
        let max_age = self.policy.max_age.min(CENTURY);
        let not_after = next_update.unwrap_or_else(|| this_update + max_age);
        if at >= not_after {
            return Err(match next_update {
                Some(next_update) => Refusal::Expired { next_update, at },
                None => Refusal::TooOld {
                    this_update,
                    max_age,
                    at,
                },
            });
        }
        // Signed before its content was known, or after it ran out, or in the future: a broken clock
        // at the responder, and then its other times mean nothing either.
        if with_skew(at) < produced_at
            || with_skew(produced_at) < this_update
            || with_skew(not_after) < produced_at
        {
            return Err(Refusal::ImplausibleProducedAt {
                produced_at,
                this_update,
                at,
            });
        }
        Ok(Window {
            this_update,
            next_update,
            not_after,
        })
    }
}

/// No bound is longer, so that adding it to a time of four-digit years cannot overflow.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
