//! Control's end of the egress process: starts it, asks it, notices when it is gone.
//!
//! Answers are put together here and held to their bound. What they say is not judged.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::protocol::{
    Destination, FetchError, FrameError, FromWorker, Head, Request, Response, ToWorker, decode,
    encode,
};
use super::settings::Settings;
use super::socket::{self, FrameSocket};
use crate::limits::{EGRESS_ADMISSIONS, EGRESS_GRACE, EGRESS_LONGEST_PAUSE};
use crate::observability::counters::FetchCounters;
use crate::sys::privileges::{self, Account, PrivilegeError};

/// A running egress process. Clones share it; it ends with the last of them.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    _reader: Arc<Reader>,
}

/// How the egress process is started.
pub struct Launch<'a> {
    /// Started as `PROGRAM egress`: [`SELF`], except in tests.
    pub program: &'a Path,
    /// Whom it becomes; `None`: the present user.
    pub user: Option<&'a str>,
    /// What it is told first, and again whenever it is replaced.
    pub settings: Settings,
    /// Where refusals are counted.
    pub counters: Arc<FetchCounters>,
}

/// A connection that waits to be let through.
#[derive(Debug)]
pub struct Pending {
    /// Where it would go.
    pub destination: Destination,
    answer: oneshot::Sender<Option<String>>,
}

impl Pending {
    /// It may be made, to these addresses and this port.
    pub fn admit(self) {
        // Its time may have run out.
        let _ = self.answer.send(None);
    }

    /// It must not be made. The reason goes into the fetch's error.
    pub fn refuse(self, reason: String) {
        let _ = self.answer.send(Some(reason));
    }
}

/// Whether requests can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Started, and not heard of yet.
    Starting,
    /// A worker said that it is there.
    Ready,
    /// The process is gone, and cannot be started again with the privileges that are left.
    Gone,
}

/// Why the egress process cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The user does not exist.
    #[error("`egress.user`: {0}")]
    User(#[from] PrivilegeError),
    /// Only root may start a process of another user.
    #[error(
        "the egress process cannot become user \"{user}\": clinch was not started as root; start it as root, or leave `egress.user` out of the configuration"
    )]
    NotRoot {
        /// Who it should become.
        user: String,
    },
    /// The kernel refused.
    #[error("the egress process {program} cannot be started ({step}: {reason})")]
    System {
        /// What was to be executed.
        program: PathBuf,
        /// The call.
        step: &'static str,
        /// The kernel's reason.
        reason: io::Error,
    },
}

impl Client {
    /// Starts the process. Must be called within a tokio runtime and, where the user is another one,
    /// before privileges are dropped.
    pub fn launch(launch: Launch<'_>) -> Result<Self, LaunchError> {
        let plan = Plan {
            program: launch.program.to_owned(),
            user: launch.user.map(str::to_owned),
        };
        let running = plan.start()?;
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner {
                socket: Some(Arc::clone(&running.socket)),
                waiting: HashMap::new(),
                next_id: 1,
                settings: launch.settings,
                gate: None,
            }),
            state: watch::Sender::new(State::Starting),
            workers: watch::Sender::new(0),
            counters: launch.counters,
            sending: tokio::sync::Mutex::new(()),
        });
        let task = tokio::spawn(watch_over(plan, running, Arc::clone(&shared)));
        let reader = Reader {
            task: task.abort_handle(),
            shared: Arc::clone(&shared),
        };
        Ok(Self {
            shared,
            _reader: Arc::new(reader),
        })
    }

    /// From now on works by these settings. Requests under way end as they began.
    pub async fn set(&self, settings: Settings) {
        self.shared.lock().settings = settings;
        self.shared.send_settings().await;
    }

    /// From the next request on, each connection waits until the receiver of its [`Pending`] lets it
    /// through; dropped, it is refused. For a firewall that is opened for what is needed.
    pub async fn gate(&self) -> mpsc::Receiver<Pending> {
        let (gate, pending) = mpsc::channel(EGRESS_ADMISSIONS);
        self.shared.lock().gate = Some(gate);
        self.shared.send_settings().await;
        pending
    }

    /// Makes one request. Ends soon after [`Request::deadline`] at the latest, whatever the process
    /// does.
    pub async fn fetch(&self, request: Request) -> Result<Response, FetchError> {
        let patience = request.deadline + EGRESS_GRACE;
        let result = tokio::time::timeout(patience, self.exchange(request)).await;
        let result = result.unwrap_or(Err(FetchError::Silent));
        if let Some(refusal) = result.as_ref().err().and_then(FetchError::refusal) {
            self.shared.counters.egress_refused.one(refusal);
        }
        result
    }

    async fn exchange(&self, request: Request) -> Result<Response, FetchError> {
        // A worker that was just started does not know its settings yet.
        let mut state = self.shared.state.subscribe();
        let there = state.wait_for(|state| *state != State::Starting).await;
        if !there.is_ok_and(|state| *state == State::Ready) {
            return Err(FetchError::Gone);
        }
        let limit = request.limit;
        let (done, answer) = oneshot::channel();
        let (id, socket) = {
            let mut inner = self.shared.lock();
            let socket = inner.socket.clone().ok_or(FetchError::Gone)?;
            let id = inner.next_id;
            inner.next_id += 1;
            inner.waiting.insert(id, Waiting::new(limit, done));
            (id, socket)
        };
        let _registered = Registered {
            id,
            shared: &self.shared,
        };
        let bytes = match encode(&ToWorker::Fetch { id, request }) {
            Ok(bytes) => bytes,
            Err(FrameError::TooLong { bytes }) => {
                return Err(FetchError::RequestTooLarge { bytes });
            }
            Err(FrameError::Malformed(_)) => return Err(FetchError::Gone),
        };
        socket.send(&bytes).await.map_err(|_| FetchError::Gone)?;
        answer.await.unwrap_or(Err(FetchError::Gone))
    }

    /// Whether requests can be made.
    pub fn state(&self) -> State {
        *self.shared.state.borrow()
    }

    /// Counts the workers that said that they are there. Above one, each is a crash of its
    /// predecessor.
    pub fn workers(&self) -> watch::Receiver<u64> {
        self.shared.workers.subscribe()
    }
}

/// Takes a request out of the table however its caller leaves.
struct Registered<'a> {
    id: u64,
    shared: &'a Shared,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.shared.lock().waiting.remove(&self.id);
    }
}

struct Shared {
    /// Never held across an await.
    inner: Mutex<Inner>,
    state: watch::Sender<State>,
    workers: watch::Sender<u64>,
    counters: Arc<FetchCounters>,
    /// Held while settings are sent, which takes several frames.
    sending: tokio::sync::Mutex<()>,
}

struct Inner {
    socket: Option<Arc<FrameSocket>>,
    waiting: HashMap<u64, Waiting>,
    next_id: u64,
    settings: Settings,
    gate: Option<mpsc::Sender<Pending>>,
}

/// A request without its answer. Dropped, its caller gets [`FetchError::Gone`].
struct Waiting {
    limit: usize,
    head: Option<Head>,
    body: Vec<u8>,
    done: oneshot::Sender<Result<Response, FetchError>>,
}

impl Waiting {
    fn new(limit: usize, done: oneshot::Sender<Result<Response, FetchError>>) -> Self {
        Self {
            limit,
            head: None,
            body: Vec::new(),
            done,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames for requests that nobody waits for any more are ignored.
    async fn take_frame(&self, frame: FromWorker) {
        match frame {
            FromWorker::Hello { unconfined } => {
                for reason in unconfined {
                    tracing::warn!(event = "egress_unconfined", "{reason}");
                }
                self.state.send_replace(State::Starting);
                // What a worker replaces has taken its requests with it.
                self.lock().waiting.clear();
                self.send_settings().await;
                self.state.send_replace(State::Ready);
                self.workers.send_modify(|count| *count += 1);
            }
            FromWorker::Resolved { id, destination } => self.ask_gate(id, destination),
            FromWorker::Head { id, head } => {
                if let Some(waiting) = self.lock().waiting.get_mut(&id) {
                    waiting.head = Some(head);
                }
            }
            FromWorker::Chunk { id, bytes } => self.lock().append(id, &bytes),
            FromWorker::End { id } => self.lock().finish(id),
            FromWorker::Failed { id, error } => self.lock().settle(id, Err(error)),
        }
    }

    /// Tells the worker how to work. Where that fails the process is gone, and its successor is told.
    async fn send_settings(&self) {
        let _alone = self.sending.lock().await;
        let (socket, settings) = {
            let inner = self.lock();
            let mut settings = inner.settings.clone();
            settings.announce = inner.gate.is_some();
            (inner.socket.clone(), settings)
        };
        let Some(socket) = socket else {
            return;
        };
        let anchors = settings.anchors.iter().cloned().map(ToWorker::Anchor);
        let frames = anchors.collect::<Vec<_>>().into_iter();
        for frame in frames.chain([ToWorker::Settings(settings)]) {
            let sent = match encode(&frame) {
                Ok(bytes) => socket.send(&bytes).await.is_ok(),
                Err(error) => {
                    tracing::error!(event = "egress_settings", "{error}; `egress` is too long");
                    false
                }
            };
            if !sent {
                return;
            }
        }
    }

    /// Has a connection wait for whoever took the [`Client::gate`].
    fn ask_gate(&self, id: u64, destination: Destination) {
        let (socket, gate) = {
            let inner = self.lock();
            (inner.socket.clone(), inner.gate.clone())
        };
        let Some(socket) = socket else {
            return;
        };
        let (answer, answered) = oneshot::channel();
        let pending = Pending {
            destination,
            answer,
        };
        if let Some(gate) = gate {
            // Where it is full, `pending` is dropped, which refuses.
            let _ = gate.try_send(pending);
        } else {
            pending.admit();
        }
        tokio::spawn(async move {
            let unanswered = Some("nobody opens the firewall".to_owned());
            let refused = answered.await.unwrap_or(unanswered);
            if let Ok(bytes) = encode(&ToWorker::Admit { id, refused }) {
                // A process that is gone needs no answer.
                let _ = socket.send(&bytes).await;
            }
        });
    }

    fn end(&self, state: State) {
        let mut inner = self.lock();
        inner.socket = None;
        inner.waiting.clear();
        drop(inner);
        self.state.send_replace(state);
    }
}

impl Inner {
    /// The worker holds bodies to their bound; this holds the worker to it.
    fn append(&mut self, id: u64, bytes: &[u8]) {
        let Some(waiting) = self.waiting.get_mut(&id) else {
            return;
        };
        let limit = waiting.limit;
        if waiting.body.len() + bytes.len() > limit {
            self.settle(id, Err(FetchError::TooLarge { limit }));
        } else {
            waiting.body.extend_from_slice(bytes);
        }
    }

    fn finish(&mut self, id: u64) {
        let Some(waiting) = self.waiting.get_mut(&id) else {
            return;
        };
        let body = std::mem::take(&mut waiting.body);
        let result = match waiting.head.take() {
            Some(head) => Ok(Response { head, body }),
            None => Err(FetchError::Http {
                reason: "the egress process passed on no status".to_owned(),
            }),
        };
        self.settle(id, result);
    }

    fn settle(&mut self, id: u64, result: Result<Response, FetchError>) {
        if let Some(waiting) = self.waiting.remove(&id) {
            // The caller may have gone in the meantime.
            let _ = waiting.done.send(result);
        }
    }
}

/// Ends the process with the last [`Client`].
struct Reader {
    task: AbortHandle,
    shared: Arc<Shared>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(socket) = self.shared.lock().socket.take() {
            socket.close();
        }
        self.task.abort();
    }
}

/// How the process is started, the first time and again.
struct Plan {
    program: PathBuf,
    user: Option<String>,
}

struct Running {
    socket: Arc<FrameSocket>,
    child: Child,
}

impl Plan {
    fn start(&self) -> Result<Running, LaunchError> {
        if let Some(user) = &self.user {
            let account = Account::find(user)?;
            if !privileges::is_root() && account.uid != rustix::process::geteuid().as_raw() {
                return Err(LaunchError::NotRoot { user: user.clone() });
            }
        }
        let failed = |step| {
            move |reason| LaunchError::System {
                program: self.program.clone(),
                step,
                reason,
            }
        };
        let (ours, theirs) = socket::pair().map_err(failed("socketpair"))?;
        let socket = FrameSocket::new(ours).map_err(failed("preparing the socket"))?;
        let mut command = Command::new(&self.program);
        command.arg("egress");
        // Nobody but root can change users, and nobody else needs to.
        if let Some(user) = self.user.as_ref().filter(|_| privileges::is_root()) {
            command.args(["--user", user]);
        }
        let child = command
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            // A Ctrl-C at the terminal is for control, which ends the process when it is done.
            .process_group(0)
            .spawn()
            .map_err(failed("exec"))?;
        Ok(Running {
            socket: Arc::new(socket),
            child,
        })
    }
}

/// Reads frames; when the process is gone, starts it again as far as the privileges reach.
async fn watch_over(plan: Plan, mut running: Running, shared: Arc<Shared>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let heard = read_frames(&running.socket, &shared).await;
        if heard {
            pause = FIRST_PAUSE;
        }
        running.socket.close();
        shared.end(State::Starting);
        let ended = running.child.wait().await;
        let ended = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
        tracing::error!(
            event = "egress_ended",
            "the egress process ended ({ended}); no responder can be asked until it is back"
        );
        running = loop {
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(EGRESS_LONGEST_PAUSE);
            match plan.start() {
                Ok(running) => break running,
                Err(error @ (LaunchError::NotRoot { .. } | LaunchError::User(_))) => {
                    tracing::error!(
                        event = "egress_lost",
                        "{error}; staples are no longer refreshed, restart clinch"
                    );
                    shared.end(State::Gone);
                    return;
                }
                Err(error) => tracing::error!(event = "egress_start_failed", "{error}"),
            }
        };
        shared.lock().socket = Some(Arc::clone(&running.socket));
    }
}

/// Returns when the other end is gone; true if anything was heard of it.
async fn read_frames(socket: &FrameSocket, shared: &Shared) -> bool {
    let mut buffer = Vec::new();
    let mut heard = false;
    while let Ok(Some(())) = socket.receive(&mut buffer).await {
        match decode(&buffer) {
            Ok(frame) => shared.take_frame(frame).await,
            Err(error) => {
                tracing::error!(
                    event = "egress_protocol",
                    "{error}; ending the egress process"
                );
                return heard;
            }
        }
        heard = true;
    }
    heard
}

/// The running program itself, even when its file was replaced or lies where the user of the
/// egress process may not look (proc(5)).
pub const SELF: &str = "/proc/self/exe";

/// Before a lost process is started again for the first time; doubled each time after.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
