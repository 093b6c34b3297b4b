//! The worker of the egress process: takes requests from control, makes them side by side, sends the
//! answers back in pieces.
//!
//! Every request is a task with a deadline of its own, so a responder that hangs delays no other.
//! The worker keeps no state between requests but its settings, and writes no file.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::connect::Means;
use super::files::Readable;
use super::http::{self, Sink};
use super::protocol::{
    Destination, FetchError, FromWorker, Head, Request, ToWorker, decode, encode,
};
use super::socket::FrameSocket;
use crate::limits::{EGRESS_ANCHORS, EGRESS_QUEUE, EGRESS_REQUESTS};

/// Why the worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Control is gone.
    Over,
    /// The system's resolver has another configuration now, which only a new worker may read.
    Outdated,
}

/// What the machine let the worker give up.
pub(super) struct Confinement {
    /// What it did not, in words, for control, which has a log.
    pub(super) unconfined: Vec<String>,
    /// The files that are left.
    pub(super) readable: Readable,
}

/// Serves requests until control goes away.
pub(super) async fn serve(fd: OwnedFd, confinement: Confinement) -> io::Result<Ended> {
    let socket = FrameSocket::new(fd)?;
    match converse(&socket, confinement).await {
        // Control went away while something was on its way to it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Ended::Over),
        ended => ended,
    }
}

async fn converse(socket: &FrameSocket, confinement: Confinement) -> io::Result<Ended> {
    let (answers, mut queue) = mpsc::channel::<FromWorker>(EGRESS_QUEUE);
    let mut desk = Desk {
        answers,
        anchors: Vec::new(),
        means: None,
        admissions: Admissions::default(),
        tasks: JoinSet::new(),
    };
    let Confinement {
        unconfined,
        readable,
    } = confinement;
    send(socket, &FromWorker::Hello { unconfined }).await?;
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = Vec::new();
    loop {
        tokio::select! {
            received = socket.receive(&mut buffer) => {
                if received?.is_none() {
                    return Ok(Ended::Over);
                }
                let frame = decode(&buffer).map_err(io::Error::other)?;
                if let Some(reply) = desk.take(frame).map_err(io::Error::other)? {
                    send(socket, &reply).await?;
                }
            }
            Some(frame) = queue.recv() => send(socket, &frame).await?,
            Some(_) = desk.tasks.join_next() => {}
            _ = look.tick(), if desk.tasks.is_empty() => {
                if readable.has_changed() {
                    return Ok(Ended::Outdated);
                }
            }
        }
    }
}

/// Requests under way, and what they are made with.
struct Desk {
    answers: mpsc::Sender<FromWorker>,
    anchors: Vec<Vec<u8>>,
    means: Option<Arc<Means>>,
    admissions: Admissions,
    tasks: JoinSet<()>,
}

impl Desk {
    /// Handles a frame; returns what is to be said at once. An error is a mistake of control's.
    fn take(&mut self, frame: ToWorker) -> Result<Option<FromWorker>, String> {
        match frame {
            ToWorker::Anchor(der) if self.anchors.len() < EGRESS_ANCHORS => self.anchors.push(der),
            ToWorker::Anchor(_) => return Err("too many CAs".to_owned()),
            ToWorker::Settings(mut settings) => {
                settings.anchors = std::mem::take(&mut self.anchors);
                self.means = Some(Arc::new(Means::new(settings)?));
            }
            ToWorker::Admit { id, refused } => self.admissions.settle(id, refused),
            ToWorker::Fetch { id, request } => return Ok(self.fetch(id, request)),
        }
        Ok(None)
    }

    fn fetch(&mut self, id: u64, request: Request) -> Option<FromWorker> {
        let in_flight = self.tasks.len();
        let Some(means) = self.means.clone() else {
            // Meant for a predecessor, and lost with it. Nothing is asked without a policy.
            let error = FetchError::Gone;
            return Some(FromWorker::Failed { id, error });
        };
        if in_flight >= EGRESS_REQUESTS {
            let error = FetchError::Busy { in_flight };
            return Some(FromWorker::Failed { id, error });
        }
        let sink = Pieces {
            id,
            answers: self.answers.clone(),
            admissions: self.admissions.clone(),
        };
        self.tasks.spawn(answer(means, request, sink));
        None
    }
}

async fn answer(means: Arc<Means>, request: Request, mut sink: Pieces) {
    let id = sink.id;
    let last = match http::perform(&means, request, &mut sink).await {
        Ok(()) => FromWorker::End { id },
        Err(error) => FromWorker::Failed { id, error },
    };
    sink.put(last).await;
}

/// Requests that wait for control to let them connect.
#[derive(Clone, Default)]
struct Admissions(Arc<Mutex<HashMap<u64, oneshot::Sender<Option<String>>>>>);

impl Admissions {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Option<String>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, id: u64, refused: Option<String>) {
        if let Some(waiting) = self.lock().remove(&id) {
            // Its time may have run out.
            let _ = waiting.send(refused);
        }
    }
}

/// Sends the pieces of one answer. Waits while the socket to control is full.
struct Pieces {
    id: u64,
    answers: mpsc::Sender<FromWorker>,
    admissions: Admissions,
}

impl Pieces {
    async fn put(&self, frame: FromWorker) {
        // The queue is closed only when the worker ends, and with it this task.
        let _ = self.answers.send(frame).await;
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.admissions.lock().remove(&self.id);
    }
}

impl Sink for Pieces {
    async fn admit(&mut self, destination: Destination) -> Result<(), String> {
        let (said, waiting) = oneshot::channel();
        let id = self.id;
        self.admissions.lock().insert(id, said);
        self.put(FromWorker::Resolved { id, destination }).await;
        match waiting.await {
            Ok(None) => Ok(()),
            Ok(Some(reason)) => Err(reason),
            Err(_) => Err("nobody answered".to_owned()),
        }
    }

    async fn head(&mut self, head: Head) {
        self.put(FromWorker::Head { id: self.id, head }).await;
    }

    async fn chunk(&mut self, bytes: &[u8]) {
        let bytes = bytes.to_vec();
        self.put(FromWorker::Chunk { id: self.id, bytes }).await;
    }
}

async fn send(socket: &FrameSocket, frame: &FromWorker) -> io::Result<()> {
    let bytes = encode(frame).map_err(io::Error::other)?;
    socket.send(&bytes).await
}

/// Between two looks at the files of the system's resolver, while nothing is asked.
const LOOK: Duration = Duration::from_secs(2);
