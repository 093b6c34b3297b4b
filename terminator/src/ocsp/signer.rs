//! Who signed a response, and whether it had the right to: the issuer itself, or a responder that
//! the issuer delegated to (RFC 6960 section 4.2.2.2).

use std::time::{Duration, SystemTime};

use rasn::types::Any;
use rasn_ocsp::ResponderId;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

use super::Policy;
use super::cert_id::{Subject, key_hash};
use super::refusal::Refusal;
use super::response::Basic;
use crate::certificate::{Signed, Tolerance, parse_certificate, printable};

/// Who signed a verified response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The CA that issued the certificate.
    Issuer,
    /// A responder with a certificate of that CA.
    Delegated {
        /// Its subject, for people.
        subject: String,
        /// Its certificate has id-pkix-ocsp-nocheck. Without it RFC 6960 section 4.2.2.2.1 leaves
        /// to local policy whether to ask about the responder; clinch does not ask.
        nocheck: bool,
        /// Start of its certificate's validity.
        not_before: SystemTime,
        /// End of its certificate's validity: the first instant that does not belong to it.
        not_after: SystemTime,
    },
    /// Somebody whom the operator trusts to sign responses ([`Policy::trusted`]), whatever the CA says.
    Trusted {
        /// Its subject, for people.
        subject: String,
        /// Start of its certificate's validity.
        not_before: SystemTime,
        /// End of its certificate's validity: the first instant that does not belong to it.
        not_after: SystemTime,
    },
}

impl Signer {
    /// The first instant that no longer belongs to the validity of the signer's certificate, where it
    /// has one beside the issuer's.
    pub fn not_after(&self) -> Option<SystemTime> {
        match self {
            Self::Issuer => None,
            Self::Delegated { not_after, .. } | Self::Trusted { not_after, .. } => Some(*not_after),
        }
    }

    /// Whether the signer's certificate is valid at an instant. The issuer's own is not looked at:
    /// with it the leaf ends too.
    pub(super) fn check_validity(&self, skew: Duration, at: SystemTime) -> Result<(), Refusal> {
        let (Self::Delegated {
            subject,
            not_before,
            not_after,
            ..
        }
        | Self::Trusted {
            subject,
            not_before,
            not_after,
        }) = self
        else {
            return Ok(());
        };
        if at.checked_add(skew).unwrap_or(at) < *not_before || at >= *not_after {
            return Err(Refusal::ResponderOutOfDate {
                responder: subject.clone(),
                not_before: *not_before,
                not_after: *not_after,
                at,
            });
        }
        Ok(())
    }
}

/// Finds the signer that the response names and checks its right to sign, then the signature. When
/// its certificate is valid is left to [`Signer::check_validity`].
pub(super) fn authorise(
    basic: &Basic,
    subject: &Subject<'_>,
    policy: &Policy,
) -> Result<Signer, Refusal> {
    let id = &basic.data.responder_id;
    let issuer = &subject.issuer;
    // A delegated responder may carry the issuer's own name, so a failure here is not the last word.
    let mut refusal = None;
    if names(id, issuer) {
        match basic
            .signed
            .verify(issuer.public_key().raw, tolerance(policy))
        {
            Ok(()) => return Ok(Signer::Issuer),
            Err(error) => refusal = Some(Refusal::Signature(error)),
        }
    }
    for der in &basic.certificates {
        let Ok(certificate) = parse_certificate(der.as_bytes()) else {
            continue;
        };
        if certificate.public_key().raw == issuer.public_key().raw || !names(id, &certificate) {
            continue;
        }
        let delegation = Delegation {
            der,
            certificate: &certificate,
            issuer,
        };
        let verified = delegation.check(policy).and_then(|()| {
            let key = certificate.public_key().raw;
            let signature = basic.signed.verify(key, tolerance(policy));
            signature.map_err(Refusal::Signature)
        });
        match verified {
            Ok(()) => return Ok(delegation.signer()),
            Err(error) => refusal = Some(error),
        }
    }
    match trusted(basic, policy) {
        Some(Ok(signer)) => return Ok(signer),
        Some(Err(error)) => refusal = Some(error),
        None => {}
    }
    Err(refusal.unwrap_or_else(|| Refusal::UnknownResponder {
        responder: describe(id),
    }))
}

/// The signer among those that the operator trusts: RFC 6960 section 4.2.2.2 has a client take a
/// signer that matches its local configuration of OCSP signing authority, and asks for nothing else.
fn trusted(basic: &Basic, policy: &Policy) -> Option<Result<Signer, Refusal>> {
    let mut found = None;
    for der in policy.trusted.iter() {
        let Ok(certificate) = parse_certificate(der) else {
            continue;
        };
        if !names(&basic.data.responder_id, &certificate) {
            continue;
        }
        let key = certificate.public_key().raw;
        match basic.signed.verify(key, tolerance(policy)) {
            Ok(()) => {
                return Some(Ok(Signer::Trusted {
                    subject: printable(&certificate.subject().to_string()),
                    not_before: certificate.validity().not_before.to_datetime().into(),
                    not_after: end_of(&certificate),
                }));
            }
            Err(error) => found = Some(Err(Refusal::Signature(error))),
        }
    }
    found
}

/// X.509 counts the last second as valid; this is the first instant that is not.
fn end_of(certificate: &X509Certificate<'_>) -> SystemTime {
    let last: SystemTime = certificate.validity().not_after.to_datetime().into();
    last.checked_add(Duration::from_secs(1)).unwrap_or(last)
}

/// A certificate from the response that claims to be a responder's.
struct Delegation<'a> {
    der: &'a Any,
    certificate: &'a X509Certificate<'a>,
    issuer: &'a X509Certificate<'a>,
}

impl Delegation<'_> {
    /// RFC 6960 section 4.2.2.2: issued directly by the CA in question, for OCSP signing.
    fn check(&self, policy: &Policy) -> Result<(), Refusal> {
        let subject = || self.subject();
        let by_name = self.certificate.issuer().as_raw() == self.issuer.subject().as_raw();
        let inner_is_outer =
            self.certificate.tbs_certificate.signature == self.certificate.signature_algorithm;
        let signed = Signed::parse(self.der.as_bytes())
            .and_then(|signed| signed.verify(self.issuer.public_key().raw, tolerance(policy)));
        if !by_name || !inner_is_outer {
            return Err(Refusal::ResponderNotIssued {
                responder: subject(),
                issuer: printable(&self.issuer.subject().to_string()),
                found: printable(&self.certificate.issuer().to_string()),
                reason: None,
            });
        }
        signed.map_err(|error| Refusal::ResponderNotIssued {
            responder: subject(),
            issuer: printable(&self.issuer.subject().to_string()),
            found: printable(&self.certificate.issuer().to_string()),
            reason: Some(error),
        })?;
        if !self.may_sign_ocsp() {
            return Err(Refusal::ResponderNotAllowed {
                responder: subject(),
            });
        }
        if let Some(oid) = self.unknown_critical_extension() {
            return Err(Refusal::CriticalExtension {
                oid,
                place: super::Place::ResponderCertificate,
            });
        }
        Ok(())
    }

    /// Extended key usage id-kp-OCSPSigning, spelled out (anyExtendedKeyUsage is not enough), and,
    /// where there is a key usage, one for signatures (RFC 5280 section 4.2.1.3).
    fn may_sign_ocsp(&self) -> bool {
        let extended = self.certificate.extended_key_usage();
        let usage = self.certificate.key_usage();
        let (Ok(extended), Ok(usage)) = (extended, usage) else {
            return false;
        };
        extended.is_some_and(|extended| extended.value.ocsp_signing)
            && usage.is_none_or(|usage| {
                usage.value.digital_signature() || usage.value.non_repudiation()
            })
    }

    fn unknown_critical_extension(&self) -> Option<String> {
        let mut unknown = self.certificate.extensions().iter().filter(|extension| {
            let parsed = extension.parsed_extension();
            let unread = parsed.unsupported() || parsed.error().is_some();
            extension.critical && unread && extension.oid.as_bytes() != NOCHECK
        });
        unknown.next().map(|extension| extension.oid.to_string())
    }

    fn signer(&self) -> Signer {
        let mut extensions = self.certificate.extensions().iter();
        Signer::Delegated {
            subject: self.subject(),
            nocheck: extensions.any(|extension| extension.oid.as_bytes() == NOCHECK),
            not_before: self.certificate.validity().not_before.to_datetime().into(),
            not_after: end_of(self.certificate),
        }
    }

    fn subject(&self) -> String {
        printable(&self.certificate.subject().to_string())
    }
}

/// A short key is never taken: a delegated responder's may be weaker than the CA's, and would then be
/// the easier one to forge with.
fn tolerance(policy: &Policy) -> Tolerance {
    Tolerance {
        sha1: policy.allow_sha1,
        short_rsa: false,
    }
}

/// Whether a ResponderID means this certificate (RFC 6960 section 4.2.1).
fn names(id: &ResponderId, certificate: &X509Certificate<'_>) -> bool {
    match id {
        ResponderId::ByKey(hash) => *hash == key_hash(certificate),
        ResponderId::ByName(name) => {
            rasn::der::decode::<rasn_pkix::Name>(certificate.subject().as_raw())
                .is_ok_and(|subject| subject == *name)
        }
    }
}

fn describe(id: &ResponderId) -> String {
    match id {
        ResponderId::ByKey(hash) => {
            let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("the responder with the key hash {hex}")
        }
        ResponderId::ByName(name) => {
            let der = rasn::der::encode(name).unwrap_or_default();
            match X509Name::from_der(&der) {
                Ok((_, name)) => format!("the responder {}", printable(&name.to_string())),
                Err(_) => "a responder with an unreadable name".to_owned(),
            }
        }
    }
}

/// id-pkix-ocsp-nocheck, 1.3.6.1.5.5.7.48.1.5, content bytes.
const NOCHECK: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x05];
