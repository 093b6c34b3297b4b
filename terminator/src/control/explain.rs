//! Why a certificate does or does not get a staple, and what to do, in sentences. Pure: from its
//! status to words.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::load::{Class, Skip};
use super::status::{CertificateStatus, StapleStatus};
use crate::clock::rfc3339;
use crate::egress;

/// What a name stands for, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// As asked.
    pub name: String,
    /// Every certificate of that name; none where nothing has it.
    pub certificates: Vec<Explained>,
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// Subject for people.
    pub subject: String,
    /// SHA-256 of the certificate, hexadecimal.
    pub fingerprint: String,
    /// Kind of revocation information it has.
    pub class: Class,
    /// State of the staple now.
    pub staple: StapleStatus,
    /// Why it is so, one sentence each.
    pub because: Vec<String>,
    /// What to do, one sentence each; empty where nothing is wrong.
    pub remedies: Vec<String>,
}

/// What else matters.
pub(super) struct Known {
    /// Whether responders can be asked.
    pub(super) egress: egress::State,
    /// Why the clock cannot be believed, if so.
    pub(super) clock: Option<String>,
    /// The present.
    pub(super) at: SystemTime,
}

/// Explains one certificate.
pub(super) fn explain(certificate: &CertificateStatus, known: &Known) -> Explained {
    let mut words = Words {
        certificate,
        known,
        because: Vec::new(),
        remedies: Vec::new(),
    };
    match certificate.staple {
        StapleStatus::Stapled => words.stapled(),
        StapleStatus::Missing | StapleStatus::Expired => words.missing(),
        StapleStatus::Revoked => words.revoked(),
        StapleStatus::NotApplicable => words.nothing_to_staple(),
    }
    if let Some(clock) = &known.clock {
        words.remedies.push(clock.clone());
    }
    Explained {
        subject: certificate.subject.clone(),
        fingerprint: certificate.fingerprint.clone(),
        class: certificate.class,
        staple: certificate.staple,
        because: words.because,
        remedies: words.remedies,
    }
}

struct Words<'a> {
    certificate: &'a CertificateStatus,
    known: &'a Known,
    because: Vec<String>,
    remedies: Vec<String>,
}

impl Words<'_> {
    fn because(&mut self, sentence: impl Into<String>) {
        self.because.push(sentence.into());
    }

    fn remedy(&mut self, sentence: impl Into<String>) {
        self.remedies.push(sentence.into());
    }

    fn stapled(&mut self) {
        let c = self.certificate;
        let until = self.instant(c.staple_not_after);
        self.because(format!(
            "every client that asks gets a staple: a response that says good and was verified in full, until {until}"
        ));
        if c.failures > 0 {
            self.last_attempts();
            self.because(format!("until {until} the staple in use stays"));
            self.remedy(
                "nothing yet, if the responder comes back in time; else see the reason above",
            );
        }
        self.next_fetch();
    }

    fn missing(&mut self) {
        let c = self.certificate;
        if let Some(end) = c.staple_not_after {
            self.because(format!(
                "the last staple ran out at {}, and none that has run out is ever sent",
                rfc3339(end)
            ));
        } else {
            self.because("no response that passes verification has come in yet");
        }
        self.last_attempts();
        self.because(match c.staple_required {
            true => "handshakes with this certificate are refused until there is a staple, because it is a Must-Staple certificate or the site's `ocsp.policy` is \"hard\"",
            false => "clients are served without a staple until then",
        });
        match self.known.egress {
            egress::State::Ready => {}
            egress::State::Starting => self.because("the egress process, which asks responders, is being started"),
            egress::State::Gone => self.remedy(
                "the egress process is gone and cannot be started again without the privileges of the start: restart clinch",
            ),
        }
        self.next_fetch();
        if c.last_error.is_some() {
            self.remedy("act on the reason above, then `clinch ocsp fetch NAME` asks at once and shows every step");
        }
    }

    fn revoked(&mut self) {
        let c = self.certificate;
        let said = c.last_error.as_deref().unwrap_or("revoked by the CA");
        self.because(format!(
            "the CA has revoked the certificate, verified: {said}"
        ));
        self.because("what becomes of its handshakes is for the site's `ocsp.on_revoked` to say; it is never stapled");
        self.remedy(
            "make a new key, get a new certificate for it, and reload; if the CA revoked it by mistake or as a hold, ask the CA",
        );
        self.next_fetch();
    }

    fn nothing_to_staple(&mut self) {
        let c = self.certificate;
        if let Some(why) = &c.not_stapled {
            self.because(format!("nothing is stapled: {why}"));
        }
        match c.class {
            Class::CrlOnly if c.crl.is_some() => self.watched(),
            // Else nobody is asked because the site says so.
            Class::CrlOnly if c.not_stapled == Some(Skip::NoResponder.to_string()) => {
                self.because("its CRL is not watched, because nothing verifies its signature while the issuer is missing from the certificate file");
                self.append_issuer();
            }
            Class::CrlOnly | Class::Ocsp => {}
            Class::ShortLived => self.because(
                "the certificate ends so soon that its CA gives it no revocation pointer: nothing is wrong",
            ),
            Class::None => self.because(
                "it carries no revocation pointer at all, so there is nobody to ask: nothing is wrong",
            ),
        }
        if c.must_staple {
            self.remedy(
                "the certificate says Must-Staple, and clients that heed it will refuse it: get it reissued with a responder, or without that extension",
            );
        }
        if c.class == Class::Ocsp
            && c.not_stapled
                .as_deref()
                .is_some_and(|why| why.contains("issuer"))
        {
            self.append_issuer();
        }
    }

    fn append_issuer(&mut self) {
        self.remedy(format!(
            "append the certificate of {} to the certificate file, and reload",
            self.certificate.issuer
        ));
    }

    /// Of a certificate that has a CRL only.
    fn watched(&mut self) {
        let Some(crl) = &self.certificate.crl else {
            return;
        };
        let place = crl.urls.first().cloned().unwrap_or_default();
        let (failures, error) = (crl.failures, crl.last_error.clone());
        match (crl.not_after, crl.this_update) {
            (Some(end), _) if self.known.at < end && self.certificate.crl_silence().is_some() => {
                let silence = self
                    .certificate
                    .crl_silence()
                    .unwrap_or_default()
                    .to_owned();
                self.because(format!(
                    "its CRL {place} is watched instead, and says nothing about it: {silence}"
                ));
                self.remedy("ask the CA: the certificate points to a list that is not about it, so a revocation would not be noticed");
            }
            (Some(end), Some(made)) if self.known.at < end => {
                let number = crl.number.as_deref().unwrap_or("(none)").to_owned();
                let (made, end) = (rfc3339(made), rfc3339(end));
                self.because(format!(
                    "its CRL is watched instead: the list from {place}, number {number}, made at {made}, does not list it and holds until {end}"
                ));
            }
            (Some(end), _) => {
                let end = rfc3339(end);
                self.because(format!(
                    "its CRL {place} is watched instead, but the last one ran out at {end}: a revocation since then would not be noticed"
                ));
            }
            (None, _) => self.because(format!(
                "its CRL {place} is to be watched instead, and has not come in yet"
            )),
        }
        if let Some(error) = error {
            self.because(format!(
                "{failures} attempts in a row to fetch it failed: {error}"
            ));
            self.remedy("act on the reason above; `clinch ocsp fetch NAME` fetches the CRL at once and shows every step");
        }
        self.next_fetch();
    }

    fn last_attempts(&mut self) {
        let c = self.certificate;
        if let Some(error) = &c.last_error {
            let responder = c.responder.as_deref().unwrap_or("the responder");
            let error = match c.failures {
                0 | 1 => format!("the last attempt at {responder} failed: {error}"),
                n => {
                    format!("the last {n} attempts at {responder} failed; the last one so: {error}")
                }
            };
            self.because(error);
        }
    }

    fn next_fetch(&mut self) {
        let sentence = match self.certificate.next_fetch {
            Some(at) => format!("the CA is asked next at {}", self.instant(Some(at))),
            None => "the CA is being asked at this moment".to_owned(),
        };
        self.because(sentence);
    }

    /// An instant, and how far away it is.
    fn instant(&self, at: Option<SystemTime>) -> String {
        let Some(at) = at else {
            return "an unknown instant".to_owned();
        };
        let left = at.duration_since(self.known.at).unwrap_or_default();
        let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
        format!("{} (in {left})", rfc3339(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::lists::CrlStatus;
    use crate::observability::report::tests::certificate;

    fn known() -> Known {
        Known {
            egress: egress::State::Ready,
            clock: None,
            at: SystemTime::now(),
        }
    }

    fn text(explained: &Explained) -> String {
        [&explained.because[..], &explained.remedies[..]]
            .concat()
            .join("\n")
    }

    #[test]
    fn a_stapled_certificate_needs_nothing() {
        let explained = explain(&certificate(StapleStatus::Stapled), &known());
        assert!(explained.remedies.is_empty());
        assert!(text(&explained).contains("asked next at"));
    }

    #[test]
    fn a_missing_staple_names_its_reason_its_consequence_and_what_to_do() {
        let mut missing = certificate(StapleStatus::Missing);
        missing.failures = 4;
        missing.last_error = Some("the responder does not know the certificate".to_owned());
        missing.staple_required = true;
        let mut known = known();
        known.clock = Some("the clock of this machine is 2days ahead".to_owned());
        known.egress = egress::State::Gone;
        let explained = explain(&missing, &known);
        for part in [
            "4 attempts",
            "does not know the certificate",
            "refused until there is a staple",
            "ocsp fetch",
            "restart clinch",
            "2days ahead",
        ] {
            assert!(text(&explained).contains(part), "{part}: {explained:?}");
        }
    }

    #[test]
    fn where_there_is_nothing_to_fetch_nothing_is_wrong() {
        for class in [Class::ShortLived, Class::None] {
            let mut plain = certificate(StapleStatus::NotApplicable);
            plain.class = class;
            plain.not_stapled = Some("it names no OCSP responder".to_owned());
            let explained = explain(&plain, &known());
            assert!(explained.remedies.is_empty(), "{explained:?}");
            assert!(text(&explained).contains("nothing is wrong"));
        }
    }

    #[test]
    fn a_list_that_cannot_be_verified_is_not_passed_over_in_silence() {
        let mut alone = certificate(StapleStatus::NotApplicable);
        alone.class = Class::CrlOnly;
        alone.not_stapled = Some(Skip::NoResponder.to_string());
        let explained = explain(&alone, &known());
        assert!(text(&explained).contains("append the certificate of"));
        alone.not_stapled = Some(Skip::Disabled.to_string());
        assert!(explain(&alone, &known()).remedies.is_empty());
    }

    #[test]
    fn a_watched_crl_is_named_with_its_number_and_its_end() {
        let mut listed = certificate(StapleStatus::NotApplicable);
        listed.class = Class::CrlOnly;
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        listed.crl = Some(CrlStatus {
            urls: vec!["http://crl.example/ca.crl".to_owned()],
            number: Some("1a".to_owned()),
            this_update: Some(now - hour),
            next_update: Some(now + hour),
            not_after: Some(now + hour),
            next_fetch: Some(now + hour / 2),
            failures: 0,
            last_error: None,
        });
        let explained = explain(&listed, &known());
        assert!(explained.remedies.is_empty());
        assert!(text(&explained).contains("number 1a"), "{explained:?}");
        let mut silent = listed.clone();
        silent.last_error = Some("it is about CA certificates only".to_owned());
        let silent = text(&explain(&silent, &known()));
        assert!(silent.contains("says nothing about it") && !silent.contains("does not list it"));
        let mut known = known();
        known.at = now + 2 * hour;
        assert!(text(&explain(&listed, &known)).contains("would not be noticed"));
    }
}
