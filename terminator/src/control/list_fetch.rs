//! One CRL is fetched: its places tried in turn, the list verified, and each certificate that it is
//! about judged. Decides nothing about time and publishes nothing.
//!
//! A list may have tens of MB. It is held once, as it came, and judged on a thread of its own, so that
//! staples go on meanwhile.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;

use super::fetch::host_of;
use super::freshness;
use super::trace::{Step, Trace};
use crate::clock;
use crate::crl::{self, CrlNumber, Policy, Refusal, RefusalKind, VerifiedList};
use crate::egress::{Client, FetchError, Method, NamedBy, Request, Validators};
use crate::limits::{CRL_BYTES, CRL_DEADLINE};
use crate::observability::counters::{CrlResult, EgressRefusal};
use crate::snapshot::{CertificateIndex, Table};

/// What to fetch.
#[derive(Clone)]
pub(super) struct ListQuestion {
    /// Position of the list.
    pub(super) list: u32,
    /// The table that the certificates belong to.
    pub(super) table: Arc<Table>,
    /// Those to judge.
    pub(super) certificates: Vec<CertificateIndex>,
    /// One of them is to give a list that says something about all of the certificates.
    pub(super) urls: Vec<String>,
    /// Their positions, in the order in which they are tried.
    pub(super) order: Vec<usize>,
    /// Certificates of the CA.
    pub(super) issuers: Vec<CertificateDer<'static>>,
    /// For the verifier.
    pub(super) policy: Policy,
    /// What names the list at hand, and which place called it so.
    pub(super) known: Option<(usize, Validators)>,
}

/// What came of it.
pub(super) struct ListAnswer {
    /// Of the question.
    pub(super) list: u32,
    /// The verdicts, or why there are none.
    pub(super) result: Result<ListNews, ListFailure>,
    /// Each attempt, for the counters.
    pub(super) attempts: Vec<ListAttempt>,
    /// Each step, for whoever asks.
    pub(super) trace: Vec<Step>,
}

/// One attempt at one place.
pub(super) struct ListAttempt {
    /// Host and port of the place.
    pub(super) host: String,
    /// How it ended.
    pub(super) result: CrlResult,
    /// Whether the place was there, whatever it gave.
    pub(super) reached: bool,
    /// What the HTTP server believes the time to be.
    pub(super) dated: Option<SystemTime>,
}

/// What a place gave.
pub(super) enum ListNews {
    /// Nothing newer than the list at hand; for how long HTTP calls it fresh.
    Unchanged(Option<Duration>),
    /// A verified list.
    Read(ListRead),
}

/// A verified list and what it says.
pub(super) struct ListRead {
    /// Position of the place it came from.
    pub(super) place: usize,
    pub(super) this_update: SystemTime,
    pub(super) next_update: Option<SystemTime>,
    /// From then on it says nothing.
    pub(super) not_after: SystemTime,
    pub(super) number: Option<CrlNumber>,
    pub(super) validators: Validators,
    pub(super) fresh: Option<Duration>,
    /// As it came, where it revokes one of the certificates.
    pub(super) body: Option<Vec<u8>>,
    /// For each certificate why the list does not call it good; `None` where it does.
    pub(super) verdicts: Vec<(CertificateIndex, Option<Refusal>)>,
}

impl ListRead {
    fn revokes_any(&self) -> bool {
        let mut refusals = self.verdicts.iter().filter_map(|(_, why)| why.as_ref());
        refusals.any(|why| why.kind() == RefusalKind::Revoked)
    }
}

/// Why a place gave nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListFailure {
    /// No answer came in.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The HTTP server refused.
    #[error("the server of the CRL answered with HTTP status {0} instead of 200")]
    Status(u16),
    /// The verifier refused the whole list.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Clinch itself broke down over it.
    #[error("judging the CRL failed in clinch itself: {0}")]
    Fault(String),
}

impl ListFailure {
    fn counted_as(&self) -> CrlResult {
        match self {
            Self::Fetch(FetchError::TimedOut { .. }) => CrlResult::TimedOut,
            Self::Fetch(FetchError::Gone | FetchError::Silent | FetchError::Busy { .. }) => {
                CrlResult::Egress
            }
            Self::Fetch(FetchError::TooLarge { .. }) | Self::Status(_) => CrlResult::Http,
            Self::Fetch(error) => match error.refusal() {
                None | Some(EgressRefusal::Tls | EgressRefusal::Proxy) => CrlResult::Network,
                Some(_) => CrlResult::NotAllowed,
            },
            Self::Refused(_) | Self::Fault(_) => CrlResult::Refused,
        }
    }

    /// The list does not fit the present: its times are wrong, or the clock of this machine is.
    pub(super) fn is_of_time(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.kind() == RefusalKind::Time)
    }

    /// Other lists from there would fare no better.
    fn is_of_server(&self) -> bool {
        match self {
            Self::Fetch(_) => matches!(self.counted_as(), CrlResult::Network | CrlResult::TimedOut),
            Self::Status(status) => *status >= 500 || *status == 429,
            Self::Refused(_) | Self::Fault(_) => false,
        }
    }
}

/// Tries the places of a list in turn.
pub(super) async fn ask(client: Client, question: ListQuestion) -> ListAnswer {
    let mut answer = ListAnswer {
        list: question.list,
        result: Err(ListFailure::Fetch(FetchError::Gone)),
        attempts: Vec::new(),
        trace: Vec::new(),
    };
    let mut trace = Trace::begin();
    for &place in &question.order {
        let mut dated = None;
        let result = ask_one(&client, &question, place, &mut trace, &mut dated).await;
        let counted = match &result {
            Ok(ListNews::Unchanged(_)) => CrlResult::Unchanged,
            Ok(ListNews::Read(_)) => CrlResult::Taken,
            Err(failure) => failure.counted_as(),
        };
        trace.note(match &result {
            Ok(ListNews::Unchanged(_)) => "not modified: the list at hand stands".to_owned(),
            Ok(ListNews::Read(read)) => describe(read),
            Err(failure) => format!("failed: {failure}"),
        });
        answer.attempts.push(ListAttempt {
            host: host_of(&question.urls[place]),
            result: counted,
            reached: !result.as_ref().err().is_some_and(ListFailure::is_of_server),
            dated,
        });
        let settled = result.as_ref().is_ok_and(says_something_about_all);
        // A list about some of the certificates is better than the failure of another place.
        if result.is_ok() || answer.result.is_err() {
            answer.result = result;
        }
        if settled {
            break;
        }
    }
    answer.trace = trace.end();
    answer
}

fn says_something_about_all(news: &ListNews) -> bool {
    let ListNews::Read(read) = news else {
        return true;
    };
    let verdicts = read.verdicts.iter().filter_map(|(_, why)| why.as_ref());
    verdicts
        .into_iter()
        .all(|why| why.kind() == RefusalKind::Revoked)
}

fn describe(read: &ListRead) -> String {
    let next = read.next_update.map(clock::rfc3339);
    let number = read.number.map(|number| number.to_string());
    let listed = read
        .verdicts
        .iter()
        .filter(|(_, why)| why.is_some())
        .count();
    format!(
        "verified: CRL number {}, thisUpdate {}, nextUpdate {}; {} of {} certificates are good",
        number.as_deref().unwrap_or("(none)"),
        clock::rfc3339(read.this_update),
        next.as_deref().unwrap_or("(none)"),
        read.verdicts.len() - listed,
        read.verdicts.len()
    )
}

async fn ask_one(
    client: &Client,
    question: &ListQuestion,
    place: usize,
    trace: &mut Trace,
    dated: &mut Option<SystemTime>,
) -> Result<ListNews, ListFailure> {
    let url = question.urls[place].clone();
    trace.note(format!("GET {url}"));
    let known = question.known.as_ref().filter(|(from, _)| *from == place);
    let request = Request {
        url,
        named_by: NamedBy::Certificate,
        method: Method::Get,
        accept: "application/pkix-crl, */*".to_owned(),
        deadline: CRL_DEADLINE,
        limit: CRL_BYTES,
        known: known.map(|(_, known)| known.clone()).unwrap_or_default(),
    };
    let response = client.fetch(request).await?;
    trace.note_answer(&response.head, response.body.len());
    *dated = freshness::dated(&response.head);
    let fresh = freshness::fresh_for(&response.head);
    match response.head.status {
        200 => {}
        304 if known.is_some() => return Ok(ListNews::Unchanged(fresh)),
        status => return Err(ListFailure::Status(status)),
    }
    let validators = response.head.validators;
    let judged = question.clone();
    let body = response.body;
    let judging = tokio::task::spawn_blocking(move || {
        let mut read = judge(&body, &judged)?;
        read.body = read.revokes_any().then_some(body);
        Ok::<_, Refusal>(read)
    });
    let judged = judging.await;
    let mut read = judged.map_err(|error| ListFailure::Fault(error.to_string()))??;
    read.place = place;
    read.validators = validators;
    read.fresh = fresh;
    Ok(ListNews::Read(read))
}

/// Verifies a list and judges each certificate by it, reading all entries once.
fn judge(body: &[u8], question: &ListQuestion) -> Result<ListRead, Refusal> {
    let der = crl::decode(body)?;
    let list = VerifiedList::verify(&der, &question.issuers, &question.policy, clock::now())?;
    let certificates = &question.table.certificates;
    let about = question.certificates.iter();
    let leaves = about.map(|&index| &certificates[index as usize].identity.chain[0]);
    let leaves: Vec<&CertificateDer<'_>> = leaves.collect();
    let verdicts = list.judge_all(&leaves).into_iter().map(Result::err);
    let verdicts = question.certificates.iter().copied().zip(verdicts);
    Ok(ListRead {
        place: 0,
        this_update: list.this_update(),
        next_update: list.next_update(),
        not_after: list.not_after(),
        number: list.number(),
        validators: Validators::default(),
        fresh: None,
        body: None,
        verdicts: verdicts.collect(),
    })
}
