//! The demo's OCSP responder: HTTP on loopback, GET and POST (RFC 6960 appendix A), *good* for what
//! the authority issued through [`Responder::register`] and `unauthorized` for the rest.
//!
//! Its responses are valid for two minutes only, so that refreshing can be watched.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::authority::{Authority, OcspAnswer, Unsuccessful, unsuccessful};

/// A running responder; it runs on the tokio runtime's own thread and ends with it.
pub(super) struct Responder {
    address: SocketAddr,
    state: Rc<State>,
}

struct State {
    authority: Arc<Authority>,
    serials: RefCell<HashSet<Vec<u8>>>,
    asked: Cell<u64>,
}

impl Responder {
    /// Listens on a free port. Call it from within a [`tokio::task::LocalSet`] or a current-thread
    /// runtime that drives one.
    pub(super) async fn start(authority: Arc<Authority>) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Rc::new(State {
            authority,
            serials: RefCell::default(),
            asked: Cell::new(0),
        });
        tokio::task::spawn_local(accept(listener, Rc::clone(&state)));
        Ok(Self { address, state })
    }

    /// What goes into certificates.
    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// From now on the certificate with this serial number is known.
    pub(super) fn register(&self, serial: &[u8]) {
        self.state.serials.borrow_mut().insert(serial.to_vec());
    }

    /// Requests answered so far.
    pub(super) fn asked(&self) -> u64 {
        self.state.asked.get()
    }
}

async fn accept(listener: TcpListener, state: Rc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Rc::clone(&state);
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| serve(Rc::clone(&state), request));
            // An error here is a client that left.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn serve(
    state: Rc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let asked = match *request.method() {
        Method::GET => request_of_path(request.uri().path()),
        Method::POST => Limited::new(request.into_body(), MOST_BYTES)
            .collect()
            .await
            .ok()
            .map(|body| body.to_bytes().to_vec()),
        _ => None,
    };
    let Some(asked) = asked else {
        let mut refusal = Response::new(Full::default());
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(refusal);
    };
    state.asked.set(state.asked.get() + 1);
    let mut answer = Response::new(Full::from(state.answer(&asked)));
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, OCSP_RESPONSE.parse().expect("a header value"));
    Ok(answer)
}

impl State {
    fn answer(&self, request: &[u8]) -> Vec<u8> {
        let Ok(asked) = self.authority.asked_for(request) else {
            return unsuccessful(Unsuccessful::MalformedRequest);
        };
        if !asked.our_issuer || !self.serials.borrow().contains(&asked.serial) {
            return unsuccessful(Unsuccessful::Unauthorized);
        }
        let now = SystemTime::now();
        let good = OcspAnswer {
            this_update: now,
            produced_at: now,
            next_update: Some(now + VALIDITY),
            ..OcspAnswer::good(now)
        };
        self.authority
            .respond(&good, request)
            .unwrap_or_else(|_| unsuccessful(Unsuccessful::InternalError))
    }
}

/// The OCSPRequest in the path of a GET: its last segment is base64, percent-encoded (RFC 6960
/// appendix A.1). `None` where it is not.
pub fn request_of_path(path: &str) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut rest = path.rsplit('/').next()?.as_bytes();
    while let [first, after @ ..] = rest {
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).ok()?;
                text.push(u8::from_str_radix(digits, 16).ok()?);
                rest = after;
            }
            _ => {
                text.push(*first);
                rest = after;
            }
        }
    }
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// Content type of a response.
const OCSP_RESPONSE: &str = "application/ocsp-response";

/// How long a response is valid.
const VALIDITY: Duration = Duration::from_secs(120);

/// Largest request taken.
const MOST_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_from_the_last_segment_of_a_path() {
        assert_eq!(
            request_of_path("/ocsp/aGk%2FLw%3D%3D"),
            Some(b"hi?/".to_vec())
        );
        assert_eq!(request_of_path("/aGk="), Some(b"hi".to_vec()));
        assert_eq!(request_of_path("/aGk%"), None);
        assert_eq!(request_of_path("/%zz"), None);
    }
}
