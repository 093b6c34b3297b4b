//! CRLs are watched for certificates that have no responder: so a revoked one is noticed, though
//! nothing can be stapled for it.
//!
//! One list for all certificates of an issuer that name the same places. A list is asked for
//! conditionally where its server can say that nothing changed; its number never goes back. It lives
//! in memory; only one that revokes a certificate of ours is kept for after a restart (`kept_lists`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tokio::task::{Id, JoinError, JoinSet};

use super::Control;
use super::book::{Track, consequence, dice, label};
use super::cache::Entry;
use super::fetch::host_of;
use super::gather::Cached;
use super::inquiry::Outcome;
use super::keeper::Work;
use super::kept_lists;
use super::list_fetch::{
    self, ListAnswer, ListAttempt, ListFailure, ListNews, ListQuestion, ListRead,
};
use super::load::Subject;
use super::queue::Queue;
use super::schedule::{self, Pace, Trouble, Validity};
use super::status::optional_instant;
use crate::certificate::Identity;
use crate::clock;
use crate::crl::{CrlNumber, Policy, Refusal};
use crate::egress::Validators;
use crate::limits::{CRL_PACE, CRLS_IN_FLIGHT, REVOKED_RETRY, Turns};
use crate::observability::counters::CrlResult;
use crate::snapshot::{CertificateIndex, SlotState, Table};

/// Every list that is watched.
pub(super) struct Lists {
    watched: Vec<Watched>,
    /// The list of a certificate.
    of: HashMap<CertificateIndex, u32>,
    pub(super) queue: Queue,
    pub(super) questions: JoinSet<ListAnswer>,
    /// Which list each question is about.
    asked: HashMap<Id, u32>,
}

/// A list with the certificates it is about.
struct Watched {
    key: Key,
    certificates: Vec<CertificateIndex>,
    record: Record,
}

/// What makes two certificates share a list.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) urls: Vec<String>,
    pub(super) issuers: Vec<CertificateDer<'static>>,
    skew: Duration,
    allow_sha1: bool,
}

impl Key {
    /// Of the list that a certificate names.
    pub(super) fn of(subject: &Subject, identity: &Identity) -> Self {
        Self {
            urls: subject.crls.clone(),
            issuers: issuers(subject, identity),
            skew: subject.ocsp.skew,
            allow_sha1: subject.ocsp.allow_sha1,
        }
    }

    /// For the verifier, where the list last seen had this number.
    pub(super) fn policy(&self, last_number: Option<CrlNumber>) -> Policy {
        Policy {
            skew: self.skew,
            max_age: None,
            allow_sha1: self.allow_sha1,
            last_number,
        }
    }
}

/// How fetching a list has gone so far.
#[derive(Clone, Default)]
struct Record {
    held: Option<Held>,
    /// Of the list that was seen before the restart.
    kept_number: Option<CrlNumber>,
    /// In a row.
    failures: u32,
    last_error: Option<String>,
}

/// The list taken last.
#[derive(Clone)]
struct Held {
    validity: Validity,
    number: Option<CrlNumber>,
    /// What names it, and which place called it so.
    validators: (usize, Validators),
}

/// A watched CRL, as the status shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CrlStatus {
    /// Its places, tried in turn.
    pub urls: Vec<String>,
    /// Of the list taken last.
    pub number: Option<String>,
    /// When it was made.
    #[serde(with = "optional_instant")]
    pub this_update: Option<SystemTime>,
    /// When the CA has a newer one.
    #[serde(with = "optional_instant")]
    pub next_update: Option<SystemTime>,
    /// From then on it says nothing.
    #[serde(with = "optional_instant")]
    pub not_after: Option<SystemTime>,
    /// When it is fetched next; `None` while it is.
    #[serde(with = "optional_instant")]
    pub next_fetch: Option<SystemTime>,
    /// Failures since the last success.
    pub failures: u32,
    /// Why the last attempt failed, in words.
    pub last_error: Option<String>,
}

impl Lists {
    /// The lists of a table; what is known of those that stay is taken over.
    pub(super) fn open(
        table: &Table,
        subjects: &[Subject],
        turns: Turns,
        before: Option<&Self>,
    ) -> Self {
        let now = clock::now();
        let mut lists = Self {
            watched: Vec::new(),
            of: HashMap::new(),
            queue: Queue::new(CRLS_IN_FLIGHT, turns),
            questions: JoinSet::new(),
            asked: HashMap::new(),
        };
        let known = before.map(|before| &before.watched[..]).unwrap_or_default();
        let known: HashMap<&Key, &Record> = known.iter().map(|w| (&w.key, &w.record)).collect();
        let mut by_key: HashMap<Key, u32> = HashMap::new();
        for (index, subject) in (0..).zip(subjects) {
            if subject.crls.is_empty() {
                continue;
            }
            let key = Key::of(subject, &table.certificates[index as usize].identity);
            let next = lists.watched.len().try_into().expect("fewer than 2^32");
            let list = *by_key.entry(key.clone()).or_insert(next);
            if list == next {
                let hosts: Vec<String> = key.urls.iter().map(|url| host_of(url)).collect();
                lists.queue.enter(Some(&hosts.join(",")));
                lists.queue.schedule(list, now);
                let mut record = known.get(&key).copied().cloned().unwrap_or_default();
                // A certificate may be new, about which the list at hand was not asked.
                if let Some(held) = &mut record.held {
                    held.validators = Default::default();
                }
                lists.watched.push(Watched {
                    key,
                    certificates: Vec::new(),
                    record,
                });
            }
            lists.watched[list as usize].certificates.push(index);
            lists.of.insert(index, list);
        }
        lists
    }

    /// Takes note of the numbers of lists that the cache had: none from before counts.
    pub(super) fn remember(&mut self, cached: &[Cached]) {
        for (index, cached) in (0..).zip(cached) {
            if let (Cached::Listed { number, .. }, Some(list)) = (cached, self.of(index)) {
                let record = &mut self.watched[list as usize].record;
                record.kept_number = record.kept_number.max(*number);
            }
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.watched.len()
    }

    /// The list that a certificate depends on.
    pub(super) fn of(&self, certificate: CertificateIndex) -> Option<u32> {
        self.of.get(&certificate).copied()
    }

    /// What is known of the list that a certificate depends on.
    pub(super) fn status(&self, certificate: CertificateIndex) -> Option<CrlStatus> {
        let list = self.of(certificate)?;
        let Watched { key, record, .. } = &self.watched[list as usize];
        let held = record.held.as_ref();
        Some(CrlStatus {
            urls: key.urls.clone(),
            number: held.and_then(|held| Some(held.number?.to_string())),
            this_update: held.map(|held| held.validity.this_update),
            next_update: held.and_then(|held| held.validity.next_update),
            not_after: held.map(|held| held.validity.not_after),
            next_fetch: self.queue.due_at(list),
            failures: record.failures,
            last_error: record.last_error.clone(),
        })
    }

    fn question(&self, list: u32, table: Arc<Table>, now: SystemTime) -> ListQuestion {
        let Watched {
            key,
            record,
            certificates,
        } = &self.watched[list as usize];
        let held = record.held.as_ref();
        let known = held.filter(|held| {
            held.validators.1.are_there()
                && schedule::asks_for_newer_only(held.validity, PACE.margin, now)
        });
        ListQuestion {
            list,
            table,
            certificates: certificates.clone(),
            urls: key.urls.clone(),
            order: (0..key.urls.len()).collect(),
            issuers: key.issuers.clone(),
            policy: key.policy(held.map_or(record.kept_number, |held| held.number)),
            known: known.map(|held| held.validators.clone()),
        }
    }

    /// Plans the next look after a good one.
    fn plan(&mut self, list: u32, fresh: Option<Duration>, now: SystemTime) {
        let Some(held) = &mut self.watched[list as usize].record.held else {
            return;
        };
        held.validity.fresh_until = fresh.map(|fresh| now + fresh);
        let refresh = schedule::refresh_at(held.validity, now, PACE, dice());
        let pace = match held.validators.1.are_there() {
            true => CRL_PACE,
            false => 12 * CRL_PACE,
        };
        let pace = pace.mul_f64(1.0 - 0.1 * dice());
        self.queue.schedule(list, refresh.min(now + pace));
    }
}

/// Certificates of the CA: what follows the leaf in its file, and what the site trusts.
fn issuers(subject: &Subject, identity: &Identity) -> Vec<CertificateDer<'static>> {
    let chain = identity.chain[1..].iter();
    chain.chain(subject.trust.iter()).cloned().collect()
}

impl Control {
    /// Starts fetching the lists that are due.
    pub(super) fn look_at_lists(&mut self) {
        let now = clock::now();
        while let Some(list) = self.lists.queue.next(now) {
            let urls = &self.lists.watched[list as usize].key.urls;
            let order = self.detours.order(urls, now);
            self.look_at_list(list, Some(order), now);
        }
    }

    /// Starts fetching one list, which the queue has given, from its places in this order, or in
    /// their own.
    pub(super) fn look_at_list(&mut self, list: u32, order: Option<Vec<usize>>, now: SystemTime) {
        let table = Arc::clone(&self.publisher.current().table);
        let mut question = self.lists.question(list, table, now);
        question.order = order.unwrap_or(question.order);
        tracing::debug!(
            event = "crl_fetch_triggered",
            url = question.urls[question.order[0]],
            certificates = question.certificates.len(),
            "fetching a CRL"
        );
        let asking = list_fetch::ask(self.client.clone(), question);
        let id = self.lists.questions.spawn(asking).id();
        self.lists.asked.insert(id, list);
    }

    /// Handles what came of fetching a list.
    pub(super) fn take_list(&mut self, answer: Result<(Id, ListAnswer), JoinError>) {
        let now = clock::now();
        let answer = match answer {
            Ok((id, answer)) => {
                self.lists.asked.remove(&id);
                answer
            }
            Err(error) => {
                tracing::error!(event = "fault", "fetching a CRL broke down: {error}");
                if let Some(list) = self.lists.asked.remove(&error.id()) {
                    self.lists.queue.finished(list, true, now);
                    self.lists.queue.schedule(list, now + REVOKED_RETRY);
                }
                return;
            }
        };
        for attempt in &answer.attempts {
            self.counters.crl_results.one(attempt.result);
            if let Some(dated) = attempt.dated {
                self.timekeeping.hear(&attempt.host, dated, now);
            }
            self.detours.note(&attempt.host, attempt.reached, now);
        }
        self.name_the_clock(now);
        let list = answer.list;
        let reached = answer.attempts.iter().any(|attempt| attempt.reached);
        self.lists.queue.finished(list, reached, now);
        let about = self.lists.watched[list as usize].certificates.clone();
        let outcomes = self.outcomes(&about, &answer.result);
        match answer.result {
            Ok(ListNews::Unchanged(fresh)) => {
                let record = &mut self.lists.watched[list as usize].record;
                record.failures = 0;
                record.last_error = None;
                self.lists.plan(list, fresh, now);
            }
            Ok(ListNews::Read(read)) => self.take_list_read(list, read, now),
            Err(failure) => self.take_list_failure(list, &failure, &answer.attempts, now),
        }
        for (certificate, outcome) in outcomes {
            self.tell(certificate, outcome, answer.trace.clone());
        }
    }

    /// What somebody who asked about these certificates is told.
    fn outcomes(
        &self,
        about: &[CertificateIndex],
        result: &Result<ListNews, ListFailure>,
    ) -> Vec<(CertificateIndex, Outcome)> {
        let asked = about.iter().filter(|c| self.inquiries.is_about(**c));
        let outcomes = asked.map(|&certificate| {
            let refusal = match result {
                Ok(ListNews::Read(read)) => read
                    .verdicts
                    .iter()
                    .find(|(index, _)| *index == certificate)
                    .and_then(|(_, why)| why.as_ref()),
                _ => None,
            };
            let outcome = match (result, refusal) {
                (Ok(_), Some(Refusal::Revoked { .. })) => Outcome::Revoked,
                (Ok(_), Some(_)) | (Err(_), _) => Outcome::Failed,
                (Ok(ListNews::Unchanged(_)), None) => Outcome::Unchanged,
                (Ok(ListNews::Read(_)), None) => Outcome::NotRevoked,
            };
            (certificate, outcome)
        });
        outcomes.collect()
    }

    fn take_list_read(&mut self, list: u32, mut read: ListRead, now: SystemTime) {
        let record = &mut self.lists.watched[list as usize].record;
        record.failures = 0;
        record.last_error = None;
        record.held = Some(Held {
            validity: Validity {
                this_update: read.this_update,
                next_update: read.next_update,
                not_after: read.not_after,
                fresh_until: None,
            },
            number: read.number,
            validators: (read.place, read.validators),
        });
        self.lists.plan(list, read.fresh, now);
        self.keep_list(list, read.body.take());
        tracing::info!(
            event = "crl_taken",
            url = self.lists.watched[list as usize].key.urls[read.place],
            certificates = read.verdicts.len(),
            "CRL verified; it holds until {}",
            clock::rfc3339(read.not_after)
        );
        let verdicts = read.verdicts.into_iter();
        let states = verdicts.filter_map(|(certificate, refusal)| {
            let state = self.take_list_verdict(certificate, refusal)?;
            Some((certificate, state))
        });
        let states = states.collect();
        self.publish_states(states);
    }

    /// Keeps a list that revokes a certificate for after a restart, and drops one that did so before.
    fn keep_list(&self, list: u32, body: Option<Vec<u8>>) {
        let Watched {
            key, certificates, ..
        } = &self.lists.watched[list as usize];
        let snapshot = self.publisher.current();
        let mut certificates = certificates.iter().map(|&index| index as usize);
        let work = match body {
            Some(body) => {
                let ends = certificates
                    .map(|index| snapshot.table.certificates[index].identity.leaf.not_after);
                let Some(last) = ends.max() else { return };
                Work::Keep(Entry::list(kept_lists::name(&key.urls), body, last))
            }
            None if certificates
                .any(|index| matches!(snapshot.slots[index].state, SlotState::Revoked)) =>
            {
                Work::DropList(kept_lists::name(&key.urls))
            }
            None => return,
        };
        self.assign(work);
    }

    /// The state to publish, where it changes.
    fn take_list_verdict(
        &mut self,
        certificate: CertificateIndex,
        refusal: Option<Refusal>,
    ) -> Option<SlotState> {
        let snapshot = Arc::clone(self.publisher.current());
        let name = label(
            &snapshot.table.certificates[certificate as usize]
                .identity
                .leaf,
        );
        let revoked = matches!(
            snapshot.slots[certificate as usize].state,
            SlotState::Revoked
        );
        let track = &mut self.book.tracks[certificate as usize];
        match refusal {
            Some(Refusal::Revoked { revoked_at, .. }) => {
                let since = clock::rfc3339(revoked_at);
                *track = Track::listed(revoked_at);
                if revoked {
                    return None;
                }
                let subject = &self.book.subjects[certificate as usize];
                tracing::error!(
                    event = "crl_revoked",
                    certificate = name,
                    since,
                    sites = subject.sites.join(", "),
                    "the CA's CRL lists the certificate as revoked: {}",
                    consequence(subject.ocsp.on_revoked)
                );
                Some(SlotState::Revoked)
            }
            Some(refusal) => {
                let words = refusal.to_string();
                if track.last_error.as_ref() != Some(&words) {
                    tracing::warn!(
                        event = "crl_silent",
                        certificate = name,
                        "the CRL says nothing about the certificate: {words}"
                    );
                }
                track.last_error = Some(words);
                None
            }
            None => {
                *track = Track::default();
                if !revoked {
                    return None;
                }
                tracing::warn!(
                    event = "crl_restored",
                    certificate = name,
                    "the CA's CRL lists the certificate as revoked no more: it is served again"
                );
                Some(SlotState::NotApplicable)
            }
        }
    }

    fn take_list_failure(
        &mut self,
        list: u32,
        failure: &ListFailure,
        attempts: &[ListAttempt],
        now: SystemTime,
    ) {
        let words = self.in_words(failure, failure.is_of_time(), now);
        let Watched {
            key,
            record,
            certificates,
        } = &mut self.lists.watched[list as usize];
        record.failures = record.failures.saturating_add(1);
        record.last_error = Some(words.clone());
        let end = record.held.as_ref().map(|held| held.validity.not_after);
        let left = end.and_then(|end| end.duration_since(now).ok());
        let trouble = match attempts.last().map(|attempt| attempt.result) {
            Some(CrlResult::Egress) => Trouble::Egress,
            Some(CrlResult::NotAllowed) => Trouble::Lasting,
            _ => Trouble::Ordinary,
        };
        let wait = schedule::retry_after(trouble, record.failures, left, dice());
        // Nothing in a handshake depends on it, so its end presses nobody.
        self.lists
            .queue
            .schedule(list, now + wait.max(SHORTEST_RETRY));
        let holds = end.map(clock::rfc3339);
        tracing::warn!(
            event = "crl_failed",
            url = key.urls[0],
            certificates = certificates.len(),
            failures = record.failures,
            holds_until = holds.as_deref().unwrap_or("(none was taken yet)"),
            "no CRL, so a revocation would not be noticed: {words}"
        );
    }
}

/// When a list is fetched in any case.
const PACE: Pace = Pace {
    margin: 0.25,
    interval: None,
    jitter: Duration::from_secs(300),
};

const SHORTEST_RETRY: Duration = Duration::from_secs(1);
