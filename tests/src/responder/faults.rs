//! The misbehaviours by name: what no server may staple from, what ends at a deadline only, and what
//! is odd and still right.

use std::time::Duration;

use clinch::cli::demo::authority::{IssuerHash, Place};

use super::{Answer, Mode};

/// Every misbehaviour with the result under which clinch counts it (label `result` of its fetch
/// counter). None may lead to a staple.
pub const WRONG: &[(&str, Mode, &str)] = &[
    ("refused connection", Mode::Refused, "network"),
    ("closed at once", Mode::ClosesAtOnce, "network"),
    ("reset", Mode::Resets, "network"),
    ("closed inside the body", Mode::ClosesInBody, "network"),
    ("not HTTP", Mode::NotHttp, "network"),
    (
        "headers without end",
        Mode::EndlessHeaders(1 << 20),
        "network",
    ),
    ("status 500", Mode::Status(500), "http"),
    ("status 503", Mode::Status(503), "http"),
    ("status 404", Mode::Status(404), "http"),
    ("status 206, partial content", Mode::Status(206), "http"),
    ("redirect loop", Mode::Redirects(String::new()), "http"),
    (
        "text/html content type",
        Mode::ContentType("text/html"),
        "http",
    ),
    ("web page", Mode::Html, "http"),
    ("10 MB", Mode::Huge(10 << 20), "http"),
    ("10 MB unannounced", Mode::HugeUnannounced(10 << 20), "http"),
    ("gzip", Mode::Gzip, "refused"),
    (
        "longer than announced",
        Mode::LongerThanAnnounced,
        "refused",
    ),
    ("wrong serial", Mode::Says(Answer::WrongSerial), "refused"),
    (
        "wrong issuer name hash",
        Mode::Says(Answer::OfIssuer(IssuerHash::Name)),
        "refused",
    ),
    (
        "wrong issuer key hash",
        Mode::Says(Answer::OfIssuer(IssuerHash::Key)),
        "refused",
    ),
    ("wrong signer", Mode::Says(Answer::WrongSigner), "refused"),
    ("bad signature", Mode::Says(Answer::BadSignature), "refused"),
    (
        "delegate without EKU",
        Mode::Says(Answer::DelegateWithoutUsage),
        "refused",
    ),
    (
        "delegate expired",
        Mode::Says(Answer::DelegateExpired),
        "refused",
    ),
    (
        "delegate not yet valid",
        Mode::Says(Answer::DelegateNotYet),
        "refused",
    ),
    (
        "delegate of another CA",
        Mode::Says(Answer::DelegateOfAnother),
        "refused",
    ),
    (
        "delegate's certificate left out",
        Mode::Says(Answer::DelegateLeftOut),
        "refused",
    ),
    ("expired", Mode::Says(Answer::Expired), "refused"),
    ("future", Mode::Says(Answer::Future), "refused"),
    (
        "produced in the future",
        Mode::Says(Answer::ProducedInFuture),
        "refused",
    ),
    (
        "nextUpdate before thisUpdate",
        Mode::Says(Answer::Reversed),
        "refused",
    ),
    (
        "a month old, no nextUpdate",
        Mode::Says(Answer::OldWithoutNextUpdate),
        "refused",
    ),
    (
        "critical extension",
        Mode::Says(Answer::Critical(Place::Response)),
        "refused",
    ),
    (
        "critical extension of the single response",
        Mode::Says(Answer::Critical(Place::Single)),
        "refused",
    ),
    ("unknown", Mode::Says(Answer::Unknown), "refused"),
    (
        "unknown and good at once",
        Mode::Says(Answer::UnknownAndGood),
        "refused",
    ),
    ("truncated DER", Mode::Says(Answer::Truncated), "refused"),
    ("trailing bytes", Mode::Says(Answer::Trailing), "refused"),
    ("BER", Mode::Says(Answer::Ber), "refused"),
    ("garbage", Mode::Says(Answer::Garbage), "refused"),
    ("empty body", Mode::Says(Answer::Empty), "refused"),
    ("malformedRequest", Mode::Says(Answer::Error(1)), "refused"),
    ("internalError", Mode::Says(Answer::Error(2)), "refused"),
    ("tryLater", Mode::Says(Answer::Error(3)), "try_later"),
    ("sigRequired", Mode::Says(Answer::Error(5)), "refused"),
    ("unauthorized", Mode::Says(Answer::Error(6)), "unauthorized"),
    ("revoked", Mode::Says(Answer::Revoked), "revoked"),
    (
        "revoked and good at once",
        Mode::Says(Answer::RevokedAndGood),
        "revoked",
    ),
    (
        "revoked, then good",
        Mode::First(&Mode::Says(Answer::Revoked)),
        "revoked",
    ),
];

/// Misbehaviours that only a deadline ends.
pub const STUCK: &[(&str, Mode)] = &[
    ("stuck", Mode::Stuck),
    ("hangs after headers", Mode::HangsAfterHeaders),
    ("drips", Mode::Drips(Duration::from_secs(1))),
];

/// What is unusual, allowed, and to be stapled.
pub const ODD: &[(&str, Mode)] = &[
    ("in chunks, also to HTTP/1.0", Mode::Chunked(100)),
    ("slow, 2 s", Mode::Slow(Duration::from_secs(2))),
    ("a second answer that nobody asked for", Mode::Desync),
    ("no nextUpdate", Mode::Says(Answer::GoodWithoutNextUpdate)),
    ("signed by the issuer", Mode::Says(Answer::GoodByIssuer)),
    ("CertID by SHA-256", Mode::Says(Answer::Sha256)),
    ("among others", Mode::Says(Answer::AmongOthers)),
    ("good twice", Mode::Says(Answer::Twice)),
];
