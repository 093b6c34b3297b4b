//! What the responder says, right or wrong, as the bytes of an OCSP response.

use std::time::{Duration, SystemTime};

use clinch::cli::demo::authority::{
    Authority, OcspAnswer, ResponderSpec, Signer, Status, Unsuccessful, unsuccessful,
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
