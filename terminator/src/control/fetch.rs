//! One certificate is asked about: request built, responders tried in turn, the answer verified.
//!
//! Decides nothing about time and publishes nothing. The network part happens in the egress
//! process; what comes back is believed only as far as [`ocsp::verify`] allows.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls_pki_types::CertificateDer;

use super::freshness;
use super::schedule::Trouble;
use super::trace::{Step, Trace};
use crate::clock;
use crate::config::{NonceUse, Ocsp, RequestMethod};
use crate::egress::{Client, FetchError, Head, Method, NamedBy, Request, Response, Validators};
use crate::limits::OCSP_RESPONSE_BYTES;
use crate::observability::counters::FetchResult;
use crate::ocsp::{
    self, Nonce, NonceRule, Policy, Refusal, RefusalKind, Revocation, Unsuccessful, VerifiedStaple,
};
use crate::snapshot::{CertificateIndex, Table};

/// What to ask.
pub(super) struct Question {
    /// The table that the certificate belongs to.
    pub(super) table: Arc<Table>,
    /// The certificate.
    pub(super) certificate: CertificateIndex,
    /// One of them is to give a verified answer.
    pub(super) responders: Vec<String>,
    /// Their positions, in the order in which they are tried.
    pub(super) order: Vec<usize>,
    /// Who chose these responders.
    pub(super) named_by: NamedBy,
    /// Issued the certificate.
    pub(super) issuer: CertificateDer<'static>,
    /// For the verifier.
    pub(super) policy: Policy,
    /// How the request is made.
    pub(super) settings: Ocsp,
    /// For each responder.
    pub(super) patience: Duration,
    /// What names the staple in use, and which responder called it so: it may say that there is
    /// nothing newer.
    pub(super) known: Option<(usize, Validators)>,
}

impl Question {
    /// What names the staple in use, where it was this responder that called it so.
    fn known_to(&self, turn: usize) -> Option<&Validators> {
        let known = self.known.as_ref().filter(|(by, _)| *by == turn);
        known.map(|(_, known)| known)
    }
}

/// What a responder gave.
pub(super) enum News {
    /// A verified response.
    Staple(Arc<VerifiedStaple>),
    /// Nothing newer than the staple in use.
    Unchanged,
}

/// One attempt at one responder.
pub(super) struct Attempt {
    /// Host and port of the responder.
    pub(super) host: String,
    /// How it ended.
    pub(super) result: FetchResult,
    /// Whether the responder was there, whatever it said.
    pub(super) reached: bool,
    /// How long it took.
    pub(super) took: Duration,
    /// What the HTTP server believes the time to be.
    pub(super) dated: Option<SystemTime>,
}

/// What came of a question.
pub(super) struct Answer {
    /// Of the question.
    pub(super) certificate: CertificateIndex,
    /// The verified response, or why there is none. Of several responders the last one's, unless an
    /// earlier one gave a verified *revoked*.
    pub(super) result: Result<News, Failure>,
    /// Each attempt, for the counters.
    pub(super) attempts: Vec<Attempt>,
    /// Each step, for whoever asks.
    pub(super) trace: Vec<Step>,
    /// What names the response, and which responder called it so.
    pub(super) validators: Option<(usize, Validators)>,
    /// For how long HTTP calls the response fresh.
    pub(super) fresh: Option<Duration>,
    /// The responder whose answer this is.
    pub(super) responder: String,
}

/// Why an attempt gave no staple.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// No response came in.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The responder's HTTP server refused.
    #[error("the responder answered with HTTP status {0} instead of 200")]
    Status(u16),
    /// Not an OCSP response by its label: often an error page or a portal.
    #[error(
        "the responder answered with content type {} instead of application/ocsp-response; a proxy or portal may be in between",
        .0.as_deref().unwrap_or("(none)")
    )]
    ContentType(Option<String>),
    /// The file that stands for a responder cannot be read.
    #[error(
        "the response file {} cannot be read ({reason}); whatever keeps it up to date must write it so that the user of clinch may read it",
        .path.display()
    )]
    File {
        /// As configured.
        path: PathBuf,
        /// The system's reason.
        reason: std::io::Error,
    },
    /// The CA says, verified, that the certificate is revoked.
    #[error("{0}")]
    Revoked(Arc<Revocation>),
    /// The verifier refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Failure {
    /// A verified statement of the CA, after which no other responder is asked.
    pub(super) fn is_revoked(&self) -> bool {
        match self {
            Self::Revoked(_) => true,
            Self::Refused(refusal) => refusal.kind() == RefusalKind::Revoked,
            _ => false,
        }
    }

    /// The response does not fit the present: its times are wrong, or the clock of this machine is.
    pub(super) fn is_of_time(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.kind() == RefusalKind::Time)
    }

    /// What the next attempts should be like.
    pub(super) fn trouble(&self) -> Trouble {
        match self {
            Self::Fetch(FetchError::Gone | FetchError::Silent | FetchError::Busy { .. }) => {
                Trouble::Egress
            }
            Self::Fetch(
                FetchError::Url { .. }
                | FetchError::Scheme { .. }
                | FetchError::HttpsOff
                | FetchError::Credentials
                | FetchError::Host { .. }
                | FetchError::Port { .. }
                | FetchError::RequestTooLarge { .. },
            )
            | Self::Refused(
                Refusal::NotTheIssuer
                | Refusal::Certificate { .. }
                | Refusal::Unsuccessful(Unsuccessful::SigRequired),
            ) => Trouble::Lasting,
            Self::Refused(Refusal::Unsuccessful(Unsuccessful::TryLater)) => Trouble::TryLater,
            Self::Refused(Refusal::Unsuccessful(Unsuccessful::Unauthorized) | Refusal::Unknown) => {
                Trouble::NotKnownYet
            }
            Self::Fetch(_)
            | Self::Status(_)
            | Self::ContentType(_)
            | Self::File { .. }
            | Self::Revoked(_)
            | Self::Refused(_) => Trouble::Ordinary,
        }
    }

    /// The counter it belongs to.
    fn counted_as(&self) -> FetchResult {
        match self {
            Self::Fetch(error) => match error {
                FetchError::TimedOut { .. } => FetchResult::TimedOut,
                FetchError::Gone | FetchError::Silent | FetchError::Busy { .. } => {
                    FetchResult::Egress
                }
                FetchError::TooLarge { .. } => FetchResult::Http,
                FetchError::Url { .. }
                | FetchError::Scheme { .. }
                | FetchError::HttpsOff
                | FetchError::Credentials
                | FetchError::Host { .. }
                | FetchError::Port { .. }
                | FetchError::Address { .. }
                | FetchError::Refused { .. } => FetchResult::NotAllowed,
                FetchError::RequestTooLarge { .. }
                | FetchError::Resolve { .. }
                | FetchError::Connect { .. }
                | FetchError::Tls { .. }
                | FetchError::Proxy { .. }
                | FetchError::Http { .. } => FetchResult::Network,
            },
            Self::Status(_) | Self::ContentType(_) => FetchResult::Http,
            Self::File { .. } => FetchResult::File,
            Self::Revoked(_) => FetchResult::Revoked,
            Self::Refused(refusal) => match refusal {
                Refusal::Unsuccessful(Unsuccessful::TryLater) => FetchResult::TryLater,
                Refusal::Unsuccessful(Unsuccessful::Unauthorized) => FetchResult::Unauthorized,
                _ if self.is_revoked() => FetchResult::Revoked,
                _ => FetchResult::Refused,
            },
        }
    }

    /// The responder, or the way to it, is at fault, and other certificates would fare no better.
    fn is_of_responder(&self) -> bool {
        match self {
            Self::Fetch(error) => matches!(
                error,
                FetchError::Resolve { .. }
                    | FetchError::Connect { .. }
                    | FetchError::TimedOut { .. }
                    | FetchError::Tls { .. }
                    | FetchError::Proxy { .. }
                    | FetchError::Http { .. }
            ),
            Self::Status(status) => *status >= 500 || *status == 429,
            Self::ContentType(_) | Self::File { .. } | Self::Revoked(_) | Self::Refused(_) => false,
        }
    }
}

/// Asks the responders of a certificate in turn.
pub(super) async fn ask(client: Client, question: Question) -> Answer {
    let mut answer = Answer {
        certificate: question.certificate,
        result: Err(Failure::Fetch(FetchError::Gone)),
        attempts: Vec::new(),
        trace: Vec::new(),
        validators: None,
        fresh: None,
        responder: String::new(),
    };
    let mut trace = Trace::begin();
    for &turn in &question.order {
        let responder = &question.responders[turn];
        let began = Instant::now();
        let mut head = Head::default();
        let result = ask_one(&client, &question, turn, &mut trace, &mut head).await;
        let counted = match &result {
            Ok(News::Staple(_)) => FetchResult::Good,
            Ok(News::Unchanged) => FetchResult::Unchanged,
            Err(failure) => failure.counted_as(),
        };
        trace.note(match &result {
            Ok(News::Staple(staple)) => format!("verified: {}", describe(staple)),
            Ok(News::Unchanged) => "not modified: the staple in use stays".to_owned(),
            Err(failure) => format!("failed: {failure}"),
        });
        let failed = result.as_ref().err();
        answer.attempts.push(Attempt {
            host: host_of(responder),
            result: counted,
            reached: !failed.is_some_and(Failure::is_of_responder),
            took: began.elapsed(),
            dated: freshness::dated(&head),
        });
        answer.fresh = freshness::fresh_for(&head);
        answer.validators = (head.validators.are_there()).then_some((turn, head.validators));
        let settled = failed.is_none_or(Failure::is_revoked);
        answer.result = result;
        answer.responder.clone_from(responder);
        if settled {
            break;
        }
    }
    answer.trace = trace.end();
    answer
}

/// A staple in words.
fn describe(staple: &VerifiedStaple) -> String {
    let next = staple.next_update().map(clock::rfc3339);
    format!(
        "good; thisUpdate {}, nextUpdate {}, may be stapled until {}",
        clock::rfc3339(staple.this_update()),
        next.as_deref().unwrap_or("(none)"),
        clock::rfc3339(staple.not_after())
    )
}

/// Host and port of a URL; one that does not parse is its own host.
pub(super) fn host_of(url: &str) -> String {
    let authority = url::Url::parse(url).ok().and_then(|url| {
        let host = url.host_str()?.to_owned();
        Some(format!("{host}:{}", url.port_or_known_default()?))
    });
    authority.unwrap_or_else(|| url.to_owned())
}

/// Asks one responder and judges what it says.
async fn ask_one(
    client: &Client,
    question: &Question,
    turn: usize,
    trace: &mut Trace,
    head: &mut Head,
) -> Result<News, Failure> {
    let responder = question.responders[turn].as_str();
    let identity = &question.table.certificates[question.certificate as usize].identity;
    let (leaf, issuer) = (&identity.chain[0], &question.issuer);
    let mut policy = question.policy.clone();
    // A certificate must not have control open files.
    let file = match question.named_by {
        NamedBy::Operator => file_of(responder),
        NamedBy::Certificate => None,
    };
    let body = match file {
        Some(path) => {
            trace.note(format!("reading {}", path.display()));
            read(path).await?
        }
        None => {
            let settings = &question.settings;
            let nonce = (settings.nonce != NonceUse::Off).then(|| Nonce(rand::random()));
            let request = ocsp::Request::with(leaf, issuer, settings.hash, nonce.as_ref())?;
            policy.nonce = match (nonce, settings.nonce) {
                (None, _) => NonceRule::Any,
                (Some(nonce), NonceUse::Require) => NonceRule::Present(nonce),
                (Some(nonce), _) => NonceRule::Same(nonce),
            };
            let response = carry(client, question, &request, turn, trace).await?;
            trace.note_answer(&response.head, response.body.len());
            head.clone_from(&response.head);
            if response.head.status == 304 && question.known_to(turn).is_some() {
                return Ok(News::Unchanged);
            }
            body_of(response)?
        }
    };
    let at = clock::now();
    match ocsp::verify(&body, leaf, issuer, &policy, at) {
        Ok(staple) => Ok(News::Staple(Arc::new(staple))),
        Err(refusal @ Refusal::Revoked { .. }) => {
            Err(match Revocation::verify(&body, leaf, issuer, &policy, at) {
                Ok(Some(revocation)) => Failure::Revoked(Arc::new(revocation)),
                _ => Failure::Refused(refusal),
            })
        }
        Err(refusal) => Err(Failure::Refused(refusal)),
    }
}

/// Carries a request to a responder. Unless the operator has chosen: with GET where the request fits
/// a URL, so that caches on the way can answer (RFC 9919 section 5), and with POST otherwise, where
/// the responder does not take the GET, or where a nonce keeps caches from answering.
async fn carry(
    client: &Client,
    question: &Question,
    request: &ocsp::Request,
    turn: usize,
    trace: &mut Trace,
) -> Result<Response, Failure> {
    let responder = question.responders[turn].as_str();
    let deadline = Instant::now() + question.patience;
    let named_by = question.named_by;
    let post = || {
        let content_type = REQUEST_TYPE.to_owned();
        let body = request.der.clone();
        let method = Method::Post { content_type, body };
        http(responder.to_owned(), named_by, method, deadline)
    };
    let settings = &question.settings;
    let url = match settings.method {
        RequestMethod::Post => None,
        RequestMethod::Get => request.long_get_url(responder),
        RequestMethod::Auto if settings.nonce != NonceUse::Off => None,
        RequestMethod::Auto => request.get_url(responder),
    };
    let Some(url) = url else {
        trace.note(format!("POST {responder}"));
        return Ok(client.fetch(post()).await?);
    };
    trace.note(format!("GET {url}"));
    let mut get = http(url, named_by, Method::Get, deadline);
    if let Some(known) = question.known_to(turn) {
        get.known.clone_from(known);
    }
    let response = client.fetch(get).await?;
    Ok(match response.head.status {
        // Wrong path, wrong method, or a URL that is too long for that server.
        400 | 404 | 405 | 414 | 501 if settings.method == RequestMethod::Auto => {
            trace.note_answer(&response.head, response.body.len());
            trace.note(format!("POST {responder}"));
            client.fetch(post()).await?
        }
        _ => response,
    })
}

/// The path of a `file://` URL.
pub(super) fn file_of(responder: &str) -> Option<PathBuf> {
    let url = url::Url::parse(responder).ok()?;
    (url.scheme() == "file").then(|| url.to_file_path().ok())?
}

/// A response from a file, at most one byte more than is taken.
async fn read(path: PathBuf) -> Result<Vec<u8>, Failure> {
    let from = path.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(&from)?;
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::other("it is not a regular file"));
        }
        let mut bounded = file.take(OCSP_RESPONSE_BYTES as u64 + 1);
        bounded.read_to_end(&mut bytes).map(|_| bytes)
    });
    let read = reading
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)));
    read.map_err(|reason| Failure::File { path, reason })
}

fn http(url: String, named_by: NamedBy, method: Method, deadline: Instant) -> Request {
    Request {
        url,
        named_by,
        method,
        accept: RESPONSE_TYPE.to_owned(),
        deadline: deadline.saturating_duration_since(Instant::now()),
        limit: OCSP_RESPONSE_BYTES,
        known: Validators::default(),
    }
}

/// Status 200 and the right label (RFC 6960 appendix A.2), or a reason.
fn body_of(response: Response) -> Result<Vec<u8>, Failure> {
    if response.head.status != 200 {
        return Err(Failure::Status(response.head.status));
    }
    let label = response.head.content_type;
    let media_type = label.as_deref().and_then(|label| label.split(';').next());
    if media_type.is_some_and(|media| media.trim().eq_ignore_ascii_case(RESPONSE_TYPE)) {
        Ok(response.body)
    } else {
        Err(Failure::ContentType(label))
    }
}

const REQUEST_TYPE: &str = "application/ocsp-request";

const RESPONSE_TYPE: &str = "application/ocsp-response";

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, content_type: Option<&str>) -> Response {
        Response {
            head: Head {
                status,
                content_type: content_type.map(str::to_owned),
                ..Head::default()
            },
            body: vec![1],
        }
    }

    #[test]
    fn only_status_200_with_the_right_label_is_looked_into() {
        for label in [
            "application/ocsp-response",
            "Application/OCSP-Response; x=y",
        ] {
            assert!(body_of(response(200, Some(label))).is_ok(), "{label}");
        }
        for label in [None, Some("text/html"), Some("application/ocsp-responsee")] {
            let failure = body_of(response(200, label)).expect_err("wrong label");
            assert!(matches!(failure, Failure::ContentType(_)));
        }
        let failure = body_of(response(503, Some(RESPONSE_TYPE))).expect_err("no success");
        assert!(matches!(failure, Failure::Status(503)) && failure.is_of_responder());
    }
}
