//! Why a CRL does not say that a certificate is not revoked.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::der::DerError;
use super::number::CrlNumber;
use crate::certificate::{RevocationReason, SignatureError};
use crate::clock::rfc3339;
use crate::limits::CRL_BYTES;

/// Why a CRL does not say that a certificate is not revoked. `Display` is a sentence for a person:
/// what was wrong, in which field, with both values, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The CA says, verified, that the certificate is revoked.
    #[error(
        "the CA lists the certificate (serial number {serial}) as revoked since {}{}",
        rfc3339(*.revoked_at), consequence(*.reason)
    )]
    Revoked {
        /// Hexadecimal.
        serial: String,
        /// Since when.
        revoked_at: SystemTime,
        /// Why, if the CA says so.
        reason: Option<RevocationReason>,
    },

    /// thisUpdate is in the future.
    #[error(
        "thisUpdate is {}, and it is only {}: check the clock of this machine",
        rfc3339(*.this_update), rfc3339(*.at)
    )]
    NotYetValid {
        /// From the list.
        this_update: SystemTime,
        /// The instant in question.
        at: SystemTime,
    },
    /// nextUpdate is over.
    #[error(
        "nextUpdate was {}, and it is {}: fetch the CRL again; if it is still this one, the CA no longer renews it, or the clock of this machine is wrong",
        rfc3339(*.next_update), rfc3339(*.at)
    )]
    Expired {
        /// From the list.
        next_update: SystemTime,
        /// The instant in question.
        at: SystemTime,
    },
    /// thisUpdate is too long ago, for the policy or for a list without nextUpdate.
    #[error(
        "thisUpdate {} is more than {} before {}: fetch the CRL again; where it has no nextUpdate, raise max_age only if the CA says how long its CRLs hold",
        rfc3339(*.this_update), humantime::format_duration(*.max_age), rfc3339(*.at)
    )]
    TooOld {
        /// From the list.
        this_update: SystemTime,
        /// The policy, or what is taken where there is no nextUpdate.
        max_age: Duration,
        /// The instant in question.
        at: SystemTime,
    },
    /// nextUpdate comes before thisUpdate.
    #[error(
        "nextUpdate {} is before thisUpdate {}: the CA's software is broken, so tell the CA",
        rfc3339(*.next_update), rfc3339(*.this_update)
    )]
    Reversed {
        /// From the list.
        this_update: SystemTime,
        /// From the list.
        next_update: SystemTime,
    },
    /// A newer list was seen before.
    #[error(
        "the CRL's number is {number}, and number {last} was seen before: somebody hands out an old CRL; fetch it again from the CA"
    )]
    Older {
        /// From the list.
        number: CrlNumber,
        /// Of the newest list seen.
        last: CrlNumber,
    },
    /// A numbered list was seen before, and this one has no number.
    #[error(
        "the CRL has no number (cRLNumber), and one with the number {last} was seen before: somebody hands out an old CRL; fetch it again from the CA"
    )]
    Unnumbered {
        /// Of the newest list seen.
        last: CrlNumber,
    },

    /// The signature over the list does not hold.
    #[error(
        "the CRL's signature is not taken: {0}; fetch the CRL again from the CA, and see that the issuer given is the one that signs its CRLs"
    )]
    Signature(SignatureError),
    /// The list names another issuer.
    #[error(
        "the CRL is issued by {found}, and the certificate's issuer is {wanted}: fetch the CRL that the certificate names"
    )]
    OtherIssuer {
        /// From the list.
        found: String,
        /// Subject of the issuer.
        wanted: String,
    },
    /// The issuer's key usage leaves out cRLSign.
    #[error(
        "the issuer {issuer} may not sign CRLs (its key usage has no cRLSign): the CA must issue itself another certificate"
    )]
    IssuerNotAllowed {
        /// Subject of the issuer.
        issuer: String,
    },
    /// The issuer given did not issue the certificate.
    #[error(
        "the issuer did not issue the certificate (the names do not match, or its key did not sign it): put the right issuer after the leaf"
    )]
    NotTheIssuer,
    /// Something that must be understood, and is not.
    #[error(
        "{place} has the critical extension {oid}, which clinch does not know and so must not pass over (RFC 5280 section 5.2): ask the CA for a CRL without it"
    )]
    CriticalExtension {
        /// Dotted.
        oid: String,
        /// Where it is.
        place: Place,
    },

    /// Neither DER nor PEM with a CRL in it.
    #[error(
        "this is not a CRL: it is neither DER nor PEM with an X509 CRL section; a proxy's or portal's page often hides behind this"
    )]
    NotACrl,
    /// The PEM armour is broken.
    #[error("the PEM text of the CRL is broken ({0}): was the file cut off or edited?")]
    Pem(String),
    /// Not the structure that RFC 5280 describes.
    #[error(
        "this is not a CRL as RFC 5280 describes it: its {field} does not parse ({error}); was the file cut off, or does the CA's software err?"
    )]
    Malformed {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        error: DerError,
    },
    /// More bytes than a list may have.
    #[error(
        "the CRL has {bytes} bytes, more than the {CRL_BYTES} that are taken: ask the CA for a partitioned CRL"
    )]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The certificate is listed to be taken off a list, which only delta CRLs do.
    #[error(
        "the CRL lists the certificate (serial number {serial}) with the reason removeFromCRL, which has a meaning in delta CRLs only: ask the CA whether it is revoked"
    )]
    Removed {
        /// Hexadecimal.
        serial: String,
    },

    /// A delta CRL.
    #[error(
        "this is a delta CRL: it says only what changed since the CRL with the number {base}; fetch the complete CRL"
    )]
    Delta {
        /// Number of the list that it changes.
        base: CrlNumber,
    },
    /// An indirect list.
    #[error(
        "this is an indirect CRL: it speaks about certificates of several issuers, which clinch does not take apart; fetch the CRL of the issuer itself"
    )]
    Indirect,
    /// A list about certificates of another kind.
    #[error(
        "the CRL is about {only} only, and the certificate is not one of them: fetch the CRL that the certificate names"
    )]
    WrongKind {
        /// From the list.
        only: Kind,
    },
    /// A part of a partitioned list, and not the certificate's.
    #[error(
        "the CRL is the one of {list}, and the certificate names {}: fetch the CRL that the certificate names",
        points(.certificate)
    )]
    OtherPoint {
        /// Names of the list's distribution point.
        list: String,
        /// The first few distribution points of the certificate.
        certificate: Vec<String>,
    },
    /// The certificate's distribution points name another issuer of CRLs.
    #[error(
        "the certificate says that another one than its issuer keeps the CRLs it would be on (cRLIssuer in its distribution points), which clinch does not follow: ask the CA for a CRL of its own"
    )]
    KeptElsewhere,
    /// The certificate is not listed, but the list leaves out other reasons for revocation.
    #[error(
        "the CRL does not list the certificate, but it covers some reasons for revocation only ({covered}): fetch a CRL that covers them all"
    )]
    SomeReasons {
        /// Those it covers.
        covered: String,
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
    /// Not valid at that time.
    Time,
    /// The signature, or the signer's right to sign.
    Authority,
    /// Not a CRL.
    Malformed,
    /// No answer for this certificate.
    NoAnswer,
    /// The certificates given are at fault, not the list.
    Input,
}

/// A place where extensions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// crlExtensions.
    List,
    /// crlEntryExtensions.
    Entry,
}

/// What a list may confine itself to (RFC 5280 section 5.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// End-entity certificates.
    User,
    /// Certificates of CAs.
    Ca,
    /// Attribute certificates.
    Attribute,
}

impl Refusal {
    /// What follows from it.
    pub fn kind(&self) -> RefusalKind {
        match self {
            Self::Revoked { .. } => RefusalKind::Revoked,
            Self::NotYetValid { .. }
            | Self::Expired { .. }
            | Self::TooOld { .. }
            | Self::Reversed { .. }
            | Self::Older { .. }
            | Self::Unnumbered { .. } => RefusalKind::Time,
            Self::Signature(_)
            | Self::OtherIssuer { .. }
            | Self::IssuerNotAllowed { .. }
            | Self::NotTheIssuer
            | Self::CriticalExtension { .. } => RefusalKind::Authority,
            Self::NotACrl
            | Self::Pem(_)
            | Self::Malformed { .. }
            | Self::TooLarge { .. }
            | Self::Removed { .. } => RefusalKind::Malformed,
            Self::Delta { .. }
            | Self::Indirect
            | Self::WrongKind { .. }
            | Self::OtherPoint { .. }
            | Self::KeptElsewhere
            | Self::SomeReasons { .. } => RefusalKind::NoAnswer,
            Self::Certificate { .. } => RefusalKind::Input,
        }
    }
}

impl RefusalKind {
    /// One word, snake case.
    pub fn label(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
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
            Self::List => "the CRL",
            Self::Entry => "an entry of the CRL",
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "end-entity certificates",
            Self::Ca => "CA certificates",
            Self::Attribute => "attribute certificates",
        })
    }
}

/// Names the field that does not parse.
pub(super) fn malformed(field: &'static str) -> impl FnOnce(DerError) -> Refusal {
    move |error| Refusal::Malformed { field, error }
}

fn consequence(reason: Option<RevocationReason>) -> String {
    match reason {
        Some(reason) if reason.is_hold() => {
            format!(" ({reason}): ask the CA to release it, or replace it and its key")
        }
        Some(reason) => format!(" ({reason}): replace the certificate and its key"),
        None => ": replace the certificate and its key".to_owned(),
    }
}

fn points(names: &[String]) -> String {
    match names {
        [] => "no distribution point".to_owned(),
        all => all.join(", "),
    }
}
