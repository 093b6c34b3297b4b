//! The admin interface: a small HTTP server on a unix socket that only its owner may open, or on a
//! loopback address.
//!
//! `GET /metrics`, `/healthz`, `/readyz`, `/status`, `/ocsp/explain?name=NAME` and `POST /reload`,
//! `/ocsp/fetch?name=NAME`. One request per connection;
//! sizes, times and the number of connections are bounded by [`limits`]. It authenticates nobody:
//! whoever may open the socket may ask and reload. The caller binds it with [`Socket::bind`] before
//! privileges are dropped and drives [`Server::run`] beside control.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::fs::Mode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use super::instance::Instance;
use super::report::Report;
use super::{health, metrics};
use crate::config::AdminAddress;
use crate::control::{Handle, ReloadError, ReloadReport, Status};
use crate::{clock, limits};

/// Where requests come in; bound and listening.
#[derive(Debug)]
pub struct Socket {
    listener: Listener,
    file: SocketFile,
}

#[derive(Debug)]
enum Listener {
    Unix(UnixListener),
    Tcp(std::net::TcpListener),
}

/// Why the admin interface cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Another process answers there.
    #[error("another process already serves the admin interface at {}; stop it, or give this one another `admin.listen`", .0.display())]
    Live(PathBuf),
    /// Something that clinch did not make is in the way.
    #[error("{} is in the way of the admin socket and is not a socket; remove it, or change `admin.listen`", .0.display())]
    NotASocket(PathBuf),
    /// The file system said no.
    #[error("the admin socket {} cannot be made: {source}; its directory must exist and be writable for the user that starts clinch", .path.display())]
    Unix {
        /// Where it should be.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("the admin interface cannot listen on {address}: {source}")]
    Tcp {
        /// Where it should be.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// Others than this machine could reach it.
    #[error(
        "the admin interface has no authentication and so listens on loopback only, not on {0}; use a unix socket or 127.0.0.1"
    )]
    NotLoopback(SocketAddr),
}

impl Socket {
    /// Binds and listens. A unix socket is made with mode 600, and replaces one that a crashed
    /// process left behind. Call it while the process has one thread: the umask is changed for it.
    pub fn bind(address: &AdminAddress) -> Result<Self, AdminError> {
        let listener = match address {
            AdminAddress::Unix(path) => Listener::Unix(bind_unix(path)?),
            AdminAddress::Tcp(address) if !address.ip().is_loopback() => {
                return Err(AdminError::NotLoopback(*address));
            }
            AdminAddress::Tcp(address) => {
                let failed = |source| AdminError::Tcp {
                    address: *address,
                    source,
                };
                Listener::Tcp(std::net::TcpListener::bind(address).map_err(failed)?)
            }
        };
        let file = SocketFile(match address {
            AdminAddress::Unix(path) => Some(path.clone()),
            AdminAddress::Tcp(_) => None,
        });
        Ok(Self { listener, file })
    }

    /// Gives the socket file to the account that the process becomes, so that it can remove it.
    pub fn hand_over(&self, uid: u32, gid: u32) -> io::Result<()> {
        match &self.file.0 {
            Some(path) => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }
}

fn bind_unix(path: &Path) -> Result<UnixListener, AdminError> {
    let failed = |source| AdminError::Unix {
        path: path.to_owned(),
        source,
    };
    clear_the_way(path)?;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    let before = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    bound.map_err(failed)
}

/// Removes a socket that nobody answers at.
fn clear_the_way(path: &Path) -> Result<(), AdminError> {
    let failed = |source| AdminError::Unix {
        path: path.to_owned(),
        source,
    };
    let kind = match std::fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !kind.is_socket() {
        return Err(AdminError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        // A full accept queue says EAGAIN: somebody is there all the same.
        _ => Err(AdminError::Live(path.to_owned())),
    }
}

/// Answers requests.
pub struct Server {
    desk: Arc<Desk>,
    socket: Socket,
}

/// What requests are answered from.
struct Desk {
    instance: Arc<Instance>,
    control: Handle,
}

impl Server {
    /// A server that is not running yet.
    pub fn new(socket: Socket, instance: Arc<Instance>, control: Handle) -> Self {
        let desk = Arc::new(Desk { instance, control });
        Self { desk, socket }
    }

    /// Serves until it is dropped; must be polled within a tokio runtime. The error is that of a
    /// socket that cannot be used at all.
    pub async fn run(self) -> io::Result<Infallible> {
        let _file = self.socket.file;
        let connections = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS));
        match self.socket.listener {
            Listener::Unix(listener) => {
                listener.set_nonblocking(true)?;
                let listener = tokio::net::UnixListener::from_std(listener)?;
                loop {
                    let permit = Arc::clone(&connections).acquire_owned().await;
                    let stream = accepted(listener.accept().await).await;
                    spawn(&self.desk, stream, permit);
                }
            }
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let listener = tokio::net::TcpListener::from_std(listener)?;
                loop {
                    let permit = Arc::clone(&connections).acquire_owned().await;
                    let stream = accepted(listener.accept().await).await;
                    spawn(&self.desk, stream, permit);
                }
            }
        }
    }
}

/// The stream, or a pause: what makes accept fail (no descriptors, mostly) does not pass at once.
async fn accepted<S, A>(result: io::Result<(S, A)>) -> Option<S> {
    match result {
        Ok((stream, _)) => Some(stream),
        Err(error) => {
            tracing::warn!(%error, "the admin interface could not accept a connection");
            tokio::time::sleep(limits::ADMIN_HEADER_TIME / 10).await;
            None
        }
    }
}

fn spawn<S, P>(desk: &Arc<Desk>, stream: Option<S>, permit: P)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    P: Send + 'static,
{
    let Some(stream) = stream else { return };
    let desk = Arc::clone(desk);
    tokio::spawn(async move {
        let service = service_fn(|request| {
            let desk = Arc::clone(&desk);
            async move { Ok::<_, Infallible>(desk.answer(&request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits::ADMIN_HEADER_TIME)
            .max_buf_size(limits::ADMIN_REQUEST_BYTES)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        // Whoever asked sees what went wrong on the connection; there is nobody else to tell.
        let _ = tokio::time::timeout(limits::ADMIN_REQUEST_TIME, connection).await;
        drop(permit);
    });
}

type Answer = Response<Full<Bytes>>;

impl Desk {
    /// What control knows; `None` when it has ended or does not answer in time.
    async fn known(&self) -> Option<Status> {
        tokio::time::timeout(limits::ADMIN_STATUS_TIME, self.control.status())
            .await
            .unwrap_or(None)
    }

    async fn answer(&self, request: &Request<Incoming>) -> Answer {
        // A page in a browser on this machine can reach a loopback address; it then says where it
        // comes from, which no tool for this interface does.
        if request.headers().contains_key(ORIGIN) {
            return text(StatusCode::FORBIDDEN, "not for browsers\n".to_owned());
        }
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/metrics") => self.metrics().await,
            (&Method::GET, "/healthz") => self.health().await,
            (&Method::GET, "/readyz") => self.ready().await,
            (&Method::GET, "/status") => self.status().await,
            (&Method::POST, "/reload") => self.reload().await,
            (&Method::GET, "/ocsp/explain") => self.explain(request.uri().query()).await,
            (&Method::POST, "/ocsp/fetch") => self.fetch(request.uri().query()).await,
            (_, "/metrics" | "/healthz" | "/readyz" | "/status" | "/ocsp/explain") => {
                not_allowed("GET")
            }
            (_, "/reload" | "/ocsp/fetch") => not_allowed("POST"),
            _ => text(StatusCode::NOT_FOUND, PATHS.to_owned()),
        }
    }

    async fn metrics(&self) -> Answer {
        let page = metrics::render(&self.instance, self.known().await, clock::now());
        content(StatusCode::OK, metrics::CONTENT_TYPE, page)
    }

    async fn health(&self) -> Answer {
        let status = self.known().await;
        verdict(&health::alive(&self.instance, status.as_ref()))
    }

    async fn ready(&self) -> Answer {
        let status = self.known().await;
        verdict(&health::ready(
            &self.instance,
            status.as_ref(),
            clock::now(),
        ))
    }

    async fn status(&self) -> Answer {
        let report = Report::of(&self.instance, self.known().await);
        json(StatusCode::OK, &report)
    }

    async fn explain(&self, query: Option<&str>) -> Answer {
        let Some(name) = name_of(query) else {
            return text(StatusCode::BAD_REQUEST, NAME_WANTED.to_owned());
        };
        match self.control.explain(name).await {
            Some(explanation) if explanation.certificates.is_empty() => {
                json(StatusCode::NOT_FOUND, &explanation)
            }
            Some(explanation) => json(StatusCode::OK, &explanation),
            None => gone(),
        }
    }

    async fn fetch(&self, query: Option<&str>) -> Answer {
        let Some(name) = name_of(query) else {
            return text(StatusCode::BAD_REQUEST, NAME_WANTED.to_owned());
        };
        match self.control.fetch(name).await {
            Some(fetched) if fetched.is_empty() => json(StatusCode::NOT_FOUND, &fetched),
            Some(fetched) => json(StatusCode::OK, &fetched),
            None => gone(),
        }
    }

    async fn reload(&self) -> Answer {
        let (status, outcome) = match self.control.reload().await {
            Ok(report) => (StatusCode::OK, ReloadOutcome::Applied(report)),
            Err(error) => {
                let status = match error {
                    ReloadError::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
                    _ => StatusCode::UNPROCESSABLE_ENTITY,
                };
                (status, ReloadOutcome::Refused(error.to_string()))
            }
        };
        json(status, &outcome)
    }
}

/// What `POST /reload` answers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReloadOutcome {
    /// The new configuration is in force.
    Applied(ReloadReport),
    /// The one before is still in force; why.
    Refused(String),
}

/// The value of `name` in a query.
fn name_of(query: Option<&str>) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(query?.as_bytes());
    let (_, name) = pairs.find(|(key, _)| key == "name")?;
    (!name.is_empty()).then(|| name.into_owned())
}

fn gone() -> Answer {
    let words = "control has ended: clinch is shutting down\n";
    text(StatusCode::SERVICE_UNAVAILABLE, words.to_owned())
}

fn verdict(verdict: &health::Verdict) -> Answer {
    let status = match verdict.is_good() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    text(status, verdict.text())
}

fn not_allowed(method: &'static str) -> Answer {
    let mut answer = text(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("only {method} is allowed here\n"),
    );
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(method));
    answer
}

fn text(status: StatusCode, body: String) -> Answer {
    content(status, "text/plain; charset=utf-8", body)
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Answer {
    match serde_json::to_string_pretty(value) {
        Ok(body) => content(status, "application/json", body + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn content(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// Removes the socket file when serving ends, so that the next start finds a clear path.
#[derive(Debug)]
struct SocketFile(Option<PathBuf>);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Without the right to the directory it stays behind, and the next start replaces it.
            let _ = std::fs::remove_file(path);
        }
    }
}

const PATHS: &str = "GET /metrics, /healthz, /readyz, /status, /ocsp/explain?name=NAME; POST /reload, /ocsp/fetch?name=NAME\n";

const NAME_WANTED: &str = "the query must be name=NAME\n";

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn unix(directory: &tempfile::TempDir) -> (PathBuf, AdminAddress) {
        let path = directory.path().join("deeper/admin.sock");
        (path.clone(), AdminAddress::Unix(path))
    }

    #[test]
    fn only_the_owner_may_open_the_socket() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, address) = unix(&directory);
        let _socket = Socket::bind(&address).expect("bound");
        let mode = std::fs::metadata(path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, address) = unix(&directory);
        std::fs::create_dir_all(path.parent().expect("has one")).expect("ours");
        drop(UnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "dropping a listener leaves its file");
        let live = Socket::bind(&address).expect("replaced");
        let error = Socket::bind(&address).expect_err("live");
        assert!(matches!(error, AdminError::Live(_)), "{error}");
        drop(live);
        assert!(!path.exists(), "removed with the socket");
    }

    #[test]
    fn what_is_not_a_socket_is_never_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("precious");
        std::fs::write(&path, "data").expect("writable");
        let error = Socket::bind(&AdminAddress::Unix(path.clone())).expect_err("in the way");
        assert!(matches!(error, AdminError::NotASocket(_)), "{error}");
        assert_eq!(std::fs::read(&path).expect("still there"), b"data");
    }

    #[test]
    fn an_address_that_others_could_reach_is_refused() {
        let address = AdminAddress::Tcp(([0, 0, 0, 0], 0).into());
        let error = Socket::bind(&address).expect_err("open to the network");
        assert!(matches!(error, AdminError::NotLoopback(_)), "{error}");
    }
}
