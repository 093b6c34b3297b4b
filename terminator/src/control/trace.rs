//! The steps of one fetch with their times, for a person who asked for it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::egress::Head;

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// When it ended, milliseconds from the beginning of the fetch.
    pub at_ms: f64,
    /// How long it took, milliseconds.
    pub took_ms: f64,
    /// What it was and what came of it.
    pub what: String,
}

/// Steps as they are taken, each from the end of the one before.
pub(super) struct Trace {
    began: Instant,
    last: Instant,
    steps: Vec<Step>,
}

impl Trace {
    /// Begins now.
    pub(super) fn begin() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            last: now,
            steps: Vec::new(),
        }
    }

    /// Notes what was done since the step before.
    pub(super) fn note(&mut self, what: impl Into<String>) {
        let now = Instant::now();
        self.push(now, now.duration_since(self.last), what.into());
        self.last = now;
    }

    /// Notes the stages that the egress process told of, and its answer.
    pub(super) fn note_answer(&mut self, head: &Head, bytes: usize) {
        let mut at = self.last;
        for (stage, took) in &head.stages {
            at += *took;
            let to = head
                .address
                .map_or_else(String::new, |address| format!(" ({address})"));
            let what = match stage {
                crate::egress::protocol::Stage::Resolve => "name looked up".to_owned(),
                crate::egress::protocol::Stage::Admit => "address let through".to_owned(),
                crate::egress::protocol::Stage::Connect => format!("connected{to}"),
                crate::egress::protocol::Stage::Secure => "TLS handshake".to_owned(),
                crate::egress::protocol::Stage::Answer => "status and headers".to_owned(),
                crate::egress::protocol::Stage::Body => "body".to_owned(),
            };
            self.push(at, *took, what);
        }
        self.last = at.min(Instant::now());
        self.note(format!("HTTP status {}, {bytes} bytes", head.status));
    }

    /// The steps.
    pub(super) fn end(self) -> Vec<Step> {
        self.steps
    }

    fn push(&mut self, at: Instant, took: Duration, what: String) {
        self.steps.push(Step {
            at_ms: milliseconds(at.duration_since(self.began)),
            took_ms: milliseconds(took),
            what,
        });
    }
}

/// To the microsecond.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
