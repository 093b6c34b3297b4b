//! What control remembers of each certificate between two answers: what to ask, when, and how it
//! has gone. Opened from the cache at the start, and anew at a reload with all that is known of
//! certificates that stay.
//!
//! The stapling states themselves are in the snapshot; [`Book::open`] says what they are at first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;

use super::fetch::{self, host_of};
use super::gather::{self, Cached};
use super::load::Subject;
use super::queue::Queue;
use super::schedule::{self, Pace, Validity};
use crate::certificate::{Fingerprint, Identity, Leaf};
use crate::clock;
use crate::config::OnRevoked;
use crate::egress::Validators;
use crate::limits::{FETCHES_IN_FLIGHT, Turns};
use crate::observability::counters::FetchCounters;
use crate::ocsp::{Policy, Revocation, VerifiedStaple};
use crate::snapshot::{CertificateIndex, SlotState, Snapshot, Table};

/// One entry for each certificate of the table, in each of these.
pub(super) struct Book {
    pub(super) subjects: Vec<Subject>,
    pub(super) tracks: Vec<Track>,
    pub(super) queue: Queue,
    /// Certificates that nobody has asked about yet and that have no staple.
    pub(super) unsettled: HashSet<CertificateIndex>,
}

/// How asking about a certificate has gone so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    /// In a row.
    pub(super) failures: u32,
    /// Of the last attempt, in words.
    pub(super) last_error: Option<String>,
    /// From the verified answer, where the certificate is revoked.
    pub(super) revoked_at: Option<SystemTime>,
    /// When the CA was known to say so; an answer from before then says nothing against it.
    pub(super) revoked_known: Option<SystemTime>,
    /// What names the staple in use, and which responder called it so.
    pub(super) validators: Option<Box<(usize, Validators)>>,
}

impl Track {
    /// Of a certificate that the CA has revoked.
    pub(super) fn revoked(revocation: &Revocation) -> Self {
        let since = clock::rfc3339(revocation.revoked_at());
        Self {
            failures: 0,
            last_error: Some(format!("revoked by the CA since {since}")),
            revoked_at: Some(revocation.revoked_at()),
            revoked_known: Some(revocation.this_update()),
            validators: None,
        }
    }

    /// Of a certificate that is on its CA's CRL.
    pub(super) fn listed(since: SystemTime) -> Self {
        let words = clock::rfc3339(since);
        Self {
            last_error: Some(format!("revoked by the CA since {words}, says its CRL")),
            revoked_at: Some(since),
            ..Self::default()
        }
    }

    /// Whether an answer of that time says nothing about the time after the revocation.
    pub(super) fn is_replay(&self, this_update: SystemTime) -> bool {
        self.revoked_at.is_some_and(|at| this_update <= at)
            || self.revoked_known.is_some_and(|known| this_update < known)
    }
}

/// What is known of a certificate that stays through a reload.
pub(super) struct Kept {
    issuer: Option<CertificateDer<'static>>,
    policy: Policy,
    state: SlotState,
    track: Track,
    /// `None` where it was being asked about.
    due: Option<SystemTime>,
}

impl Kept {
    /// True where the verifier would look at the same issuer and the same settings again, so that
    /// its verdict stands. Otherwise a reload of many certificates would verify for seconds.
    fn judged_alike(&self, identity: &Identity, subject: &Subject) -> bool {
        self.issuer.as_ref() == subject.issuer(identity) && self.policy == gather::policy(subject)
    }
}

impl Book {
    /// Opens the book for a table, and says in which state each certificate begins.
    pub(super) fn open(
        table: &Table,
        subjects: Vec<Subject>,
        cached: Vec<Cached>,
        kept: &HashMap<Fingerprint, Kept>,
        turns: Turns,
        counters: &FetchCounters,
    ) -> (Self, Vec<SlotState>) {
        let now = clock::now();
        let mut book = Self {
            tracks: vec![Track::default(); subjects.len()],
            subjects,
            queue: Queue::new(FETCHES_IN_FLIGHT, turns),
            unsettled: HashSet::new(),
        };
        let mut states = Vec::with_capacity(cached.len());
        for (index, cached) in cached.into_iter().enumerate() {
            let identity = &table.certificates[index].identity;
            let responders = book.subjects[index].plan.as_ref().ok();
            // Turns are counted for all responders of a certificate together: where there are several,
            // the failure of one alone is no reason to wait.
            let hosts = |plan: &Vec<String>| {
                let hosts: Vec<String> = plan.iter().map(|url| host_of(url)).collect();
                hosts.join(",")
            };
            let host = responders.map(hosts);
            book.queue.enter(host.as_deref());
            let state = match kept.get(&identity.leaf.fingerprint) {
                Some(kept) => book.take_over(index, identity, kept, now),
                None => book.take_cached(index, identity, cached, counters, now),
            };
            states.push(state);
        }
        let skipped = book.subjects.iter().filter(|s| s.plan.is_err()).count();
        counters.skipped.set(skipped as u64);
        (book, states)
    }

    /// Everything about the certificates of a snapshot that is worth keeping.
    pub(super) fn known(&self, snapshot: &Snapshot) -> HashMap<Fingerprint, Kept> {
        let mut known = HashMap::new();
        for (index, subject) in (0..).zip(&self.subjects) {
            if subject.plan.is_ok() || !subject.crls.is_empty() {
                let identity = &snapshot.table.certificates[index as usize].identity;
                let kept = Kept {
                    issuer: subject.issuer(identity).cloned(),
                    policy: gather::policy(subject),
                    state: snapshot.slots[index as usize].state.clone(),
                    track: self.tracks[index as usize].clone(),
                    due: self.queue.due_at(index),
                };
                known.insert(snapshot.fingerprint(index), kept);
            }
        }
        known
    }

    fn take_over(
        &mut self,
        index: usize,
        identity: &Identity,
        kept: &Kept,
        now: SystemTime,
    ) -> SlotState {
        let subject = &self.subjects[index];
        if subject.plan.is_err() {
            // What a CRL said stands until a newer one says otherwise.
            if let (SlotState::Revoked, false) = (&kept.state, subject.crls.is_empty()) {
                self.tracks[index] = kept.track.clone();
                return SlotState::Revoked;
            }
            return SlotState::NotApplicable;
        }
        let certificate = CertificateIndex::try_from(index).expect("as many as the table");
        self.tracks[index] = kept.track.clone();
        // Whoever reloads after trouble wants to know whether it is over.
        let troubled = kept.track.failures > 0 || kept.track.revoked_at.is_some();
        let by_file = matches!(&subject.plan, Ok(plan) if fetch::file_of(&plan[0]).is_some());
        let due = kept.due.filter(|_| !troubled && !by_file).unwrap_or(now);
        self.queue.schedule(certificate, due);
        let SlotState::Stapled(staple) = &kept.state else {
            return match kept.state {
                SlotState::Revoked => SlotState::Revoked,
                _ => SlotState::Missing,
            };
        };
        if kept.judged_alike(identity, subject) {
            return kept.state.clone();
        }
        match gather::verify(staple.der(), identity, subject, now) {
            Ok(staple) => SlotState::Stapled(Arc::new(staple)),
            Err(refusal) => {
                tracing::warn!(
                    event = "staple_dropped",
                    certificate = %label(&identity.leaf),
                    "the staple in use does not pass the new settings: {refusal}"
                );
                self.queue.schedule(certificate, now);
                SlotState::Missing
            }
        }
    }

    fn take_cached(
        &mut self,
        index: usize,
        identity: &Identity,
        cached: Cached,
        counters: &FetchCounters,
        now: SystemTime,
    ) -> SlotState {
        let subject = &self.subjects[index];
        let name = label(&identity.leaf);
        if let Err(skip) = &subject.plan {
            tracing::debug!(event = "ocsp_skipped", certificate = %name, "not stapled: {skip}");
            return self.take_kept_list(index, &name, cached, counters);
        }
        let certificate = CertificateIndex::try_from(index).expect("as many as the table");
        if let Cached::Revoked(revocation) = &cached {
            counters.from_cache.one();
            tracing::error!(
                event = "ocsp_revoked",
                certificate = %name,
                since = clock::rfc3339(revocation.revoked_at()),
                sites = subject.sites.join(", "),
                "the CA had revoked the certificate before the restart: {}",
                consequence(subject.ocsp.on_revoked)
            );
            self.tracks[index] = Track::revoked(revocation);
            // A hold may have been taken back in the meantime.
            self.queue.schedule(certificate, now);
            return SlotState::Revoked;
        }
        if let Some(staple) = from_cache(&name, cached, counters) {
            let pace = Pace::of(&subject.ocsp);
            let begun = staple.this_update();
            let due = schedule::refresh_at(validity(&staple, None), begun, pace, dice());
            self.queue.schedule(certificate, due);
            return SlotState::Stapled(staple);
        }
        self.queue.schedule(certificate, now);
        self.unsettled.insert(certificate);
        SlotState::Missing
    }
}

impl Book {
    /// What a kept CRL says about a certificate that nobody else is asked about.
    fn take_kept_list(
        &mut self,
        index: usize,
        name: &str,
        cached: Cached,
        counters: &FetchCounters,
    ) -> SlotState {
        let subject = &self.subjects[index];
        match cached {
            Cached::Listed { since, .. } => {
                counters.from_cache.one();
                let track = &mut self.tracks[index];
                *track = Track::listed(since);
                tracing::error!(
                    event = "crl_revoked",
                    certificate = name,
                    since = clock::rfc3339(since),
                    sites = subject.sites.join(", "),
                    "the CA's CRL had listed the certificate as revoked before the restart: {}",
                    consequence(subject.ocsp.on_revoked)
                );
                SlotState::Revoked
            }
            Cached::Unusable(reason) => {
                counters.cache_refused.one();
                tracing::warn!(
                    event = "cache_refused",
                    certificate = name,
                    "the kept CRL is not used: {reason}"
                );
                SlotState::NotApplicable
            }
            _ => SlotState::NotApplicable,
        }
    }
}

fn from_cache(
    certificate: &str,
    cached: Cached,
    counters: &FetchCounters,
) -> Option<Arc<VerifiedStaple>> {
    match cached {
        Cached::Nothing | Cached::Revoked(_) | Cached::Listed { .. } => None,
        Cached::Expired => {
            tracing::debug!(
                event = "cache_expired",
                certificate,
                "the cached staple has run out"
            );
            None
        }
        Cached::Unusable(reason) => {
            counters.cache_refused.one();
            tracing::warn!(
                event = "cache_refused",
                certificate,
                "the cached staple is not used: {reason}"
            );
            None
        }
        Cached::Staple(staple) => {
            counters.from_cache.one();
            let until = clock::rfc3339(staple.not_after());
            tracing::info!(
                event = "cache_used",
                certificate,
                until,
                "stapling from the cache"
            );
            Some(staple)
        }
    }
}

/// What a revocation leads to, for the log.
pub(super) fn consequence(on_revoked: OnRevoked) -> &'static str {
    match on_revoked {
        OnRevoked::Refuse => "it is not served any more; replace it and its key",
        OnRevoked::ServeUnstapled => {
            "it is still served, without a staple, because `ocsp.on_revoked` says so; replace it and its key"
        }
        OnRevoked::Fallback => {
            "other certificates are served instead, as `ocsp.on_revoked` says; replace it and its key"
        }
    }
}

/// What the log calls a certificate: its subject, and enough of its key to tell two of them apart.
pub(super) fn label(leaf: &Leaf) -> String {
    let [a, b, c, d, ..] = leaf.spki_sha256;
    format!("{} (spki {a:02x}{b:02x}{c:02x}{d:02x})", leaf.subject)
}

/// What the schedule needs of a staple.
pub(super) fn validity(staple: &VerifiedStaple, fresh_until: Option<SystemTime>) -> Validity {
    Validity {
        this_update: staple.this_update(),
        next_update: staple.next_update(),
        not_after: staple.not_after(),
        fresh_until,
    }
}

/// A number in `[0, 1)` for the schedule.
pub(super) fn dice() -> f64 {
    rand::random()
}
