//! Whether the process works and whether it should get traffic: two different questions.
//!
//! *Alive* means that restarting would not help. *Ready* means that a client would be served as
//! configured; a certificate that may not be served without a staple and has none makes it false.

use std::time::SystemTime;

use super::instance::{Instance, Phase};
use crate::control::status::{StapleStatus, Status};

/// An answer with its reasons; without reasons it is yes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why not, each a sentence.
    pub reasons: Vec<String>,
}

impl Verdict {
    /// Yes.
    pub fn is_good(&self) -> bool {
        self.reasons.is_empty()
    }

    /// For a response body: `ok`, or the reasons, one in a line.
    pub fn text(&self) -> String {
        match self.is_good() {
            true => "ok\n".to_owned(),
            false => self.reasons.join("\n") + "\n",
        }
    }
}

/// Whether the process and all of its workers run. `status` is `None` when control did not answer.
pub fn alive(instance: &Instance, status: Option<&Status>) -> Verdict {
    let dead = instance.workers.iter().enumerate();
    let mut reasons: Vec<String> = dead
        .filter(|(_, worker)| !worker.is_alive())
        .map(|(index, _)| format!("worker {index} has ended; its core takes no connections"))
        .collect();
    if status.is_none() {
        reasons.push("control does not answer; staples are not refreshed".to_owned());
    }
    Verdict { reasons }
}

/// Whether clients would be served as configured at that instant.
pub fn ready(instance: &Instance, status: Option<&Status>, at: SystemTime) -> Verdict {
    let mut verdict = alive(instance, status);
    match instance.phase() {
        Phase::Starting => verdict.reasons.push("not listening yet".to_owned()),
        Phase::Serving => {}
        Phase::Draining => verdict
            .reasons
            .push("draining: no new connections are taken".to_owned()),
    }
    let certificates = status.map_or(&[][..], |status| &status.certificates);
    for certificate in certificates.iter().filter(|c| c.staple_required) {
        let valid = certificate.staple == StapleStatus::Stapled
            && certificate.staple_not_after.is_none_or(|end| at < end);
        if !valid {
            let why = certificate.last_error.as_deref();
            verdict.reasons.push(format!(
                "certificate \"{}\" of {} may not be served without a staple and has no valid one: {}",
                certificate.subject,
                certificate.sites.join(", "),
                why.unwrap_or("no response from its responder yet")
            ));
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::super::instance::WorkerView;
    use super::super::report::tests::{certificate, status};
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    fn instance() -> Instance {
        let workers = (0..2).map(|core| WorkerView::new(Some(core), 10, Arc::default()));
        let instance = Instance::new(workers.collect(), Vec::new(), Arc::default());
        instance.enter(Phase::Serving);
        instance
    }

    #[test]
    fn a_process_that_serves_valid_staples_is_ready() {
        let instance = instance();
        let status = status(vec![certificate(StapleStatus::Stapled)]);
        assert_eq!(alive(&instance, Some(&status)).text(), "ok\n");
        assert_eq!(
            ready(&instance, Some(&status), SystemTime::now()).text(),
            "ok\n"
        );
    }

    #[test]
    fn a_dead_worker_is_named_and_makes_it_neither_alive_nor_ready() {
        let instance = instance();
        instance.workers[1].alive.store(false, Relaxed);
        let status = status(Vec::new());
        let verdict = alive(&instance, Some(&status));
        assert!(verdict.text().contains("worker 1"), "{}", verdict.text());
        assert!(!ready(&instance, Some(&status), SystemTime::now()).is_good());
    }

    #[test]
    fn control_that_does_not_answer_is_not_alive() {
        assert!(!alive(&instance(), None).is_good());
    }

    #[test]
    fn a_must_staple_site_without_a_valid_staple_is_not_ready_and_says_why() {
        let instance = instance();
        let mut certificate = certificate(StapleStatus::Missing);
        certificate.staple_required = true;
        certificate.last_error = Some("the responder timed out".to_owned());
        let mut status = status(vec![certificate]);
        let now = SystemTime::now();
        let verdict = ready(&instance, Some(&status), now);
        assert!(verdict.text().contains("www.example.com"), "{verdict:?}");
        assert!(verdict.text().contains("timed out"), "{verdict:?}");
        assert!(alive(&instance, Some(&status)).is_good());

        status.certificates[0].staple = StapleStatus::Stapled;
        status.certificates[0].staple_not_after = Some(now + Duration::from_secs(1));
        assert!(ready(&instance, Some(&status), now).is_good());
        assert!(!ready(&instance, Some(&status), now + Duration::from_secs(1)).is_good());

        status.certificates[0].staple_required = false;
        status.certificates[0].staple = StapleStatus::Missing;
        assert!(ready(&instance, Some(&status), now).is_good());
    }

    #[test]
    fn neither_a_starting_nor_a_draining_process_is_ready() {
        let instance = instance();
        let status = status(Vec::new());
        for phase in [Phase::Starting, Phase::Draining] {
            instance.enter(phase);
            assert!(!ready(&instance, Some(&status), SystemTime::now()).is_good());
            assert!(alive(&instance, Some(&status)).is_good());
        }
    }
}
