//! Stapling of a site: what its own table and `[ocsp]` say together, with the defaults.
//!
//! Files and URLs are checked for their form only; whether they are there and of use is for `control`
//! to find out.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms::Wait;
use super::raw::{OcspTable, StaplePolicy};

/// Stapling of a site.
#[derive(Clone, Debug, PartialEq)]
pub struct Ocsp {
    /// False: nothing is fetched or stapled.
    pub enabled: bool,
    /// Responder used instead of the certificate's own; a `file://` URL names a file with a response.
    pub responder: Option<String>,
    /// Handshakes without a staple: soft serves unstapled, hard refuses. `None`: hard for Must-Staple certificates, else soft.
    pub hard: Option<bool>,
    /// What becomes of a revoked certificate.
    pub on_revoked: OnRevoked,
    /// Digest by which the request names the issuer.
    pub hash: CertIdHash,
    /// How the request is carried.
    pub method: RequestMethod,
    /// Whether the response must be made for this request.
    pub nonce: NonceUse,
    /// How far the responder's clock may be ahead of ours.
    pub skew: Duration,
    /// Oldest response without nextUpdate.
    pub max_age: Duration,
    /// SHA-1 signatures are taken.
    pub allow_sha1: bool,
    /// PEM file of certificates that may sign responses, and of issuers missing from certificate files.
    pub trust: Option<PathBuf>,
    /// Share of the validity before nextUpdate at which a refresh is due, 0.05 to 0.95.
    pub margin: f64,
    /// Longest time between two fetches. `None`: twelve hours where the response names no nextUpdate,
    /// else as long as `margin` says.
    pub interval: Option<Duration>,
    /// Most that a refresh comes earlier by chance, so that certificates fetched together spread.
    pub jitter: Duration,
    /// For one responder to answer, resolution and connect included.
    pub timeout: Duration,
}

/// What becomes of a certificate that its CA revoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnRevoked {
    /// It is not served.
    #[default]
    Refuse,
    /// It is served without a staple.
    ServeUnstapled,
    /// It is not served, and the default site's certificates step in for it.
    Fallback,
}

/// Digest by which a request names the issuer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CertIdHash {
    /// What RFC 9919 section 3.1.1 wants and every responder takes.
    #[default]
    Sha1,
    /// For responders that no longer take SHA-1.
    Sha256,
}

/// How a request is carried over HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RequestMethod {
    /// GET where the URL is short enough and there is no nonce, else POST; POST also after a GET
    /// that the server does not take.
    #[default]
    Auto,
    /// GET only.
    Get,
    /// POST only.
    Post,
}

/// Whether requests carry a nonce (RFC 9654).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NonceUse {
    /// None: responders may answer with what they signed in advance.
    #[default]
    Off,
    /// One is sent; a response without is taken, one with another is refused.
    Ask,
    /// One is sent, and must come back.
    Require,
}

impl Ocsp {
    /// What a site's own table says, else `[ocsp]`, else the default.
    pub(super) fn of(own: &OcspTable, all: &OcspTable, switched_off: bool) -> Self {
        let policy = own.policy.or(all.policy);
        let wait =
            |own: Option<Wait>, all: Option<Wait>, default| own.or(all).map_or(default, |w| w.0);
        let trust = own.trust.as_ref().or(all.trust.as_ref());
        Self {
            enabled: !switched_off && own.enabled.or(all.enabled).unwrap_or(true),
            responder: own.responder.clone().or_else(|| all.responder.clone()),
            hard: policy.map(|policy| policy == StaplePolicy::Hard),
            on_revoked: own.on_revoked.or(all.on_revoked).unwrap_or_default(),
            hash: own.hash.or(all.hash).unwrap_or_default(),
            method: own.method.or(all.method).unwrap_or_default(),
            nonce: own.nonce.or(all.nonce).unwrap_or_default(),
            skew: wait(own.skew, all.skew, SKEW),
            max_age: wait(own.max_age, all.max_age, MAX_AGE),
            allow_sha1: own.allow_sha1.or(all.allow_sha1).unwrap_or(false),
            trust: trust.map(PathBuf::from),
            margin: own.margin.or(all.margin).unwrap_or(MARGIN),
            interval: own.interval.or(all.interval).map(|w| w.0),
            jitter: wait(own.jitter, all.jitter, JITTER),
            timeout: wait(own.timeout, all.timeout, crate::limits::FETCH_DEADLINE),
        }
    }
}

/// Default of `ocsp.skew`; the schema names the same values, which a test compares.
const SKEW: Duration = Duration::from_secs(300);
/// Default of `ocsp.max_age`.
const MAX_AGE: Duration = Duration::from_secs(7 * 86_400);
/// Default of `ocsp.margin`.
const MARGIN: f64 = 0.25;
/// Default of `ocsp.jitter`.
const JITTER: Duration = Duration::from_secs(300);
