//! CRLs that list a certificate as revoked survive a restart: otherwise it would be served again while
//! the CRL's server is down, or for whoever can keep clinch from reaching it.
//!
//! Nothing that the cache has is believed: the list is verified again. It may have run out, since what
//! it revoked stays revoked until a newer list says otherwise. All calls block.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;

use super::cache::Cache;
use super::gather::Cached;
use super::lists::Key;
use super::load::Loaded;
use crate::certificate::Fingerprint;
use crate::crl::{self, Policy, Refusal, VerifiedList};

/// What names a list in the cache: SHA-256 over its places.
pub(super) fn name(urls: &[String]) -> Fingerprint {
    Fingerprint::of(urls.join("\n").as_bytes())
}

/// Looks up the lists of all certificates but those of `known`, and sets what they say.
pub(super) fn look_up(
    cache: &Cache,
    loaded: &Loaded,
    known: &HashSet<Fingerprint>,
    cached: &mut [Cached],
    at: SystemTime,
) {
    let mut about: HashMap<Key, Vec<usize>> = HashMap::new();
    let certificates = &loaded.table.certificates;
    for (index, subject) in loaded.subjects.iter().enumerate() {
        let identity = &certificates[index].identity;
        if !subject.crls.is_empty() && !known.contains(&identity.leaf.fingerprint) {
            let key = Key::of(subject, identity);
            about.entry(key).or_default().push(index);
        }
    }
    for (key, about) in about {
        let body = match cache.read_list(name(&key.urls)) {
            Ok(None) => continue,
            Ok(Some(body)) => body,
            Err(error) => {
                cached[about[0]] = Cached::Unusable(error.to_string());
                continue;
            }
        };
        let leaves = about
            .iter()
            .map(|&index| &certificates[index].identity.chain[0]);
        let leaves: Vec<&CertificateDer<'_>> = leaves.collect();
        match judge(&body, &key, &leaves, at) {
            Ok(verdicts) => {
                for (index, verdict) in about.into_iter().zip(verdicts) {
                    cached[index] = verdict;
                }
            }
            Err(refusal) => cached[about[0]] = Cached::Unusable(refusal.to_string()),
        }
    }
}

fn judge(
    body: &[u8],
    key: &Key,
    leaves: &[&CertificateDer<'_>],
    at: SystemTime,
) -> Result<Vec<Cached>, Refusal> {
    let der = crl::decode(body)?;
    let list = verify(&der, key, &key.policy(None), at)?;
    let verdicts = list.judge_all(leaves).into_iter();
    let verdicts = verdicts.map(|verdict| match verdict {
        Err(Refusal::Revoked { revoked_at, .. }) => Cached::Listed {
            since: revoked_at,
            number: list.number(),
        },
        _ => Cached::Nothing,
    });
    Ok(verdicts.collect())
}

/// Verifies a list now, or as of a time at which it was valid.
fn verify<'a>(
    der: &'a [u8],
    key: &'a Key,
    policy: &Policy,
    at: SystemTime,
) -> Result<VerifiedList<'a>, Refusal> {
    let verify = |at| VerifiedList::verify(der, &key.issuers, policy, at);
    match verify(at) {
        Err(Refusal::Expired { next_update, .. }) => verify(next_update - Duration::from_secs(1)),
        Err(Refusal::TooOld { this_update, .. }) => verify(this_update),
        verdict => verdict,
    }
}
