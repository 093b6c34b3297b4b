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
        "the responder signed that it does not know the certificate: just after issuance this passes by itself; otherwise ask the CA whether it really issued it"
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
        "nextUpdate {} is before thisUpdate {}: the responder is broken",
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
        "producedAt {} does not fit thisUpdate {} at {}: the responder's clock is wrong, or that of this machine",
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
    #[error("the response's signature is not taken: {0}")]
    Signature(SignatureError),
    /// Neither the issuer nor a certificate in the response is the responder that it names.
    #[error(
        "{responder} is neither the issuer nor has a certificate in the response: somebody else answered, or the issuer in the certificate file is not the CA that is asked"
    )]
    UnknownResponder {
        /// As the response names it.
        responder: String,
    },
    /// The responder's certificate is not from the issuer.
    #[error(
        "the responder {responder} has no certificate of {issuer}{}: it may not answer for it",
        detail(.reason)
    )]
    ResponderNotIssued {
        /// Subject of the responder's certificate.
        responder: String,
        /// Subject of the issuer.
        issuer: String,
        /// What is wrong with the signature, where the names fit.
        reason: Option<SignatureError>,
    },
    /// The responder's certificate is not for signing OCSP responses.
    #[error(
        "the certificate of the responder {responder} is not for signing OCSP responses (extended key usage OCSPSigning is missing)"
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
    #[error("the issuer did not issue the certificate: put the right issuer after the leaf")]
    NotTheIssuer,
    /// Something that must be understood, and is not.
    #[error("{place} has the critical extension {oid}, which clinch does not know")]
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
    #[error("the response has {bytes} bytes, more than the {OCSP_RESPONSE_BYTES} that are taken")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// A response type other than id-pkix-ocsp-basic.
    #[error("the response is of the type {oid}, and only id-pkix-ocsp-basic is defined")]
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
    #[error("the certificate {whose} cannot be used: {reason}")]
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
    #[error("the responder did not understand the request (malformedRequest)")]
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
