//! The state of the whole process as one value: what `/status` serves as JSON and what
//! `clinch status` reads back.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::counters::{Completed, Counters, HandshakeFailure, Offload, Reason, Stapling};
use super::instance::{Instance, ListenerView, Phase, VERSION};
use crate::clock;
use crate::control::Status;
use crate::steering;
use crate::sys::ktls;

/// Everything an operator may ask of a running process, at one instant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Version of clinch.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// When it started, RFC 3339.
    pub started: String,
    /// Seconds since then.
    pub uptime_seconds: u64,
    /// What it is doing.
    pub phase: Phase,
    /// How connections find their worker.
    pub steering_mode: String,
    /// More about that.
    pub steering: steering::Report,
    /// What kTLS of this kernel can do; absent where no listener has asked for it.
    pub ktls: Option<String>,
    /// Addresses in configuration order.
    pub listeners: Vec<ListenerView>,
    /// Workers in order.
    pub workers: Vec<WorkerReport>,
    /// What control knows; absent when it did not answer.
    pub control: Option<Status>,
}

/// One worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Position.
    pub index: usize,
    /// The core it is pinned to.
    pub core: Option<usize>,
    /// Its thread runs.
    pub alive: bool,
    /// Generation of the snapshot it serves from.
    pub generation: u64,
    /// Connections held now.
    pub active: u64,
    /// Of these, in the handshake.
    pub handshaking: u64,
    /// Connections it may hold.
    pub capacity: usize,
    /// Connections accepted since start.
    pub accepted: u64,
    /// Handed over to the worker they belong to.
    pub handed_over: u64,
    /// Taken over from other workers.
    pub taken_over: u64,
    /// Served here although they belong to another worker.
    pub kept_misplaced: u64,
    /// Taken from a landing listener.
    pub landed: u64,
    /// Handshakes completed since start.
    pub handshakes: u64,
    /// Of these, resumed.
    pub resumed: u64,
    /// Full handshakes in which a staple was sent.
    pub stapled: u64,
    /// Connections whose records the kernel has taken over (kTLS).
    pub ktls: u64,
    /// Handshakes that failed.
    pub handshake_failures: u64,
    /// Plaintext bytes from clients to backends.
    pub bytes_up: u64,
    /// Plaintext bytes from backends to clients.
    pub bytes_down: u64,
}

impl Report {
    /// Reads all figures.
    pub fn of(instance: &Instance, control: Option<Status>) -> Self {
        let steering = instance.steering.report();
        Self {
            version: VERSION.to_owned(),
            pid: std::process::id(),
            started: clock::rfc3339(instance.started),
            uptime_seconds: instance.uptime().as_secs(),
            phase: instance.phase(),
            steering_mode: steering.mode.word().to_owned(),
            steering,
            ktls: ktls::known().map(ktls::Offer::summary),
            listeners: instance.listeners.clone(),
            workers: instance
                .workers
                .iter()
                .enumerate()
                .map(|(index, worker)| WorkerReport {
                    core: worker.core,
                    alive: worker.is_alive(),
                    capacity: worker.capacity,
                    ..WorkerReport::of(index, &worker.counters)
                })
                .collect(),
            control,
        }
    }

    /// Certificates that have a valid staple at that instant, of those that could have one.
    pub fn stapled_at(&self, at: SystemTime) -> (usize, usize) {
        use crate::control::status::StapleStatus;
        let certificates = || self.control.iter().flat_map(|c| &c.certificates);
        let valid = certificates()
            .filter(|c| c.staple == StapleStatus::Stapled)
            .filter(|c| c.staple_not_after.is_none_or(|end| at < end));
        let wanted = certificates().filter(|c| c.staple != StapleStatus::NotApplicable);
        (valid.count(), wanted.count())
    }
}

impl WorkerReport {
    fn of(index: usize, counters: &Counters) -> Self {
        let completed = |kinds: &[Completed]| {
            kinds
                .iter()
                .map(|kind| counters.completed.value(*kind))
                .sum()
        };
        Self {
            index,
            core: None,
            alive: true,
            generation: counters.generation.value(),
            active: counters.active.value(),
            handshaking: counters.handshaking.value(),
            capacity: 0,
            accepted: counters.accepted.value(),
            handed_over: counters.handed_over.value(),
            taken_over: counters.taken_over.value(),
            kept_misplaced: counters.kept_misplaced.value(),
            landed: counters.landed.value(),
            handshakes: completed(Completed::ALL),
            resumed: completed(&[Completed::Tls12Resumed, Completed::Tls13Resumed]),
            stapled: counters.stapling.value(Stapling::Stapled),
            ktls: counters.offloads.value(Offload::Offloaded),
            handshake_failures: HandshakeFailure::ALL
                .iter()
                .map(|reason| counters.handshake_failures.value(*reason))
                .sum(),
            bytes_up: counters.bytes_up.value(),
            bytes_down: counters.bytes_down.value(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::instance::WorkerView;
    use super::*;
    use crate::control::load::Class;
    use crate::control::status::{CertificateStatus, StapleStatus};
    use crate::egress;
    use std::sync::Arc;
    use std::time::Duration;

    /// A certificate whose staple, if it has one, is valid for an hour.
    pub(crate) fn certificate(staple: StapleStatus) -> CertificateStatus {
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        let stapled = staple == StapleStatus::Stapled;
        CertificateStatus {
            subject: "www.example.com".to_owned(),
            fingerprint: "ab".repeat(32),
            spki_sha256: "cd".repeat(32),
            issuer: "CN=Example \"quoted\" CA".to_owned(),
            not_after: now + 24 * hour,
            sites: vec!["www.example.com".to_owned()],
            class: Class::Ocsp,
            must_staple: false,
            staple_required: false,
            staple,
            this_update: stapled.then_some(now),
            next_update: stapled.then_some(now + hour),
            staple_not_after: stapled.then_some(now + hour),
            next_fetch: Some(now + hour / 2),
            failures: 0,
            last_error: None,
            responder: Some("http://ocsp.example.com/".to_owned()),
            not_stapled: None,
            crl: None,
        }
    }

    pub(crate) fn status(certificates: Vec<CertificateStatus>) -> Status {
        Status {
            generation: 7,
            adopted: vec![7, 7],
            epoch: 1,
            egress: egress::State::Ready,
            last_reload_error: None,
            clock: None,
            responders: Vec::new(),
            certificates,
            sites: Vec::new(),
        }
    }

    #[test]
    fn a_report_survives_its_way_through_json_with_the_figures_of_each_worker() {
        let worker = WorkerView::new(Some(3), 100, Arc::default());
        worker.counters.accepted.add(5);
        worker.counters.completed.one(Completed::Tls13Full);
        worker.counters.completed.one(Completed::Tls12Resumed);
        let instance = Instance::new(vec![worker], Vec::new(), Arc::default());
        let status = status(vec![
            certificate(StapleStatus::Stapled),
            certificate(StapleStatus::Missing),
            certificate(StapleStatus::NotApplicable),
        ]);
        let json = serde_json::to_string(&Report::of(&instance, Some(status))).expect("plain data");
        let report: Report = serde_json::from_str(&json).expect("what was written");
        let worker = &report.workers[0];
        assert_eq!((worker.core, worker.capacity), (Some(3), 100));
        assert_eq!(
            (worker.accepted, worker.handshakes, worker.resumed),
            (5, 2, 1)
        );
        let now = SystemTime::now();
        assert_eq!(report.stapled_at(now), (1, 2));
        assert_eq!(report.stapled_at(now + Duration::from_secs(3601)), (0, 2));
    }
}
