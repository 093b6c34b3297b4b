//! Questions are asked when they are due, and what follows from each answer: a staple in place, a
//! certificate withdrawn, another attempt later.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::{Id, JoinError};

use super::Control;
use super::book::{Track, consequence, dice, label, validity};
use super::cache::Entry;
use super::fetch::{self, Answer, Failure, News, Question};
use super::gather;
use super::inquiry::Outcome;
use super::keeper::Work;
use super::schedule::{self, Pace};
use crate::clock;
use crate::egress::Validators;
use crate::limits::REVOKED_RETRY;
use crate::ocsp::{Revocation, VerifiedStaple};
use crate::snapshot::{CertificateIndex, SlotState};

impl Control {
    /// Starts as many questions as may be under way.
    pub(super) fn ask_what_is_due(&mut self) {
        let now = clock::now();
        while let Some(certificate) = self.book.queue.next(now) {
            let plan = self.book.subjects[certificate as usize].plan.as_deref();
            let order = self.detours.order(plan.unwrap_or_default(), now);
            self.ask(certificate, order, now);
        }
    }

    /// Asks about one certificate, which the queue has given, its responders in this order.
    pub(super) fn ask(
        &mut self,
        certificate: CertificateIndex,
        order: Vec<usize>,
        now: SystemTime,
    ) {
        let subject = &self.book.subjects[certificate as usize];
        let table = Arc::clone(&self.publisher.current().table);
        let identity = &table.certificates[certificate as usize].identity;
        let (Ok(responders), Some(issuer)) = (&subject.plan, subject.issuer(identity)) else {
            return;
        };
        tracing::debug!(
            event = "ocsp_fetch_triggered",
            certificate = %label(&identity.leaf),
            responder = responders[order[0]],
            "asking the responder"
        );
        let left = self.time_left(certificate, now);
        let question = Question {
            certificate,
            responders: responders.clone(),
            order,
            named_by: subject.named_by(),
            issuer: issuer.clone(),
            policy: gather::policy(subject),
            settings: subject.ocsp.clone(),
            patience: schedule::patience(left, subject.ocsp.timeout),
            known: self.may_say_unchanged(certificate, now),
            table,
        };
        let asking = fetch::ask(self.client.clone(), question);
        let id = self.questions.spawn(asking).id();
        self.asked.insert(id, certificate);
    }

    /// Handles an answer together with all others that are in, in one publish.
    pub(super) fn take_answers(&mut self, first: Result<(Id, Answer), JoinError>) {
        let mut states = Vec::new();
        let mut next = Some(first);
        let mut told = Vec::new();
        while let Some(answer) = next {
            match answer {
                Ok((id, mut answer)) => {
                    self.asked.remove(&id);
                    if self.inquiries.is_about(answer.certificate) {
                        let steps = std::mem::take(&mut answer.trace);
                        told.push((answer.certificate, Outcome::of(&answer.result), steps));
                    }
                    states.extend(self.take_answer(answer));
                }
                Err(error) => self.recover(&error),
            }
            next = self.questions.try_join_next_with_id();
        }
        self.publish_states(states);
        for (certificate, outcome, steps) in told {
            self.tell(certificate, outcome, steps);
        }
    }

    /// Publishes new states, all at once.
    pub(super) fn publish_states(&mut self, states: Vec<(CertificateIndex, SlotState)>) {
        if states.is_empty() {
            return;
        }
        self.publisher.publish(|snapshot| {
            for (certificate, state) in states {
                let fits = snapshot.set_slot(certificate, state);
                debug_assert!(fits, "verified against the certificate of this slot");
            }
        });
    }

    /// What names the staple in use, where it is enough to hear that there is nothing newer.
    fn may_say_unchanged(
        &self,
        certificate: CertificateIndex,
        now: SystemTime,
    ) -> Option<(usize, Validators)> {
        let known = self.book.tracks[certificate as usize]
            .validators
            .as_deref()?;
        let state = &self.publisher.current().slots[certificate as usize].state;
        let SlotState::Stapled(staple) = state else {
            return None;
        };
        let margin = self.book.subjects[certificate as usize].ocsp.margin;
        let enough = schedule::asks_for_newer_only(validity(staple, None), margin, now);
        enough.then(|| known.clone())
    }

    /// Returns the state to publish, where it changes.
    fn take_answer(&mut self, answer: Answer) -> Option<(CertificateIndex, SlotState)> {
        let certificate = answer.certificate;
        let now = clock::now();
        for attempt in &answer.attempts {
            self.counters.results.one(attempt.result);
            self.counters.time.record(attempt.took);
            self.tally.one(&attempt.host, attempt.result);
            if let Some(dated) = attempt.dated {
                self.timekeeping.hear(&attempt.host, dated, now);
            }
            self.detours.note(&attempt.host, attempt.reached, now);
        }
        self.name_the_clock(now);
        let reached = answer.attempts.iter().any(|attempt| attempt.reached);
        self.book.queue.finished(certificate, reached, now);
        self.book.unsettled.remove(&certificate);
        let changed = match answer.result {
            Ok(News::Staple(staple)) => {
                let state = self.take_staple(certificate, staple, answer.fresh, now);
                self.book.tracks[certificate as usize].validators = match state {
                    Some(_) => answer.validators.map(Box::new),
                    None => None,
                };
                state
            }
            Ok(News::Unchanged) => {
                self.keep_staple(certificate, answer.fresh, now);
                None
            }
            Err(Failure::Revoked(revocation)) => self.take_revoked(certificate, &revocation, now),
            Err(failure) => {
                self.take_failure(certificate, &failure, &answer.responder, now);
                None
            }
        };
        changed.map(|state| (certificate, state))
    }

    fn take_staple(
        &mut self,
        certificate: CertificateIndex,
        staple: Arc<VerifiedStaple>,
        fresh: Option<Duration>,
        now: SystemTime,
    ) -> Option<SlotState> {
        let snapshot = Arc::clone(self.publisher.current());
        let name = label(
            &snapshot.table.certificates[certificate as usize]
                .identity
                .leaf,
        );
        // The clock may have been set since the response was verified.
        let skew = self.book.subjects[certificate as usize].ocsp.skew;
        if staple.not_after() <= now || staple.this_update() > now + skew {
            tracing::warn!(
                event = "clock_outran",
                certificate = name,
                "the clock was set while the responder was asked: it is asked again"
            );
            self.book.queue.schedule(certificate, now);
            return None;
        }
        let track = &mut self.book.tracks[certificate as usize];
        // Whoever sits on the way may play back an old response; one from before the revocation
        // says nothing about the time after it.
        if track.is_replay(staple.this_update()) {
            tracing::warn!(
                event = "ocsp_replayed",
                certificate = name,
                "a response from before the revocation is not taken"
            );
            let again = now + REVOKED_RETRY;
            self.book.queue.schedule(certificate, again);
            return None;
        }
        *track = Track::default();
        let staple = match &snapshot.slots[certificate as usize].state {
            SlotState::Stapled(present)
                if present.this_update() > staple.this_update()
                    && present.not_after() >= staple.not_after() =>
            {
                tracing::info!(
                    event = "ocsp_older",
                    certificate = name,
                    "the responder gave an older response than the one in use, which stays"
                );
                Arc::clone(present)
            }
            _ => staple,
        };
        let pace = Pace::of(&self.book.subjects[certificate as usize].ocsp);
        let fresh_until = fresh.map(|fresh| now + fresh);
        let next = schedule::refresh_at(validity(&staple, fresh_until), now, pace, dice());
        self.book.queue.schedule(certificate, next);
        let until = clock::rfc3339(staple.not_after());
        tracing::info!(
            event = "ocsp_cached",
            certificate = name,
            refresh = clock::rfc3339(next),
            "staple cached until {until}"
        );
        self.assign(Work::Keep(Entry::staple(&staple)));
        Some(SlotState::Stapled(staple))
    }

    /// The responder has nothing newer.
    fn keep_staple(
        &mut self,
        certificate: CertificateIndex,
        fresh: Option<Duration>,
        now: SystemTime,
    ) {
        let snapshot = Arc::clone(self.publisher.current());
        let SlotState::Stapled(staple) = &snapshot.slots[certificate as usize].state else {
            // It ended, or was withdrawn, in the meantime.
            self.book.queue.schedule(certificate, now);
            return;
        };
        let track = &mut self.book.tracks[certificate as usize];
        track.failures = 0;
        track.last_error = None;
        let pace = Pace::of(&self.book.subjects[certificate as usize].ocsp);
        let fresh_until = fresh.map(|fresh| now + fresh);
        let next = schedule::refresh_at(validity(staple, fresh_until), now, pace, dice());
        self.book.queue.schedule(certificate, next);
        let leaf = &snapshot.table.certificates[certificate as usize]
            .identity
            .leaf;
        tracing::debug!(
            event = "ocsp_unchanged",
            certificate = label(leaf),
            refresh = clock::rfc3339(next),
            "the responder has nothing newer"
        );
    }

    fn take_revoked(
        &mut self,
        certificate: CertificateIndex,
        revocation: &Arc<Revocation>,
        now: SystemTime,
    ) -> Option<SlotState> {
        let snapshot = Arc::clone(self.publisher.current());
        let leaf = &snapshot.table.certificates[certificate as usize]
            .identity
            .leaf;
        let subject = &self.book.subjects[certificate as usize];
        tracing::error!(
            event = "ocsp_revoked",
            certificate = label(leaf),
            since = clock::rfc3339(revocation.revoked_at()),
            sites = subject.sites.join(", "),
            "the CA has revoked the certificate: {}",
            consequence(subject.ocsp.on_revoked)
        );
        self.book.tracks[certificate as usize] = Track::revoked(revocation);
        let again = now + REVOKED_RETRY;
        self.book.queue.schedule(certificate, again);
        // Kept as long as anybody could take the certificate for valid.
        self.assign(Work::Keep(Entry::revocation(revocation, leaf.not_after)));
        Some(SlotState::Revoked)
    }

    fn take_failure(
        &mut self,
        certificate: CertificateIndex,
        failure: &Failure,
        responder: &str,
        now: SystemTime,
    ) {
        let snapshot = Arc::clone(self.publisher.current());
        let leaf = &snapshot.table.certificates[certificate as usize]
            .identity
            .leaf;
        let state = &snapshot.slots[certificate as usize].state;
        let left = self.time_left(certificate, now);
        let words = self.in_words(failure, failure.is_of_time(), now);
        let track = &mut self.book.tracks[certificate as usize];
        track.failures = track.failures.saturating_add(1);
        track.last_error = Some(words.clone());
        let wait = schedule::retry_after(failure.trouble(), track.failures, left, dice());
        let failures = track.failures;
        self.book.queue.schedule(certificate, now + wait);
        if left.is_some() {
            self.book.queue.press(certificate, now + wait);
        }
        let certificate = label(leaf);
        match (state, left) {
            (SlotState::Stapled(_), None) => tracing::error!(
                event = "ocsp_failed",
                certificate,
                responder,
                failures,
                "no new staple, and the old one has run out: {words}"
            ),
            _ => tracing::warn!(
                event = "ocsp_failed",
                certificate,
                responder,
                failures,
                "no staple from the responder: {words}"
            ),
        }
    }

    /// How long the present staple still holds; `None` where there is none.
    fn time_left(&self, certificate: CertificateIndex, now: SystemTime) -> Option<Duration> {
        match &self.publisher.current().slots[certificate as usize].state {
            SlotState::Stapled(staple) => staple.not_after().duration_since(now).ok(),
            _ => None,
        }
    }

    /// A question broke down in clinch itself: the certificate is not forgotten for that.
    fn recover(&mut self, error: &JoinError) {
        tracing::error!(event = "fault", "asking a responder broke down: {error}");
        if let Some(certificate) = self.asked.remove(&error.id()) {
            let now = clock::now();
            self.book.queue.finished(certificate, true, now);
            self.book.unsettled.remove(&certificate);
            let again = now + REVOKED_RETRY;
            self.book.queue.schedule(certificate, again);
        }
    }
}
