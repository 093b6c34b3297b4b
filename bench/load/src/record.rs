//! What a thread remembers: a histogram for each phase over the whole run, two for each second, and
//! counts; and what all threads show while they run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::visit::Visit;

/// A part of a connection's life that is measured apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// From when it was due to when it started: the generator's own delay, or waiting for a free place.
    Late,
    /// TCP connect.
    Connect,
    /// From connected to the end of the TLS handshake.
    Handshake,
    /// Client-side OCSP: name, query, verdict.
    Revocation,
    /// From when it was due to when the client may trust and use the connection: the headline.
    Ready,
    /// From the request to the first byte of the answer.
    FirstByte,
    /// From when it was due to the last byte of the answer.
    Whole,
}

impl Phase {
    /// All, in the order of a connection's life.
    pub const ALL: [Self; 7] = [
        Self::Late,
        Self::Connect,
        Self::Handshake,
        Self::Revocation,
        Self::Ready,
        Self::FirstByte,
        Self::Whole,
    ];

    /// Name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Connect => "connect",
            Self::Handshake => "handshake",
            Self::Revocation => "revocation",
            Self::Ready => "ready",
            Self::FirstByte => "first byte",
            Self::Whole => "whole",
        }
    }
}

/// Counts over the measured time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Connections that did what they were to do.
    pub finished: u64,
    /// Those that did not.
    pub failed: u64,
    /// Resumed sessions among the finished.
    pub resumed: u64,
    /// Body bytes sent.
    pub bytes_up: u64,
    /// Body bytes received.
    pub bytes_down: u64,
}

/// One second of the run, by when connections ended.
#[derive(Clone, Debug)]
pub(crate) struct Second {
    pub(crate) finished: u64,
    pub(crate) failed: u64,
    /// Nanoseconds, two digits.
    pub(crate) ready: Histogram<u64>,
}

/// The measurements of one thread, or of all once merged.
#[derive(Clone, Debug)]
pub struct Recorder {
    begin: Instant,
    histograms: Vec<Histogram<u64>>,
    pub(crate) seconds: Vec<Second>,
    /// Failures by kind.
    pub failures: BTreeMap<String, u64>,
    /// Counts.
    pub counts: Counts,
}

impl Recorder {
    /// Counts what is due from `begin` on.
    pub(crate) fn new(begin: Instant) -> Self {
        let histogram = |_| Histogram::new(3).expect("three digits are possible");
        Self {
            begin,
            histograms: Phase::ALL.iter().map(histogram).collect(),
            seconds: Vec::new(),
            failures: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// Nanoseconds of a phase.
    pub fn histogram(&self, phase: Phase) -> &Histogram<u64> {
        &self.histograms[phase as usize]
    }

    /// Enters a connection that was due at `due`.
    pub(crate) fn enter(&mut self, due: Instant, visit: &Visit, outcome: Result<(), Failure>) {
        if due < self.begin {
            return;
        }
        for (phase, took) in &visit.phases {
            let nanos = took.as_nanos() as u64;
            self.histograms[*phase as usize] += nanos.max(1);
        }
        self.counts.bytes_up += visit.bytes_up;
        self.counts.bytes_down += visit.bytes_down;
        let second = self.second(self.begin.elapsed());
        match &outcome {
            Ok(()) => {
                second.finished += 1;
                if let Some((_, took)) = visit.phases.iter().find(|(p, _)| *p == Phase::Ready) {
                    second.ready += (took.as_nanos() as u64).max(1);
                }
                self.counts.finished += 1;
                self.counts.resumed += u64::from(visit.resumed);
            }
            Err(failure) => {
                second.failed += 1;
                self.fail(failure, 1);
            }
        }
    }

    /// Counts failures without a connection.
    pub(crate) fn fail(&mut self, failure: &Failure, times: u64) {
        self.counts.failed += times;
        let mut kind = failure.to_string();
        if self.failures.len() >= MOST_KINDS && !self.failures.contains_key(&kind) {
            kind = "other".to_owned();
        }
        *self.failures.entry(kind).or_default() += times;
    }

    fn second(&mut self, at: Duration) -> &mut Second {
        let index = at.as_secs() as usize;
        while self.seconds.len() <= index {
            self.seconds.push(Second {
                finished: 0,
                failed: 0,
                ready: Histogram::new(2).expect("two digits are possible"),
            });
        }
        &mut self.seconds[index]
    }

    /// Adds what was measured later: its seconds come after these.
    pub(crate) fn follow(&mut self, later: &Self) {
        self.add(later);
        self.seconds.extend(later.seconds.iter().cloned());
    }

    /// Adds what another thread measured at the same time.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.add(other);
        for (index, theirs) in other.seconds.iter().enumerate() {
            let mine = self.second(Duration::from_secs(index as u64));
            mine.finished += theirs.finished;
            mine.failed += theirs.failed;
            mine.ready.add(&theirs.ready).expect("histograms resize");
        }
    }

    fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.histograms.iter_mut().zip(&other.histograms) {
            mine.add(theirs).expect("histograms resize");
        }
        for (kind, times) in &other.failures {
            *self.failures.entry(kind.clone()).or_default() += times;
        }
        self.counts.finished += other.counts.finished;
        self.counts.failed += other.counts.failed;
        self.counts.resumed += other.counts.resumed;
        self.counts.bytes_up += other.counts.bytes_up;
        self.counts.bytes_down += other.counts.bytes_down;
    }
}

/// What a thread shows while it runs, and how it is told to end. Each thread has its own.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) started: AtomicU64,
    pub(crate) finished: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) ready: AtomicU64,
    pub(crate) stop: AtomicBool,
}

impl Live {
    pub(crate) fn is_over(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Completes when the run is over.
    pub(crate) async fn over(&self) {
        while !self.is_over() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Kinds of failures told apart.
const MOST_KINDS: usize = 64;
