//! A person asks about certificates by name: `fetch` asks the CA now and tells every step, `explain`
//! says what is known. Which certificates a name stands for is decided here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::Control;
use super::explain::{Explanation, Known, explain};
use super::fetch::{Failure, News};
use super::load::Class;
use super::status::optional_instant;
use super::trace::Step;
use crate::clock;
use crate::limits::CERTIFICATES_NAMED;
use crate::snapshot::{CertificateIndex, Snapshot};

/// Who waits for the answer about which certificate.
#[derive(Default)]
pub(super) struct Inquiries(HashMap<CertificateIndex, Vec<oneshot::Sender<Fetched>>>);

impl Inquiries {
    /// Whether somebody waits for an answer about a certificate.
    pub(super) fn is_about(&self, certificate: CertificateIndex) -> bool {
        self.0.contains_key(&certificate)
    }
}

/// What came of a fetch that somebody asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fetched {
    /// Subject for people.
    pub subject: String,
    /// SHA-256 of the certificate, hexadecimal.
    pub fingerprint: String,
    /// Kind of revocation information it has.
    pub class: Class,
    /// How it ended.
    pub outcome: Outcome,
    /// What was done, in order.
    pub steps: Vec<Step>,
    /// When the CA is asked next.
    #[serde(with = "optional_instant")]
    pub next_fetch: Option<SystemTime>,
    /// Why it failed, or why nothing was fetched, in words.
    pub reason: Option<String>,
}

/// How a fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A verified response was stapled.
    Stapled,
    /// A verified CRL does not list the certificate.
    NotRevoked,
    /// Nothing newer than what is in use.
    Unchanged,
    /// The CA says *revoked*.
    Revoked,
    /// Nothing that can be used.
    Failed,
    /// There is nothing to fetch.
    Nothing,
}

impl Outcome {
    /// Of a question to responders.
    pub(super) fn of(result: &Result<News, Failure>) -> Self {
        match result {
            Ok(News::Staple(_)) => Self::Stapled,
            Ok(News::Unchanged) => Self::Unchanged,
            Err(failure) if failure.is_revoked() => Self::Revoked,
            Err(_) => Self::Failed,
        }
    }
}

impl Control {
    /// Asks now about every certificate that a name stands for.
    pub(super) fn fetch_now(&mut self, name: &str) -> Vec<oneshot::Receiver<Fetched>> {
        let now = clock::now();
        let mut answers = Vec::new();
        for certificate in named(self.publisher.current(), name) {
            let (waiting, answer) = oneshot::channel();
            self.inquiries
                .0
                .entry(certificate)
                .or_default()
                .push(waiting);
            answers.push(answer);
            let list = self.lists.of(certificate);
            if self.book.subjects[certificate as usize].plan.is_ok() {
                // Where a question is under way already, its answer is told.
                if self.book.queue.take(certificate, now) {
                    let plan = &self.book.subjects[certificate as usize].plan;
                    let order = (0..plan.as_ref().map_or(0, Vec::len)).collect();
                    self.ask(certificate, order, now);
                }
            } else if let Some(list) = list {
                if self.lists.queue.take(list, now) {
                    self.look_at_list(list, None, now);
                }
            } else {
                self.tell(certificate, Outcome::Nothing, Vec::new());
            }
        }
        answers
    }

    /// Tells whoever waits what came of the question about a certificate.
    pub(super) fn tell(
        &mut self,
        certificate: CertificateIndex,
        outcome: Outcome,
        mut steps: Vec<Step>,
    ) {
        let Some(waiting) = self.inquiries.0.remove(&certificate) else {
            return;
        };
        let status = self.certificate(certificate as usize);
        let snapshot = self.publisher.current();
        if outcome == Outcome::Stapled
            && let Some(last) = steps.last()
        {
            let what = format!("in place: snapshot generation {}", snapshot.generation);
            let step = Step {
                at_ms: last.at_ms,
                took_ms: 0.0,
                what,
            };
            steps.push(step);
        }
        let reason = match outcome {
            Outcome::Nothing => status.not_stapled.clone(),
            Outcome::Failed | Outcome::Revoked => {
                let of_list = || status.crl.as_ref().and_then(|crl| crl.last_error.clone());
                status.last_error.clone().or_else(of_list)
            }
            _ => None,
        };
        let fetched = Fetched {
            subject: status.subject,
            fingerprint: status.fingerprint,
            class: status.class,
            outcome,
            steps,
            next_fetch: status.next_fetch,
            reason,
        };
        for one in waiting {
            // Whoever asked may have gone.
            let _ = one.send(fetched.clone());
        }
    }

    /// Says what is known of the certificates that a name stands for.
    pub(super) fn explain(&self, name: &str) -> Explanation {
        let now = clock::now();
        let snapshot = Arc::clone(self.publisher.current());
        let known = Known {
            egress: self.client.state(),
            clock: self.timekeeping.suspicion(now).map(|s| s.to_string()),
            at: now,
        };
        let certificates = named(&snapshot, name);
        let certificates = certificates.iter().map(|&c| self.certificate(c as usize));
        Explanation {
            name: name.to_owned(),
            certificates: certificates.map(|c| explain(&c, &known)).collect(),
        }
    }

    /// Forgets who asked: the table is another one.
    pub(super) fn drop_inquiries(&mut self) {
        self.inquiries.0.clear();
    }
}

/// The certificates that a name stands for: those of the site with that name, else those with that
/// subject or a fingerprint that begins so. A bounded number.
fn named(snapshot: &Snapshot, name: &str) -> Vec<CertificateIndex> {
    let table = &snapshot.table;
    let wanted = name.trim().trim_end_matches('.').to_ascii_lowercase();
    let site = table.site_named(&wanted).or_else(|| {
        let position = table.sites.iter().position(|site| site.name == wanted)?;
        position.try_into().ok()
    });
    if let Some(site) = site {
        return table.sites[site as usize].certificates.clone();
    }
    let fits = |index: &CertificateIndex| {
        let leaf = &table.certificates[*index as usize].identity.leaf;
        leaf.subject.eq_ignore_ascii_case(&wanted)
            || leaf.names.contains(&wanted)
            || (wanted.len() >= SHORTEST_FINGERPRINT
                && leaf.fingerprint.to_string().starts_with(&wanted))
    };
    let all = 0..table
        .certificates
        .len()
        .try_into()
        .expect("fewer than 2^32");
    all.filter(fits).take(CERTIFICATES_NAMED).collect()
}

/// Digits of a fingerprint that are taken for one.
const SHORTEST_FINGERPRINT: usize = 8;
