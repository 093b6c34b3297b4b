//! Why a response is not stapled.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::certificate::{RevocationReason, SignatureError};
use crate::clock::rfc3339;
use crate::limits::OCSP_RESPONSE_BYTES;

/// Why a response is not stapled. `Display` is a sentence for a person: what was wrong, in which
/// field, with both values, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The CA says, verified, that the certificate is revoked.
    #[error(
        "the CA revoked the certificate at {}{}: replace the certificate and its key",
        rfc3339(*.revoked_at), because(*.reason)
    )]
    Revoked {
        /// Since when.
        revoked_at: SystemTime,
        /// Why, if the CA says so.
        reason: Option<RevocationReason>,
    },
    /// The responder says, verified, that it does not know the certificate.
    #[error(
        "the responder signed that it does not know the certificate (certStatus is unknown instead of good): just after issuance this passes by itself; otherwise ask the CA whether it really issued it"
    )]
    Unknown,

    /// thisUpdate is in the future.
    #[error(
        "thisUpdate is {}, and it is only {}: check the clock of this machine",
        rfc3339(*.this_update), rfc3339(*.at)
    )]
    NotYetValid {
        /// From the response.
        this_update: SystemTime,
        /// The instant in question.
        at: SystemTime,
    },
    /// nextUpdate is over.
    #[error(
        "nextUpdate was {}, and it is {}: the responder hands out old responses, or the clock of this machine is wrong",
        rfc3339(*.next_update), rfc3339(*.at)
    )]
    Expired {
        /// From the response.
        next_update: SystemTime,
        /// The instant in question.
        at: SystemTime,
    },
    /// There is no nextUpdate, and thisUpdate is too long ago.
    #[error(
        "the response has no nextUpdate, and its thisUpdate {} is more than {} before {}: raise max_age only if the CA says how long its responses hold",
        rfc3339(*.this_update), humantime::format_duration(*.max_age), rfc3339(*.at)
    )]
    TooOld {
        /// From the response.
        this_update: SystemTime,
        /// The policy.
        max_age: Duration,
        /// The instant in question.
        at: SystemTime,
    },
    /// nextUpdate comes before thisUpdate.
    #[error(
        "nextUpdate {} is before thisUpdate {}: the responder is broken, so tell the CA, or set `ocsp.responder` to another one",
        rfc3339(*.next_update), rfc3339(*.this_update)
    )]
    Reversed {
        /// From the response.
        this_update: SystemTime,
        /// From the response.
        next_update: SystemTime,
    },
    /// producedAt is in the future, before thisUpdate, or after nextUpdate.
    #[error(
        "producedAt {} does not fit thisUpdate {} at {}: check the clock of this machine; if it is right, the responder's is wrong, which is for the CA to mend",
        rfc3339(*.produced_at), rfc3339(*.this_update), rfc3339(*.at)
    )]
    ImplausibleProducedAt {
        /// From the response.
        produced_at: SystemTime,
        /// From the response.
        this_update: SystemTime,
        /// The instant in question.
        at: SystemTime,
    },

    /// The signature over the response does not hold.
    #[error("the response's signature is not taken: {signature}; {hint}", signature = .0, hint = remedy(.0))]
    Signature(SignatureError),
    /// Neither the issuer nor a certificate in the response is the responder that it names.
    #[error(
        "{responder} (responderID) is neither the issuer nor has a certificate in the response: somebody else answered, or the issuer in the certificate file is not the CA that is asked; if it is to be trusted all the same, put its certificate into `ocsp.trust`"
    )]
    UnknownResponder {
        /// As the response names it.
        responder: String,
    },
    /// The responder's certificate is not from the issuer.
    #[error(
        "the certificate of the responder {responder} was issued by {found}, and must be by {issuer}{}: the CA must delegate to the responder itself (RFC 6960 section 4.2.2.2); if it is to be trusted all the same, put its certificate into `ocsp.trust`",
        detail(.reason)
    )]
    ResponderNotIssued {
        /// Subject of the responder's certificate.
        responder: String,
        /// Subject of the issuer.
        issuer: String,
        /// Who issued the responder's certificate, as it says itself.
        found: String,
        /// What is wrong with the signature, where the names fit.
        reason: Option<SignatureError>,
    },
    /// The responder's certificate is not for signing OCSP responses.
    #[error(
        "the certificate of the responder {responder} is not for signing OCSP responses (extended key usage OCSPSigning is missing, or its key usage has no digitalSignature): the CA must issue it another one; if it is to be trusted all the same, put it into `ocsp.trust`"
    )]
    ResponderNotAllowed {
        /// Subject of the responder's certificate.
        responder: String,
    },
    /// The responder's certificate has expired, or its time has not come.
    #[error(
        "the certificate of the responder {responder} is valid from {} to {}, and it is {}: the CA must renew it",
        rfc3339(*.not_before), rfc3339(*.not_after), rfc3339(*.at)
    )]
    ResponderOutOfDate {
        /// Subject of the responder's certificate.
        responder: String,
        /// Start of its validity.
        not_before: SystemTime,
        /// End of its validity.
        not_after: SystemTime,
        /// The instant in question.
        at: SystemTime,
    },
    /// The issuer given did not issue the certificate.
    #[error(
        "the issuer did not issue the certificate (the names do not match, or its key did not sign it): put the right issuer after the leaf, or into the file of `ocsp.trust`"
    )]
    NotTheIssuer,
    /// Something that must be understood, and is not.
    #[error(
        "{place} has the critical extension {oid}, which clinch does not know and so must not pass over (RFC 6960 section 4.4): ask the CA for responses without it, or set `ocsp.responder` to a responder that leaves it out"
    )]
    CriticalExtension {
        /// Dotted.
        oid: String,
        /// Where it is.
        place: Place,
    },

    /// The responder says why there is no answer.
    #[error(transparent)]
    Unsuccessful(Unsuccessful),
    /// Not the structure that RFC 6960 describes.
    #[error(
        "this is not an OCSP response: its {layer} does not parse ({reason}); a proxy's or portal's page often hides behind this"
    )]
    Malformed {
        /// Which of the nested structures.
        layer: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// More bytes than a response may have.
    #[error(
        "the response has {bytes} bytes, more than the {OCSP_RESPONSE_BYTES} that are taken: it is no OCSP response, or it carries certificates that nobody needs; look at it with `openssl ocsp -respin FILE -text`"
    )]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// A response type other than id-pkix-ocsp-basic.
    #[error(
        "the response is of the type {oid}, and only id-pkix-ocsp-basic (1.3.6.1.5.5.7.48.1.1) is defined: the responder is for other clients; set `ocsp.responder` to another one"
    )]
    NotBasic {
        /// Dotted.
        oid: String,
    },

    /// The response speaks about other certificates only.
    #[error(
        "the response says nothing about the serial number {serial} of this issuer, but about {}: the responder mixed up its answers, or serves another issuer",
        list(.answered)
    )]
    NoAnswer {
        /// Of the certificate in question, hexadecimal.
        serial: String,
        /// The first few it speaks about.
        answered: Vec<String>,
    },

    /// The request had a nonce, and the response has none.
    #[error(
        "the response does not repeat the nonce of the request, so an old one could be played back: the responder does not do nonces; set `ocsp.nonce` to \"ask\" or \"off\", or use another responder"
    )]
    NoNonce,
    /// The response is for another request.
    #[error(
        "the response repeats the nonce {received}, and {sent} was sent: it was made for another request, which a cache on the way or somebody who plays back old responses can cause"
    )]
    WrongNonce {
        /// Hexadecimal.
        sent: String,
        /// Hexadecimal, its beginning.
        received: String,
    },

    /// A certificate given to the verifier does not parse.
    #[error(
        "the certificate {whose} cannot be used: {reason}; put the certificate as the CA issued it into the file"
    )]
    Certificate {
        /// Which one.
        whose: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// The kinds of refusal that are told apart by what follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// Verified: the certificate is revoked.
    Revoked,
    /// Verified: the responder does not know the certificate.
    Unknown,
    /// Not valid at that time.
    Time,
    /// The signature, or the signer's right to sign.
    Authority,
    /// Not a successful OCSP response.
    Malformed,
    /// No answer for this certificate.
    NoAnswer,
    /// The certificates given are at fault, not the response.
    Input,
}

/// The response statuses that carry no answer (RFC 6960 section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unsuccessful {
    /// `tryLater`.
    #[error("the responder is busy (tryLater) and is asked again later")]
    TryLater,
    /// `unauthorized`.
    #[error(
        "the responder does not answer for this certificate (unauthorized): it does not know the serial number, which is common right after issuance and then passes by itself, or it serves another CA"
    )]
    Unauthorized,
    /// `malformedRequest`.
    #[error(
        "the responder did not understand the request (malformedRequest): try `ocsp.hash = \"sha1\"`, `ocsp.method = \"post\"` and `ocsp.nonce = \"off\"`, and look whether `ocsp.responder` is the URL of an OCSP responder"
    )]
    MalformedRequest,
    /// `internalError`.
    #[error("the responder is broken (internalError) and is asked again later")]
    InternalError,
    /// `sigRequired`.
    #[error(
        "the responder wants signed requests (sigRequired), which clinch does not send: it is not a public one; set another responder"
    )]
    SigRequired,
}

/// What to do about a signature that is not taken.
fn remedy(error: &SignatureError) -> &'static str {
    match error {
        SignatureError::Sha1 => {
            "ask the CA for SHA-256, or set `ocsp.allow_sha1` while it cannot do better"
        }
        SignatureError::ShortKey => "the CA must give its responder a longer key",
        SignatureError::Unsupported(_) | SignatureError::WrongKey(_) => {
            "the CA must sign with RSA, ECDSA or Ed25519 and at least SHA-256"
        }
        SignatureError::Malformed | SignatureError::Invalid => {
            "somebody else answered or changed the response on the way, or the issuer in the certificate file has the CA's name and an older key of it"
        }
    }
}

/// A place where extensions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// responseExtensions.
    Response,
    /// singleExtensions.
    Single,
    /// The responder's certificate.
    ResponderCertificate,
}

impl Refusal {
    /// What follows from it.
    pub fn kind(&self) -> RefusalKind {
        match self {
            Self::Revoked { .. } => RefusalKind::Revoked,
            Self::Unknown => RefusalKind::Unknown,
            Self::NotYetValid { .. }
            | Self::Expired { .. }
            | Self::TooOld { .. }
            | Self::Reversed { .. }
            | Self::ImplausibleProducedAt { .. } => RefusalKind::Time,
            Self::Signature(_)
            | Self::UnknownResponder { .. }
            | Self::ResponderNotIssued { .. }
            | Self::ResponderNotAllowed { .. }
            | Self::ResponderOutOfDate { .. }
            | Self::NotTheIssuer
            | Self::CriticalExtension { .. } => RefusalKind::Authority,
            Self::Unsuccessful(_)
            | Self::Malformed { .. }
            | Self::TooLarge { .. }
            | Self::NotBasic { .. } => RefusalKind::Malformed,
            Self::NoAnswer { .. } | Self::NoNonce | Self::WrongNonce { .. } => {
                RefusalKind::NoAnswer
            }
            Self::Certificate { .. } => RefusalKind::Input,
        }
    }
}

impl RefusalKind {
    /// One word, snake case.
    pub fn label(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Unknown => "unknown",
            Self::Time => "wrong_time",
            Self::Authority => "not_authorised",
            Self::Malformed => "unusable",
            Self::NoAnswer => "no_answer",
            Self::Input => "bad_input",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Response => "the response",
            Self::Single => "the answer for this certificate",
            Self::ResponderCertificate => "the responder's certificate",
        })
    }
}

fn because(reason: Option<RevocationReason>) -> String {
    reason.map_or_else(String::new, |reason| format!(" ({reason})"))
}

fn detail(reason: &Option<SignatureError>) -> String {
    let text = |reason: &SignatureError| format!(" ({reason})");
    reason.as_ref().map_or_else(String::new, text)
}

fn list(serials: &[String]) -> String {
    match serials {
        [] => "no certificate at all".to_owned(),
        all => all.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each, with what its sentence must say: the field, both values, and what to do.
    fn all() -> Vec<(Refusal, Vec<&'static str>)> {
        let at = |day: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86_400);
        let (this_update, next_update, produced_at) = (at(1), at(2), at(3));
        let text = |text: &str| text.to_owned();
        vec![
            (
                Refusal::Revoked {
                    revoked_at: at(1),
                    reason: RevocationReason::from_code(1),
                },
                vec!["1970-01-02", "keyCompromise", "replace"],
            ),
            (
                Refusal::Unknown,
                vec!["certStatus", "unknown", "good", "ask the CA"],
            ),
            (
                Refusal::NotYetValid {
                    this_update: at(3),
                    at: at(1),
                },
                vec!["thisUpdate", "1970-01-04", "1970-01-02", "check the clock"],
            ),
            (
                Refusal::Expired {
                    next_update,
                    at: at(3),
                },
                vec!["nextUpdate", "1970-01-03", "1970-01-04", "responder"],
            ),
            (
                Refusal::TooOld {
                    this_update,
                    max_age: Duration::from_secs(60),
                    at: at(3),
                },
                vec![
                    "thisUpdate",
                    "1970-01-02",
                    "1m",
                    "1970-01-04",
                    "raise max_age",
                ],
            ),
            (
                Refusal::Reversed {
                    this_update: next_update,
                    next_update: this_update,
                },
                vec![
                    "nextUpdate 1970-01-02",
                    "thisUpdate 1970-01-03",
                    "tell the CA",
                ],
            ),
            (
                Refusal::ImplausibleProducedAt {
                    produced_at,
                    this_update,
                    at: at(2),
                },
                vec![
                    "producedAt 1970-01-04",
                    "thisUpdate 1970-01-02",
                    "1970-01-03",
                    "clock",
                ],
            ),
            (
                Refusal::Signature(SignatureError::Sha1),
                vec!["signature", "SHA-1", "`ocsp.allow_sha1`"],
            ),
            (
                Refusal::UnknownResponder {
                    responder: text("the responder CN=x"),
                },
                vec!["CN=x", "responderID", "`ocsp.trust`"],
            ),
            (
                Refusal::ResponderNotIssued {
                    responder: text("CN=x"),
                    issuer: text("CN=ca"),
                    found: text("CN=other"),
                    reason: Some(SignatureError::Invalid),
                },
                vec!["CN=x", "CN=ca", "CN=other", "key", "`ocsp.trust`"],
            ),
            (
                Refusal::ResponderNotAllowed {
                    responder: text("CN=x"),
                },
                vec!["CN=x", "OCSPSigning", "must issue"],
            ),
            (
                Refusal::ResponderOutOfDate {
                    responder: text("CN=x"),
                    not_before: at(1),
                    not_after: at(2),
                    at: at(3),
                },
                vec!["CN=x", "1970-01-02", "1970-01-03", "1970-01-04", "renew"],
            ),
            (
                Refusal::NotTheIssuer,
                vec!["issuer", "names", "put the right issuer"],
            ),
            (
                Refusal::CriticalExtension {
                    oid: text("1.2.3"),
                    place: Place::Single,
                },
                vec!["the answer for this certificate", "1.2.3", "ask the CA"],
            ),
            (
                Refusal::Malformed {
                    layer: "ResponseData",
                    reason: text("cut off"),
                },
                vec!["ResponseData", "cut off", "portal"],
            ),
            (
                Refusal::TooLarge { bytes: 70_000 },
                vec!["70000", "65536", "look at it"],
            ),
            (
                Refusal::NotBasic { oid: text("1.2.3") },
                vec!["1.2.3", "1.3.6.1.5.5.7.48.1.1", "`ocsp.responder`"],
            ),
            (
                Refusal::NoAnswer {
                    serial: text("07"),
                    answered: vec![text("08")],
                },
                vec!["07", "08", "responder"],
            ),
            (Refusal::NoNonce, vec!["nonce", "`ocsp.nonce`"]),
            (
                Refusal::WrongNonce {
                    sent: text("07"),
                    received: text("08"),
                },
                vec!["nonce", "07", "08", "cache"],
            ),
            (
                Refusal::Certificate {
                    whose: "in question",
                    reason: text("cut off"),
                },
                vec!["in question", "cut off", "put the certificate"],
            ),
        ]
    }

    #[test]
    fn every_refusal_names_the_field_both_values_and_what_to_do() {
        for (refusal, words) in all() {
            let sentence = refusal.to_string();
            for word in words {
                assert!(sentence.contains(word), "no {word:?} in: {sentence}");
            }
        }
        use Unsuccessful as U;
        for status in [
            U::TryLater,
            U::Unauthorized,
            U::MalformedRequest,
            U::InternalError,
            U::SigRequired,
        ] {
            let sentence = Refusal::Unsuccessful(status).to_string();
            assert!(sentence.contains("(") && sentence.len() > 50, "{sentence}");
        }
    }
}
