//! Everything that a configuration names is read: the file itself, certificates and keys, backends,
//! and what the cache has for certificates that are new.
//!
//! It blocks, on a thread of its own at a reload, so that refreshes go on meanwhile. Nothing is put
//! in place here.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::cache::Cache;
use super::kept_lists;
use super::load::{self, LoadError, Loaded, Subject};
use super::reload::{self, ReloadError};
use crate::certificate::{Fingerprint, Identity};
use crate::clock;
use crate::config::Config;
use crate::crl::CrlNumber;
use crate::ocsp::{self, NonceRule, Policy, Refusal, Revocation, VerifiedStaple};
use crate::snapshot::Table;

/// What was read, ready to be put in place.
pub(super) struct Gathered {
    pub(super) config: Config,
    pub(super) loaded: Loaded,
    /// For each certificate the staple that the cache had.
    pub(super) cached: Vec<Cached>,
}

/// What the cache had for a certificate.
pub(super) enum Cached {
    /// Nothing, or nobody asked.
    Nothing,
    /// A response that the verifier passed.
    Staple(Arc<VerifiedStaple>),
    /// A response by which the CA revoked the certificate, which does not run out.
    Revoked(Revocation),
    /// A CRL with this number by which the CA revoked the certificate.
    Listed {
        since: SystemTime,
        number: Option<CrlNumber>,
    },
    /// An ordinary end: it ran out while nobody looked.
    Expired,
    /// A file that cannot be read, or holds something that the verifier refused.
    Unusable(String),
}

/// Reads configuration file, certificates, keys and cached staples. Blocks. A certificate of `kept`
/// is not looked up in the cache: its staple is in memory.
pub(super) fn gather(
    path: &Path,
    epoch: u64,
    cache: Option<&Cache>,
    kept: &Table,
) -> Result<Gathered, ReloadError> {
    let text = std::fs::read_to_string(path).map_err(|reason| ReloadError::File {
        path: path.to_owned(),
        reason,
    })?;
    let config = Config::parse(&text).map_err(|error| ReloadError::Config {
        path: path.to_owned(),
        reason: Box::new(error),
    })?;
    reload::compare_listeners(&kept.listeners, &config.listeners)?;
    Ok(gather_from(config, epoch, cache, Some(kept))?)
}

/// As [`gather`], from a configuration that was read already.
pub(super) fn gather_from(
    config: Config,
    epoch: u64,
    cache: Option<&Cache>,
    kept: Option<&Table>,
) -> Result<Gathered, LoadError> {
    let at = clock::now();
    let loaded = load::load(&config, epoch, kept, at)?;
    let known: HashSet<Fingerprint> = kept
        .iter()
        .flat_map(|kept| &kept.certificates)
        .map(|certificate| certificate.identity.leaf.fingerprint)
        .collect();
    let mut cached: Vec<Cached> = loaded
        .table
        .certificates
        .iter()
        .zip(&loaded.subjects)
        .map(|(certificate, subject)| match cache {
            Some(cache)
                if subject.plan.is_ok()
                    && !known.contains(&certificate.identity.leaf.fingerprint) =>
            {
                look_up(cache, &certificate.identity, subject, at)
            }
            _ => Cached::Nothing,
        })
        .collect();
    if let Some(cache) = cache {
        kept_lists::look_up(cache, &loaded, &known, &mut cached, at);
    }
    Ok(Gathered {
        config,
        loaded,
        cached,
    })
}

fn look_up(cache: &Cache, identity: &Identity, subject: &Subject, at: SystemTime) -> Cached {
    let response = match cache.read(identity.leaf.fingerprint) {
        Ok(Some(response)) => response,
        Ok(None) => return Cached::Nothing,
        Err(error) => return Cached::Unusable(error.to_string()),
    };
    let refusal = match verify(&response, identity, subject, at) {
        Ok(staple) => return Cached::Staple(Arc::new(staple)),
        Err(refusal) => refusal,
    };
    match (revocation(&response, identity, subject, at), refusal) {
        (Some(revocation), _) => Cached::Revoked(revocation),
        (None, Refusal::Expired { .. } | Refusal::TooOld { .. }) => Cached::Expired,
        (None, refusal) => Cached::Unusable(refusal.to_string()),
    }
}

/// What a kept response says about a revocation, however long ago.
fn revocation(
    response: &[u8],
    identity: &Identity,
    subject: &Subject,
    at: SystemTime,
) -> Option<Revocation> {
    let (leaf, issuer) = (&identity.chain[0], subject.issuer(identity)?);
    Revocation::verify(response, leaf, issuer, &policy(subject), at).ok()?
}

/// Verifies a response for a certificate with its issuer at hand.
pub(super) fn verify(
    response: &[u8],
    identity: &Identity,
    subject: &Subject,
    at: SystemTime,
) -> Result<VerifiedStaple, Refusal> {
    let issuer = subject.issuer(identity).ok_or(Refusal::NotTheIssuer)?;
    ocsp::verify(response, &identity.chain[0], issuer, &policy(subject), at)
}

/// The part of a site's settings that the verifier looks at.
pub(super) fn policy(subject: &Subject) -> Policy {
    Policy {
        skew: subject.ocsp.skew,
        max_age: subject.ocsp.max_age,
        allow_sha1: subject.ocsp.allow_sha1,
        trusted: Arc::clone(&subject.trust),
        nonce: NonceRule::Any,
    }
}
