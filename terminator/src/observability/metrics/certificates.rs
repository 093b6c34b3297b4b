//! The part of the page about certificates: their staples, their CRLs, the responders asked.

use std::fmt;
use std::time::SystemTime;

use prometheus_client::registry::Unit;

use super::super::page::Page;
use super::Scrape;
use crate::control::load::Class;
use crate::control::status::{CertificateStatus, StapleStatus, Status};
use crate::egress;
use crate::limits::METRICS_CERTIFICATES;

impl Scrape {
    pub(super) fn certificates(&self, status: &Status, page: &mut Page<'_>) -> fmt::Result {
        let with = |state| {
            let of_state = |c: &&CertificateStatus| self.staple(c) == state;
            status.certificates.iter().filter(of_state).count() as f64
        };
        let egress_ready = f64::from(u8::from(status.egress == egress::State::Ready));
        let single = [
            (
                "clinch_snapshot_generation",
                "Generation of the snapshot last published",
                status.generation as f64,
            ),
            (
                "clinch_configuration_epoch",
                "Number of the configuration in force: 1 at start, one more with each reload",
                status.epoch as f64,
            ),
            (
                "clinch_egress_ready",
                "1 while responders can be asked",
                egress_ready,
            ),
            (
                "clinch_clock_implausible",
                "1 while the clock of this machine cannot be believed",
                f64::from(u8::from(status.clock.is_some())),
            ),
            (
                "clinch_certificates",
                "Certificates of the configuration in force",
                status.certificates.len() as f64,
            ),
        ];
        for (name, help, value) in single {
            page.single_gauge(name, help, None, value)?;
        }
        page.gauge(
            "clinch_certificates_by_staple",
            "Certificates by the state of their staple; stapled means valid now",
            None,
            STAPLE_STATES.map(|(state, label)| ([("state", label)], with(state))),
        )?;
        let classes = [
            (Class::Ocsp, "ocsp"),
            (Class::CrlOnly, "crl-only"),
            (Class::ShortLived, "short-lived"),
            (Class::None, "none"),
        ];
        page.gauge(
            "clinch_certificates_by_class",
            "Certificates by where news of their revocation comes from",
            None,
            classes.map(|(class, label)| {
                let of_class = status.certificates.iter().filter(|c| c.class == class);
                ([("class", label)], of_class.count() as f64)
            }),
        )?;
        self.responders(status, page)?;
        self.expiries(status, page)
    }

    fn responders(&self, status: &Status, page: &mut Page<'_>) -> fmt::Result {
        let series = status.responders.iter().flat_map(|responder| {
            responder.fetches.iter().map(|(result, count)| {
                let labels = [
                    ("responder", responder.host.clone()),
                    ("result", result.clone()),
                ];
                (labels, *count)
            })
        });
        page.counter(
            "clinch_ocsp_responder_fetches",
            "Attempts to get an OCSP response, by responder",
            None,
            series,
        )?;
        let unknown = status.certificates.iter();
        let unknown = unknown.filter(|c| c.crl_is_unknown(self.at));
        page.single_gauge(
            "clinch_crl_unknown_certificates",
            "Certificates whose CRL is to be watched and is not there, has run out, or says nothing about them",
            None,
            unknown.count() as f64,
        )
    }

    /// One series per certificate; beyond the bound, those that run out last are left out.
    fn expiries(&self, status: &Status, page: &mut Page<'_>) -> fmt::Result {
        let mut stapled: Vec<(&CertificateStatus, SystemTime)> = status
            .certificates
            .iter()
            .filter_map(|c| Some((c, c.staple_not_after?)))
            .collect();
        stapled.sort_by_key(|(_, end)| *end);
        page.gauge(
            "clinch_staple_expiry",
            "Time until the certificate's staple is not sent any more; negative once it is past",
            Some(Unit::Seconds),
            stapled
                .into_iter()
                .take(METRICS_CERTIFICATES)
                .map(|(certificate, end)| (identity(certificate), seconds_until(end, self.at))),
        )?;
        let mut all: Vec<&CertificateStatus> = status.certificates.iter().collect();
        all.sort_by_key(|certificate| certificate.not_after);
        page.gauge(
            "clinch_certificate_expiry",
            "Time until the certificate itself runs out; negative once it is past",
            Some(Unit::Seconds),
            all.into_iter()
                .take(METRICS_CERTIFICATES)
                .map(|c| (identity(c), seconds_until(c.not_after, self.at))),
        )
    }

    /// The state at the instant of the page: control may not have noticed yet that time is up.
    fn staple(&self, certificate: &CertificateStatus) -> StapleStatus {
        let past = certificate
            .staple_not_after
            .is_some_and(|end| end <= self.at);
        match certificate.staple {
            StapleStatus::Stapled if past => StapleStatus::Expired,
            state => state,
        }
    }
}

/// The labels of a certificate: the subject for people, the fingerprint because subjects repeat.
fn identity(certificate: &CertificateStatus) -> [(&'static str, String); 2] {
    let fingerprint = certificate.fingerprint.chars().take(16).collect();
    [
        ("subject", certificate.subject.clone()),
        ("fingerprint", fingerprint),
    ]
}

fn seconds_until(end: SystemTime, at: SystemTime) -> f64 {
    match end.duration_since(at) {
        Ok(left) => left.as_secs_f64(),
        Err(past) => -past.duration().as_secs_f64(),
    }
}

const STAPLE_STATES: [(StapleStatus, &str); 5] = [
    (StapleStatus::NotApplicable, "not_applicable"),
    (StapleStatus::Missing, "missing"),
    (StapleStatus::Stapled, "stapled"),
    (StapleStatus::Expired, "expired"),
    (StapleStatus::Revoked, "revoked"),
];
