//! What the responder says, right or wrong, as the bytes of an OCSP response.

use std::time::{Duration, SystemTime};

use clinch::cli::demo::authority::{
    Authority, HashAlgorithm, IssuerHash, OcspAnswer, Place, ResponderSpec, Signer, Single, Status,
    Unsuccessful, unsuccessful,
};

/// The content of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// *Good* for a week, signed by the authority's delegated responder.
    Good,
    /// *Good*, signed by the issuer itself.
    GoodByIssuer,
    /// *Good* from now on for this long.
    GoodFor(Duration),
    /// *Good* since an hour ago and for this long still, as from a cache between responder and us.
    GoodStill(Duration),
    /// *Good* without a nextUpdate.
    GoodWithoutNextUpdate,
    /// *Good* a month ago, without a nextUpdate.
    OldWithoutNextUpdate,
    /// *Good*, with a nextUpdate before thisUpdate.
    Reversed,
    /// *Good*, and produced tomorrow.
    ProducedInFuture,
    /// *Good* for a CertID made with SHA-256.
    Sha256,
    /// *Good* for a CertID that names another issuer.
    OfIssuer(IssuerHash),
    /// *Good*, with a critical extension that nobody knows.
    Critical(Place),
    /// *Good*, after a single response for another certificate.
    AmongOthers,
    /// *Good* twice.
    Twice,
    /// *Good*, after *revoked* for the same certificate.
    RevokedAndGood,
    /// *Good*, after *unknown* for the same certificate.
    UnknownAndGood,
    /// *Good*, signed by a delegate whose certificate is not in the response.
    DelegateLeftOut,
    /// *Good*, signed by a delegate whose certificate is valid from tomorrow on.
    DelegateNotYet,
    /// *Revoked* an hour ago.
    Revoked,
    /// *Unknown*.
    Unknown,
    /// *Good* for another serial number.
    WrongSerial,
    /// *Good*, signed by a key that is not the issuer's, under the issuer's name.
    WrongSigner,
    /// *Good*, with one bit of the signature turned.
    BadSignature,
    /// *Good*, signed by a delegate whose certificate lacks the OCSPSigning purpose.
    DelegateWithoutUsage,
    /// *Good*, signed by a delegate whose certificate has expired.
    DelegateExpired,
    /// *Good*, signed by a delegate of another authority.
    DelegateOfAnother,
    /// *Good* until yesterday.
    Expired,
    /// *Good* from tomorrow on.
    Future,
    /// The first half of a good answer.
    Truncated,
    /// A good answer with bytes after it.
    Trailing,
    /// A good answer whose outer length is left open, as BER allows and DER does not.
    Ber,
    /// Bytes that are no DER.
    Garbage,
    /// Nothing.
    Empty,
    /// No answer, with this OCSPResponseStatus (RFC 6960 section 4.2.1).
    Error(u8),
    /// Exactly these bytes.
    Bytes(Vec<u8>),
}

impl Answer {
    /// The response to a request, DER.
    ///
    /// # Panics
    /// When the request is not an OCSP request for a certificate of `authority`: clinch sends no others.
    pub fn bytes(&self, authority: &Authority, request: &[u8]) -> Vec<u8> {
        let now = SystemTime::now();
        let good = OcspAnswer::good(now);
        let sign = |answer: &OcspAnswer| {
            authority
                .respond(answer, request)
                .expect("clinch asks about one certificate of this authority")
        };
        match self {
            Self::Good => sign(&good),
            Self::Truncated => {
                let whole = sign(&good);
                whole[..whole.len() / 2].to_vec()
            }
            Self::Trailing => [&sign(&good)[..], b"and more"].concat(),
            Self::BadSignature => bad_signature(authority, &good, request),
            Self::Ber => open_length(&sign(&good)),
            Self::Garbage => b"\x00\xffgarbage\x30\x82\xff\xff".to_vec(),
            Self::Empty => Vec::new(),
            Self::Error(status) => unsuccessful(error(*status)),
            Self::Bytes(bytes) => bytes.clone(),
            signed => sign(&signed.answer(authority, good, now)),
        }
    }

    /// The variants that a change of the good answer makes.
    fn answer(&self, authority: &Authority, good: OcspAnswer, now: SystemTime) -> OcspAnswer {
        let delegate = |spec: ResponderSpec| {
            Signer::Delegated(
                authority
                    .issue_responder(&spec)
                    .expect("a sound specification"),
            )
        };
        match self {
            Self::GoodByIssuer => OcspAnswer {
                signer: Signer::Issuer,
                ..good
            },
            Self::GoodFor(time) => OcspAnswer {
                this_update: now,
                produced_at: now,
                next_update: Some(now + *time),
                ..good
            },
            Self::GoodStill(time) => OcspAnswer {
                next_update: Some(now + *time),
                ..good
            },
            Self::GoodWithoutNextUpdate => OcspAnswer {
                next_update: None,
                ..good
            },
            Self::Revoked => OcspAnswer {
                status: Status::Revoked(now - HOUR, None),
                ..good
            },
            Self::Unknown => OcspAnswer {
                status: Status::Unknown,
                ..good
            },
            Self::WrongSerial => OcspAnswer {
                serial: Some(vec![0x42; 16]),
                ..good
            },
            Self::WrongSigner => OcspAnswer {
                signer: Signer::Impostor,
                ..good
            },
            Self::DelegateWithoutUsage => OcspAnswer {
                signer: delegate(ResponderSpec {
                    ocsp_signing: false,
                    ..ResponderSpec::default()
                }),
                ..good
            },
            Self::DelegateExpired => OcspAnswer {
                signer: delegate(ResponderSpec {
                    validity: Some((now - HOUR * 48, now - HOUR * 24)),
                    ..ResponderSpec::default()
                }),
                ..good
            },
            Self::DelegateOfAnother => OcspAnswer {
                signer: delegate(ResponderSpec {
                    by_impostor: true,
                    ..ResponderSpec::default()
                }),
                ..good
            },
            Self::DelegateNotYet => OcspAnswer {
                signer: delegate(ResponderSpec {
                    validity: Some((now + HOUR * 24, now + HOUR * 48)),
                    ..ResponderSpec::default()
                }),
                ..good
            },
            Self::DelegateLeftOut => OcspAnswer {
                with_certificate: false,
                ..good
            },
            other => other.content(good, now),
        }
    }

    /// Variants of what the answer says about the certificate and the time.
    fn content(&self, good: OcspAnswer, now: SystemTime) -> OcspAnswer {
        let after = |serial, status| vec![Single { serial, status }];
        match self {
            Self::OldWithoutNextUpdate => OcspAnswer {
                this_update: now - HOUR * 24 * 30,
                produced_at: now - HOUR * 24 * 30,
                next_update: None,
                ..good
            },
            Self::Reversed => OcspAnswer {
                next_update: Some(good.this_update - HOUR),
                ..good
            },
            Self::ProducedInFuture => OcspAnswer {
                produced_at: now + HOUR * 24,
                ..good
            },
            Self::Sha256 => OcspAnswer {
                hash: Some(HashAlgorithm::Sha256),
                ..good
            },
            Self::OfIssuer(part) => OcspAnswer {
                wrong_hash: Some(*part),
                ..good
            },
            Self::Critical(place) => OcspAnswer {
                critical_extension: Some(*place),
                ..good
            },
            Self::AmongOthers => OcspAnswer {
                before: after(Some(vec![0x42; 16]), Status::Good),
                ..good
            },
            Self::Twice => OcspAnswer {
                before: after(None, Status::Good),
                ..good
            },
            Self::RevokedAndGood => OcspAnswer {
                before: after(None, Status::Revoked(now - HOUR, None)),
                ..good
            },
            Self::UnknownAndGood => OcspAnswer {
                before: after(None, Status::Unknown),
                ..good
            },
            Self::Expired => OcspAnswer {
                this_update: now - HOUR * 72,
                produced_at: now - HOUR * 72,
                next_update: Some(now - HOUR * 24),
                ..good
            },
            Self::Future => OcspAnswer {
                this_update: now + HOUR * 24,
                produced_at: now + HOUR * 24,
                next_update: Some(now + HOUR * 72),
                ..good
            },
            _ => good,
        }
    }
}

/// Signed by the issuer, so that the response ends with the signature.
fn bad_signature(authority: &Authority, good: &OcspAnswer, request: &[u8]) -> Vec<u8> {
    let answer = OcspAnswer {
        signer: Signer::Issuer,
        ..good.clone()
    };
    let mut bytes = authority.respond(&answer, request).expect("as above");
    *bytes.last_mut().expect("a response is not empty") ^= 1;
    bytes
}

/// The outer SEQUENCE with an indefinite length (X.690 section 8.1.3.6), which DER forbids.
fn open_length(response: &[u8]) -> Vec<u8> {
    let header = match response[1] {
        0x82 => 4,
        0x81 => 3,
        _ => 2,
    };
    [&[0x30, 0x80], &response[header..], &[0, 0]].concat()
}

fn error(status: u8) -> Unsuccessful {
    match status {
        1 => Unsuccessful::MalformedRequest,
        2 => Unsuccessful::InternalError,
        3 => Unsuccessful::TryLater,
        5 => Unsuccessful::SigRequired,
        6 => Unsuccessful::Unauthorized,
        other => panic!("RFC 6960 has no error status {other}"),
    }
}

const HOUR: Duration = Duration::from_secs(3600);
