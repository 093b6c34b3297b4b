//! An OCSP responder that misbehaves on demand: a real HTTP server on a loopback address whose bytes
//! are written by hand, so that each can be wrong.
//!
//! The [`Mode`] may change at any time and holds for the connections taken from then on. Every
//! request is recorded. What an answer says is the test authority's business ([`Answer`]); how it is
//! carried, or not, is decided here.
//!
//! To add a misbehaviour: one variant of [`Mode`] or [`Answer`], one arm in `treat` or in
//! `Answer::bytes`, and one row in [`WRONG`], [`STUCK`] or [`ODD`].

mod answer;
mod faults;
mod http;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use rustix::net::Shutdown;

pub use answer::Answer;
use clinch::cli::demo::authority::Authority;
pub use faults::{ODD, STUCK, WRONG};

use crate::{PROMPT, eventually, place};

/// How the responder treats a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    /// Answers properly over HTTP; what it says may be wrong.
    Says(Answer),
    /// Nobody listens.
    Refused,
    /// Closes each connection as soon as it is there.
    ClosesAtOnce,
    /// Resets each connection once the request is read.
    Resets,
    /// Reads the request and never answers.
    Stuck,
    /// Answers properly, this much later.
    Slow(Duration),
    /// Answers properly, one byte after the other at this distance.
    Drips(Duration),
    /// Sends the headers and never the body.
    HangsAfterHeaders,
    /// Announces a longer body than it sends, then closes.
    ClosesInBody,
    /// A good answer under this HTTP status.
    Status(u16),
    /// A redirect to this place.
    Redirects(String),
    /// A good answer as this content type.
    ContentType(&'static str),
    /// A web page with status 200, as captive portals send.
    Html,
    /// A body of this many bytes, announced truthfully.
    Huge(u64),
    /// A body without an announced length that goes on for this many bytes.
    HugeUnannounced(u64),
    /// A good answer in chunks of this size.
    Chunked(usize),
    /// Bytes that are no HTTP at all.
    NotHttp,
    /// Header lines for this many bytes, and no end of them.
    EndlessHeaders(usize),
    /// A good answer, compressed although nobody asked for that.
    Gzip,
    /// A good answer that is longer than announced, on a connection that stays open.
    LongerThanAnnounced,
    /// A good answer, and behind it one about another certificate that nobody asked for.
    Desync,
    /// Treats the first request so, and all later ones well.
    First(&'static Mode),
}

/// A request that the responder took.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET` or `POST`.
    pub method: String,
    /// Path as sent.
    pub path: String,
    /// The OCSPRequest, DER.
    pub der: Vec<u8>,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// When it came.
    pub at: SystemTime,
}

/// A running responder.
pub struct Responder {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    authority: Arc<Authority>,
    mode: Mutex<Mode>,
    /// Requests that came under the present mode.
    under_mode: AtomicUsize,
    requests: Mutex<Vec<Request>>,
    /// While it listens.
    listener: Mutex<Option<Arc<TcpListener>>>,
    /// Connections that are open, to be ended with the responder. Only whoever serves one keeps it
    /// open, so that it can be closed, or reset, at will.
    connections: Mutex<Vec<Weak<TcpStream>>>,
}

impl Responder {
    /// A fresh address for a responder, as a URL to be written into certificates before it runs.
    pub fn place() -> (SocketAddr, String) {
        let address = place::fresh();
        (address, format!("http://{address}/ocsp"))
    }

    /// Starts at an address, saying *good* for every certificate of `authority`.
    pub fn start(address: SocketAddr, authority: Arc<Authority>) -> Self {
        let shared = Arc::new(Shared {
            authority,
            mode: Mutex::new(Mode::Says(Answer::Good)),
            under_mode: AtomicUsize::new(0),
            requests: Mutex::default(),
            listener: Mutex::default(),
            connections: Mutex::default(),
        });
        let responder = Self { address, shared };
        responder.listen();
        responder
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes how requests are treated from now on.
    pub fn set(&self, mode: Mode) {
        let refused = mode == Mode::Refused;
        *lock(&self.shared.mode) = mode;
        self.shared.under_mode.store(0, Ordering::SeqCst);
        if refused {
            self.unlisten();
        } else if lock(&self.shared.listener).is_none() {
            self.listen();
        }
    }

    /// Sets the answer of a proper exchange.
    pub fn says(&self, answer: Answer) {
        self.set(Mode::Says(answer));
    }

    /// The requests taken so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    /// How many requests were taken so far.
    pub fn count(&self) -> usize {
        lock(&self.shared.requests).len()
    }

    /// Waits until at least this many requests were taken.
    #[track_caller]
    pub fn wait_for(&self, count: usize) {
        eventually(
            &format!("{count} requests to the responder"),
            PROMPT,
            || (self.count() >= count).then_some(()),
        );
    }

    fn listen(&self) {
        // Connections of an earlier listener may still linger on this address (TIME_WAIT); the
        // standard library sets SO_REUSEADDR, so that does not hinder.
        let listener = TcpListener::bind(self.address).expect("nobody else uses this address");
        let listener = Arc::new(listener);
        *lock(&self.shared.listener) = Some(Arc::clone(&listener));
        let shared = Arc::clone(&self.shared);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let shared = Arc::clone(&shared);
                let stream = Arc::new(stream);
                lock(&shared.connections).push(Arc::downgrade(&stream));
                std::thread::spawn(move || shared.serve(&stream));
            }
        });
    }

    fn unlisten(&self) {
        if let Some(listener) = lock(&self.shared.listener).take() {
            // From here on the kernel refuses connections; `accept` ends too.
            let _ = rustix::net::shutdown(&*listener, Shutdown::Both);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.unlisten();
        let connections = std::mem::take(&mut *lock(&self.shared.connections));
        for stream in connections.iter().filter_map(Weak::upgrade) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Shared {
    /// Serves one connection, which carries one request. An I/O error means that the client left,
    /// which is its right.
    fn serve(&self, stream: &TcpStream) {
        let mode = lock(&self.mode).clone();
        if mode == Mode::ClosesAtOnce {
            return;
        }
        let Ok(request) = http::read_request(stream) else {
            return;
        };
        let der = request.der.clone();
        lock(&self.requests).push(request);
        let earlier = self.under_mode.fetch_add(1, Ordering::SeqCst);
        let mode = match mode {
            Mode::First(first) if earlier == 0 => first.clone(),
            Mode::First(_) => Mode::Says(Answer::Good),
            other => other,
        };
        let _ = self.treat(&mode, &der, stream);
        // Read to the end, so that closing does not reset an answer that is still under way.
        http::close(stream);
    }

    fn treat(&self, mode: &Mode, der: &[u8], stream: &TcpStream) -> std::io::Result<()> {
        let good = || Answer::Good.bytes(&self.authority, der);
        match mode {
            Mode::Refused | Mode::ClosesAtOnce => Ok(()),
            Mode::Says(answer) => http::ok(stream, &answer.bytes(&self.authority, der)),
            Mode::Resets => http::reset(stream),
            Mode::Stuck => http::wait_for_close(stream),
            Mode::Slow(delay) => {
                std::thread::sleep(*delay);
                http::ok(stream, &good())
            }
            Mode::Drips(pause) => http::drip(stream, &good(), *pause),
            Mode::HangsAfterHeaders => {
                http::head(stream, "200 OK", http::OCSP, Some(900))?;
                http::wait_for_close(stream)
            }
            Mode::ClosesInBody => {
                let body = good();
                http::head(stream, "200 OK", http::OCSP, Some(body.len() as u64 + 100))?;
                http::body(stream, &body)
            }
            Mode::Status(code) => {
                let body = good();
                http::head(
                    stream,
                    &format!("{code} Answer"),
                    http::OCSP,
                    Some(body.len() as u64),
                )?;
                http::body(stream, &body)
            }
            Mode::Redirects(to) => http::redirect(stream, to),
            Mode::ContentType(kind) => {
                let body = good();
                http::head(stream, "200 OK", kind, Some(body.len() as u64))?;
                http::body(stream, &body)
            }
            Mode::Html => {
                let page = b"<!DOCTYPE html><title>Sign in</title>";
                http::head(
                    stream,
                    "200 OK",
                    "text/html; charset=utf-8",
                    Some(page.len() as u64),
                )?;
                http::body(stream, page)
            }
            Mode::Huge(size) => {
                http::head(stream, "200 OK", http::OCSP, Some(*size))?;
                http::zeroes(stream, *size)
            }
            Mode::HugeUnannounced(size) => {
                http::head(stream, "200 OK", http::OCSP, None)?;
                http::zeroes(stream, *size)
            }
            Mode::Chunked(size) => http::chunked(stream, &good(), *size),
            other => self.treat_oddly(other, der, stream),
        }
    }

    /// The further misbehaviours in the way an answer is carried.
    fn treat_oddly(&self, mode: &Mode, der: &[u8], stream: &TcpStream) -> std::io::Result<()> {
        let says = |answer: Answer| answer.bytes(&self.authority, der);
        match mode {
            Mode::NotHttp => http::body(stream, b"220 mail.example ESMTP\r\n"),
            Mode::EndlessHeaders(size) => http::headers_without_end(stream, *size),
            Mode::Gzip => {
                let body = http::gzip(&says(Answer::Good));
                http::ok_with(stream, "content-encoding: gzip\r\n", &body)
            }
            Mode::LongerThanAnnounced => {
                let body = says(Answer::Good);
                let (announced, rest) = body.split_at(body.len() - 100);
                http::ok_with(stream, "connection: keep-alive\r\n", announced)?;
                http::body(stream, rest)?;
                http::wait_for_close(stream)
            }
            Mode::Desync => {
                let keep = "connection: keep-alive\r\n";
                http::ok_with(stream, keep, &says(Answer::Good))?;
                http::ok_with(stream, keep, &says(Answer::WrongSerial))?;
                http::wait_for_close(stream)
            }
            plain => unreachable!("{plain:?} is treated in `treat`"),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
