//! The configuration and everything it names is read again and put in place of the old, whole or
//! not at all.
//!
//! Reading happens on a thread of its own ([`gather`]), so that refreshes go on meanwhile; putting
//! it in place ([`compare`], and control's own adopting) happens between two events of control.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::cache::Cache;
use super::load::{self, LoadError, Loaded, Subject};
use crate::certificate::{Fingerprint, Identity};
use crate::clock;
use crate::config::{Config, ConfigError, Listener, Ocsp};
use crate::ocsp::{self, Policy, Refusal, VerifiedStaple};
use crate::snapshot::Table;

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReloadReport {
    /// The generation that carries the new configuration.
    pub generation: u64,
    /// Sites now.
    pub sites: usize,
    /// Certificates now.
    pub certificates: usize,
    /// Staples that were kept because their certificate did not change.
    pub staples_kept: usize,
    /// Changes that take effect only at the next start, in words.
    pub needs_restart: Vec<String>,
    /// What was noticed and does not prevent serving, in words.
    pub warnings: Vec<String>,
}

/// Why a reload changed nothing. `Display` says it for an operator.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file cannot be read.
    #[error("the configuration {} cannot be read: {reason}; it must be readable for the user that clinch runs as", .path.display())]
    File {
        /// The configuration file.
        path: PathBuf,
        /// The system's reason.
        reason: std::io::Error,
    },
    /// The file is not a valid configuration.
    #[error("{}: {reason}", .path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// What is wrong in it.
        reason: Box<ConfigError>,
    },
    /// The certificates, keys or backends cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Listening sockets are bound once, before privileges are dropped.
    #[error(
        "listener {listener}: {change}; listeners are set up only at the start: restart clinch, or undo the change"
    )]
    Listeners {
        /// Its name.
        listener: String,
        /// What differs.
        change: String,
    },
    /// The reading itself broke down.
    #[error("reading the configuration failed in clinch itself: {0}")]
    Fault(String),
    /// Control has ended.
    #[error("clinch is shutting down: nothing is reloaded any more")]
    ShuttingDown,
}

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
    compare_listeners(&kept.listeners, &config.listeners)?;
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
    let cached = loaded
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
    match verify(&response, identity, &subject.ocsp, at) {
        Ok(staple) => Cached::Staple(Arc::new(staple)),
        Err(Refusal::Expired { .. } | Refusal::TooOld { .. }) => Cached::Expired,
        Err(refusal) => Cached::Unusable(refusal.to_string()),
    }
}

/// Verifies a response for a certificate with its issuer at hand.
pub(super) fn verify(
    response: &[u8],
    identity: &Identity,
    settings: &Ocsp,
    at: SystemTime,
) -> Result<VerifiedStaple, Refusal> {
    let issuer = identity.issuer().ok_or(Refusal::NotTheIssuer)?;
    ocsp::verify(response, &identity.chain[0], issuer, &policy(settings), at)
}

/// The part of a site's settings that the verifier looks at.
pub(super) fn policy(settings: &Ocsp) -> Policy {
    Policy {
        skew: settings.skew,
        max_age: settings.max_age,
        allow_sha1: settings.allow_sha1,
    }
}

/// Sockets are bound before privileges are dropped, so a reload cannot change them.
fn compare_listeners(old: &[Listener], new: &[Listener]) -> Result<(), ReloadError> {
    let refused = |listener: &Listener, change: String| ReloadError::Listeners {
        listener: listener.name.clone(),
        change,
    };
    for (position, listener) in new.iter().enumerate() {
        match old.get(position) {
            None => return Err(refused(listener, "it is new".to_owned())),
            Some(before) if before.name != listener.name => {
                let change = format!("{} was in its place", before.name);
                return Err(refused(listener, change));
            }
            Some(before) if before.addresses != listener.addresses => {
                let change = format!(
                    "its address was {:?} and is now {:?}",
                    before.addresses, listener.addresses
                );
                return Err(refused(listener, change));
            }
            Some(_) => {}
        }
    }
    match old.get(new.len()) {
        Some(gone) => Err(refused(gone, "it is gone".to_owned())),
        None => Ok(()),
    }
}

/// Settings that differ and that a reload does not change.
pub(super) fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let mut changed = Vec::new();
    let mut note = |differs: bool, what: &str| {
        if differs {
            changed.push(format!("{what} takes effect at the next start"));
        }
    };
    note(old.user != new.user, "`user`");
    note(old.workers != new.workers, "`workers`");
    note(old.cache != new.cache, "`cache_dir`");
    note(old.limits != new.limits, "`limits`");
    note(old.timeouts != new.timeouts, "`timeouts`");
    note(old.admin != new.admin, "`admin`");
    note(old.log != new.log, "`log`");
    note(old.egress != new.egress, "`egress`");
    let mut pairs = old.listeners.iter().zip(&new.listeners);
    note(
        pairs.any(|(old, new)| old.backlog != new.backlog),
        "`backlog`",
    );
    changed
}
