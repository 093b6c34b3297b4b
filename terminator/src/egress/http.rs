//! One HTTP request of the egress worker: connect, ask, read. Nothing is followed, nothing is kept
//! open, and of what comes back nothing is judged.
//!
//! One deadline covers all of it. The answer is handed to a [`Sink`] as it arrives, never held
//! whole; after an error the caller tells control that no more of it comes.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::connect::{self, Means};
use super::protocol::{Destination, FetchError, Head, Method, Request, Stage, Validators};
use super::target::Target;
use crate::config::Proxy;
use crate::limits::{EGRESS_CHUNK_BYTES, EGRESS_HEAD_BYTES, EGRESS_HEADER_BYTES, EGRESS_HEADERS};

/// Takes an answer in pieces, and is asked beforehand whether to connect.
pub(super) trait Sink: Send {
    /// Whether these addresses may be connected to; the error says why not.
    fn admit(&mut self, to: Destination) -> impl Future<Output = Result<(), String>> + Send;
    /// Status and headers.
    fn head(&mut self, head: Head) -> impl Future<Output = ()> + Send;
    /// At most [`EGRESS_CHUNK_BYTES`] of the body.
    fn chunk(&mut self, bytes: &[u8]) -> impl Future<Output = ()> + Send;
}

/// Makes the request.
pub(super) async fn perform(
    means: &Means,
    request: Request,
    sink: &mut impl Sink,
) -> Result<(), FetchError> {
    let target = Target::parse(&request.url)?;
    let mut clock = Deadline::new(request.deadline);
    let connected = means
        .connect(&target, request.named_by, &mut clock, sink)
        .await?;
    let proxy = means.settings.proxy.as_ref();
    let outgoing = outgoing(&target, &request, proxy.filter(|_| connected.absolute))?;
    exchange(connected.stream, outgoing, request.limit, clock, sink).await
}

/// Sends the request over a connection and passes the answer on.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    outgoing: hyper::Request<Full<Bytes>>,
    limit: usize,
    mut clock: Deadline,
    sink: &mut impl Sink,
) -> Result<(), FetchError> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(EGRESS_HEAD_BYTES)
        .max_headers(EGRESS_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let mut tasks = JoinSet::new();
    // Dropped, and with it the connection, on every way out of this function. Its errors come back
    // through the request too.
    tasks.spawn(connection);

    let answer = clock
        .cover(Stage::Answer, sender.send_request(outgoing))
        .await?
        .map_err(broken)?;
    clock.done(Stage::Answer);
    let head = head_of(&answer, &clock);
    let mut body = answer.into_body();
    // A body that announces too much is not begun.
    if body.size_hint().lower() > limit as u64 {
        return Err(FetchError::TooLarge { limit });
    }
    let all = async {
        sink.head(head).await;
        pass_body(&mut body, limit, sink).await
    };
    clock.cover(Stage::Body, all).await?
}

/// What [`perform`] makes of these bytes of a server, which come once the request is there.
pub(super) async fn perform_on(
    request: &Request,
    answer: &[u8],
    sink: &mut impl Sink,
) -> Result<(), FetchError> {
    let target = Target::parse(&request.url)?;
    let (stream, mut server) = tokio::io::duplex(EGRESS_HEAD_BYTES);
    let answer = answer.to_vec();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // Errors mean that nobody wants the answer, or the rest of it.
        let _ = server.read(&mut [0; 2048]).await;
        let _ = server.write_all(&answer).await;
    });
    let clock = Deadline::new(request.deadline);
    let outgoing = outgoing(&target, request, None)?;
    exchange(stream, outgoing, request.limit, clock, sink).await
}

async fn pass_body(
    body: &mut Incoming,
    limit: usize,
    sink: &mut impl Sink,
) -> Result<(), FetchError> {
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(broken)?.into_data() else {
            continue; // trailers
        };
        total += data.len();
        if total > limit {
            return Err(FetchError::TooLarge { limit });
        }
        for piece in data.chunks(EGRESS_CHUNK_BYTES) {
            sink.chunk(piece).await;
        }
    }
    Ok(())
}

/// One instant by which all stages must be done, and how long those took that are.
pub(super) struct Deadline {
    at: Instant,
    after: Duration,
    begun: Instant,
    stages: Vec<(Stage, Duration)>,
    /// The address that took the connection.
    pub(super) peer: Option<SocketAddr>,
}

impl Deadline {
    fn new(after: Duration) -> Self {
        let begun = Instant::now();
        Self {
            at: begun + after,
            after,
            begun,
            stages: Vec::with_capacity(4),
            peer: None,
        }
    }

    /// Notes the end of a stage, which began when the one before ended.
    pub(super) fn done(&mut self, stage: Stage) {
        let now = Instant::now();
        let begun = std::mem::replace(&mut self.begun, now);
        self.stages.push((stage, now - begun));
    }

    pub(super) async fn cover<T>(
        &self,
        stage: Stage,
        work: impl Future<Output = T> + Send,
    ) -> Result<T, FetchError> {
        let after = self.after;
        timeout_at(self.at, work)
            .await
            .map_err(|_| FetchError::TimedOut { after, stage })
    }
}

/// What is sent: to the server itself, or the whole URL to a proxy.
fn outgoing(
    target: &Target,
    request: &Request,
    proxy: Option<&Proxy>,
) -> Result<hyper::Request<Full<Bytes>>, FetchError> {
    let uri = match proxy {
        Some(_) => target.absolute(),
        None => target.path.clone(),
    };
    let mut builder = hyper::Request::builder()
        .uri(uri)
        .header(header::HOST, target.authority())
        .header(header::ACCEPT, &request.accept)
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, HeaderValue::from_static("close"));
    if let Some(value) = proxy.and_then(connect::authorization) {
        builder = builder.header(header::PROXY_AUTHORIZATION, value);
    }
    let conditions = [
        (header::IF_NONE_MATCH, &request.known.etag),
        (header::IF_MODIFIED_SINCE, &request.known.last_modified),
    ];
    for (name, value) in conditions {
        if let Some(value) = value {
            builder = builder.header(name, value);
        }
    }
    let built = match &request.method {
        Method::Get => builder.method(hyper::Method::GET).body(Full::default()),
        Method::Post { content_type, body } => builder
            .method(hyper::Method::POST)
            .header(header::CONTENT_TYPE, content_type)
            .body(Full::from(body.clone())),
    };
    built.map_err(|error| FetchError::Url {
        url: request.url.clone(),
        reason: error.to_string(),
    })
}

fn head_of(answer: &hyper::Response<Incoming>, clock: &Deadline) -> Head {
    let headers = answer.headers();
    Head {
        status: answer.status().as_u16(),
        content_type: text(headers, header::CONTENT_TYPE),
        cache_control: text(headers, header::CACHE_CONTROL),
        expires: text(headers, header::EXPIRES),
        age: text(headers, header::AGE),
        date: text(headers, header::DATE),
        validators: Validators {
            etag: text(headers, header::ETAG),
            last_modified: text(headers, header::LAST_MODIFIED),
        },
        address: clock.peer,
        stages: clock.stages.clone(),
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    (value.len() <= EGRESS_HEADER_BYTES).then(|| value.to_owned())
}

fn broken(error: hyper::Error) -> FetchError {
    let mut reason = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        reason = format!("{reason}: {inner}");
        cause = inner.source();
    }
    FetchError::Http { reason }
}

pub(super) const USER_AGENT: &str = concat!("clinch/", env!("CARGO_PKG_VERSION"));
