//! What control does about the wall clock: after a step everything is planned anew, no staple outlives
//! its true end, and a clock that cannot be right is named.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::Control;
use super::book::label;
use super::timekeeping::Step;
use crate::certificate::Fingerprint;
use crate::clock;
use crate::snapshot::{CertificateIndex, SlotState};

impl Control {
    /// Looks at the clocks. Due times are instants of the wall clock, as validities are: one that was
    /// ahead at boot and then set right must not leave them in a distant future.
    pub(super) fn mind_the_clock(&mut self) {
        let (now, steady) = (clock::now(), Instant::now());
        let step = self.timekeeping.look(now, steady);
        if step.is_some() {
            self.detours.clear();
        }
        match step {
            Some(Step::Back(by)) => {
                tracing::warn!(
                    event = "clock_set_back",
                    seconds = by.as_secs(),
                    "the clock of this machine was set back; refreshes are planned anew"
                );
                self.book.queue.clock_set_back(by);
                self.lists.queue.clock_set_back(by);
                self.keep_ends(now + by, steady);
            }
            Some(Step::Forward(by)) => {
                tracing::warn!(
                    event = "clock_set_forward",
                    seconds = by.as_secs(),
                    "the clock of this machine was set forward; what has ended by it is not stapled, and what is due is asked now"
                );
                // It may be set back again.
                self.keep_ends(now - by, steady);
            }
            None => {}
        }
        self.withdraw_what_is_over(steady);
        self.name_the_clock(now);
    }

    /// Remembers when the staples in use would have ended, had the clock not been set.
    fn keep_ends(&mut self, expected: SystemTime, steady: Instant) {
        let snapshot = Arc::clone(self.publisher.current());
        for (index, slot) in (0..).zip(&snapshot.slots) {
            if let SlotState::Stapled(staple) = &slot.state {
                let left = staple
                    .not_after()
                    .duration_since(expected)
                    .unwrap_or_default();
                self.ends.enter(index, slot.since, steady + left);
            }
        }
    }

    /// The ends that are remembered, by certificate: a reload changes the table.
    pub(super) fn ends_of_certificates(&mut self) -> HashMap<Fingerprint, Instant> {
        let snapshot = Arc::clone(self.publisher.current());
        let current = |certificate, since| snapshot.slots[certificate as usize].since == since;
        let ends = self.ends.drain();
        ends.filter(|(_, certificate, since)| current(*certificate, *since))
            .map(|(end, certificate, _)| (snapshot.fingerprint(certificate), end))
            .collect()
    }

    /// Enters them for the new table.
    pub(super) fn take_over_ends(&mut self, ends: &HashMap<Fingerprint, Instant>) {
        if ends.is_empty() {
            return;
        }
        let snapshot = Arc::clone(self.publisher.current());
        for (index, slot) in (0..).zip(&snapshot.slots) {
            if let Some(end) = ends.get(&snapshot.fingerprint(index)) {
                self.ends.enter(index, slot.since, *end);
            }
        }
    }

    fn withdraw_what_is_over(&mut self, steady: Instant) {
        let mut states: Vec<(CertificateIndex, SlotState)> = Vec::new();
        while let Some((certificate, since)) = self.ends.over(steady) {
            let snapshot = self.publisher.current();
            // A newer staple was verified under the new clock.
            if snapshot.slots[certificate as usize].since != since {
                continue;
            }
            let leaf = &snapshot.table.certificates[certificate as usize]
                .identity
                .leaf;
            tracing::warn!(
                event = "staple_withdrawn",
                certificate = label(leaf),
                "the staple has ended by the clock as it was before it was set back"
            );
            states.push((certificate, SlotState::Missing));
        }
        self.publish_states(states);
    }

    /// A failure in words, with the clock as its cause where that is likely.
    pub(super) fn in_words(&self, failure: &dyn Display, of_time: bool, now: SystemTime) -> String {
        match self.timekeeping.suspicion(now).filter(|_| of_time) {
            Some(suspicion) => format!("{failure}. The likely cause: {suspicion}"),
            None => failure.to_string(),
        }
    }

    /// Says once that the clock cannot be believed, and once that it can again.
    pub(super) fn name_the_clock(&mut self, now: SystemTime) {
        let suspicion = self.timekeeping.suspicion(now);
        match (&suspicion, self.clock_suspected) {
            (Some(suspicion), false) => {
                tracing::error!(event = "clock_implausible", "{suspicion}");
            }
            (None, true) => tracing::info!(
                event = "clock_plausible",
                "the clock of this machine agrees with those of others again"
            ),
            _ => {}
        }
        self.clock_suspected = suspicion.is_some();
    }
}
