//! One HTTP request of the egress worker: resolve, connect, ask, read. Nothing is followed, nothing
//! is kept open, nothing is judged.
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
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use url::Url;

use super::protocol::{FetchError, Head, Method, Request, Stage, Validators};
use crate::limits::{
    EGRESS_ADDRESSES, EGRESS_CHUNK_BYTES, EGRESS_HEAD_BYTES, EGRESS_HEADER_BYTES, EGRESS_HEADERS,
};

/// Takes an answer in pieces. An error means that nobody wants the rest.
pub(super) trait Sink: Send {
    /// Status and headers.
    fn head(&mut self, head: Head) -> impl Future<Output = ()> + Send;
    /// At most [`EGRESS_CHUNK_BYTES`] of the body.
    fn chunk(&mut self, bytes: &[u8]) -> impl Future<Output = ()> + Send;
}

/// Makes the request.
pub(super) async fn perform(request: Request, sink: &mut impl Sink) -> Result<(), FetchError> {
    let target = Target::parse(&request.url)?;
    let mut clock = Deadline::new(request.deadline);

    let addresses = clock.cover(Stage::Resolve, target.resolve()).await??;
    clock.done(Stage::Resolve);
    let stream = clock
        .cover(Stage::Connect, connect(&target, addresses))
        .await??;
    clock.done(Stage::Connect);
    clock.peer = stream.peer_addr().ok();
    exchange(stream, &target, &request, clock, sink).await
}

/// Sends the request over a connection and passes the answer on.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    target: &Target,
    request: &Request,
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

    let outgoing = target.request(request)?;
    let answer = clock
        .cover(Stage::Answer, sender.send_request(outgoing))
        .await?
        .map_err(broken)?;
    clock.done(Stage::Answer);
    let head = head_of(&answer, &clock);
    let mut body = answer.into_body();
    // A body that announces too much is not begun.
    if body.size_hint().lower() > request.limit as u64 {
        return Err(FetchError::TooLarge {
            limit: request.limit,
        });
    }
    let all = async {
        sink.head(head).await;
        pass_body(&mut body, request.limit, sink).await
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
    exchange(stream, &target, request, clock, sink).await
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
struct Deadline {
    at: Instant,
    after: Duration,
    begun: Instant,
    stages: Vec<(Stage, Duration)>,
    /// The address that took the connection.
    peer: Option<SocketAddr>,
}

impl Deadline {
    fn new(after: Duration) -> Self {
        let begun = Instant::now();
        Self {
            at: begun + after,
            after,
            begun,
            stages: Vec::with_capacity(3),
            peer: None,
        }
    }

    /// Notes the end of a stage, which began when the one before ended.
    fn done(&mut self, stage: Stage) {
        let now = Instant::now();
        let begun = std::mem::replace(&mut self.begun, now);
        self.stages.push((stage, now - begun));
    }

    async fn cover<T>(
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

/// A URL taken apart.
struct Target {
    /// As a URL writes it: an IPv6 address in brackets.
    host: String,
    port: u16,
    /// Path and query.
    path: String,
}

impl Target {
    fn parse(text: &str) -> Result<Self, FetchError> {
        let unusable = |reason: String| FetchError::Url {
            url: text.to_owned(),
            reason,
        };
        let url = Url::parse(text).map_err(|error| unusable(error.to_string()))?;
        if url.scheme() != "http" {
            return Err(FetchError::Scheme {
                scheme: url.scheme().to_owned(),
            });
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        if host.is_empty() {
            return Err(unusable("it names no host".to_owned()));
        }
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        Ok(Self {
            host,
            port: url.port_or_known_default().unwrap_or(80),
            path,
        })
    }

    /// Host and port as the Host header and messages have it.
    fn authority(&self) -> String {
        match self.port {
            80 => self.host.clone(),
            port => format!("{}:{port}", self.host),
        }
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, FetchError> {
        let failed = |reason| FetchError::Resolve {
            host: self.host.clone(),
            reason,
        };
        let found = tokio::net::lookup_host(format!("{}:{}", self.host, self.port))
            .await
            .map_err(|error| failed(error.to_string()))?;
        let addresses = interleave(found);
        if addresses.is_empty() {
            return Err(failed("it has no address".to_owned()));
        }
        Ok(addresses)
    }

    fn request(&self, request: &Request) -> Result<hyper::Request<Full<Bytes>>, FetchError> {
        let builder = hyper::Request::builder()
            .uri(&self.path)
            .header(header::HOST, self.authority())
            .header(header::ACCEPT, &request.accept)
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::CONNECTION, HeaderValue::from_static("close"));
        let conditions = [
            (header::IF_NONE_MATCH, &request.known.etag),
            (header::IF_MODIFIED_SINCE, &request.known.last_modified),
        ];
        let builder = conditions
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?)))
            .fold(builder, |builder, (name, value)| {
                builder.header(name, value)
            });
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
}

/// Alternates address families in the order in which the resolver preferred them (RFC 8305
/// section 4), and drops what exceeds [`EGRESS_ADDRESSES`].
fn interleave(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut first = Vec::new();
    let mut second = Vec::new();
    for address in found {
        match first.first() {
            Some(head) if SocketAddr::is_ipv6(head) != address.is_ipv6() => second.push(address),
            _ => first.push(address),
        }
    }
    let mut ordered = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let (a, b) = (first.next(), second.next());
        if a.is_none() && b.is_none() {
            break;
        }
        ordered.extend(a.into_iter().chain(b));
    }
    ordered.truncate(EGRESS_ADDRESSES);
    ordered
}

/// Connects to the first address that takes it: the next one is tried when one fails, and beside it
/// when [`ATTEMPT_DELAY`] has passed, so that a dead route costs no more than that (RFC 8305
/// section 5).
async fn connect(target: &Target, addresses: Vec<SocketAddr>) -> Result<TcpStream, FetchError> {
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut reasons = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(async move { (address, TcpStream::connect(address).await) });
        }
        if attempts.is_empty() {
            break;
        }
        let pause = Instant::now() + ATTEMPT_DELAY;
        let patience = async {
            match waiting.len() {
                0 => std::future::pending().await,
                _ => sleep_until(pause).await,
            }
        };
        tokio::select! {
            ended = attempts.join_next() => match ended {
                Some(Ok((_, Ok(stream)))) => return Ok(stream),
                Some(Ok((address, Err(error)))) => reasons.push(format!("{address}: {error}")),
                Some(Err(_)) | None => {}
            },
            () = patience => {}
        }
    }
    Err(FetchError::Connect {
        host: target.authority(),
        reason: reasons.join(", "),
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

const USER_AGENT: &str = concat!("clinch/", env!("CARGO_PKG_VERSION"));

/// Before the next address is tried beside one that has not answered (RFC 8305 section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn families_alternate_beginning_with_the_preferred_one() {
        let found = ["[::1]:1", "[::2]:1", "1.1.1.1:1", "[::3]:1", "2.2.2.2:1"].map(address);
        let expected = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"].map(address);
        assert_eq!(interleave(found.into_iter()), expected);
    }

    #[test]
    fn a_base64_path_goes_out_as_it_came_in() {
        let url = "http://ocsp.example/status/MFEw%2FTzBNMEsw//STAJ%2B%3D";
        let target = Target::parse(url).expect("usable");
        assert_eq!(target.path, "/status/MFEw%2FTzBNMEsw//STAJ%2B%3D");
        assert_eq!(target.authority(), "ocsp.example");
    }

    #[test]
    fn other_schemes_are_refused_by_name() {
        for (url, scheme) in [
            ("https://ocsp.example/", "https"),
            ("ldap://ca.example/cn=x", "ldap"),
            ("file:///etc/passwd", "file"),
        ] {
            let error = Target::parse(url).err().expect("refused");
            assert_eq!(
                error,
                FetchError::Scheme {
                    scheme: scheme.to_owned()
                }
            );
        }
        assert!(matches!(
            Target::parse("not a url"),
            Err(FetchError::Url { .. })
        ));
    }
}
