//! The worker of the egress process: takes requests from control, makes them side by side, sends the
//! answers back in pieces.
//!
//! Every request is a task with a deadline of its own, so a responder that hangs delays no other.
//! The worker keeps no state between requests and writes no file.

use std::io;
use std::os::fd::OwnedFd;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::http::{self, Sink};
use super::protocol::{FetchError, FromWorker, Head, Request, ToWorker, decode, encode};
use super::socket::FrameSocket;
use crate::limits::{EGRESS_QUEUE, EGRESS_REQUESTS};

/// Serves requests until control goes away. `unfiltered` is passed on to control, which has a log.
pub(super) async fn serve(fd: OwnedFd, unfiltered: Option<String>) -> io::Result<()> {
    let socket = FrameSocket::new(fd)?;
    match converse(&socket, unfiltered).await {
        // Control went away while something was on its way to it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        ended => ended,
    }
}

async fn converse(socket: &FrameSocket, unfiltered: Option<String>) -> io::Result<()> {
    let (answers, mut queue) = mpsc::channel::<FromWorker>(EGRESS_QUEUE);
    let mut tasks = JoinSet::new();
    send(socket, &FromWorker::Hello { unfiltered }).await?;
    let mut buffer = Vec::new();
    loop {
        tokio::select! {
            received = socket.receive(&mut buffer) => {
                if received?.is_none() {
                    return Ok(());
                }
                let ToWorker::Fetch { id, request } = decode(&buffer).map_err(io::Error::other)?;
                let in_flight = tasks.len();
                let answers = answers.clone();
                if in_flight < EGRESS_REQUESTS {
                    tasks.spawn(answer(id, request, answers));
                } else {
                    let error = FetchError::Busy { in_flight };
                    send(socket, &FromWorker::Failed { id, error }).await?;
                }
            }
            Some(frame) = queue.recv() => send(socket, &frame).await?,
            Some(_) = tasks.join_next() => {}
        }
    }
}

async fn answer(id: u64, request: Request, answers: mpsc::Sender<FromWorker>) {
    let mut sink = Pieces { id, answers };
    let last = match http::perform(request, &mut sink).await {
        Ok(()) => FromWorker::End { id },
        Err(error) => FromWorker::Failed { id, error },
    };
    sink.put(last).await;
}

/// Sends the pieces of one answer. Waits while the socket to control is full.
struct Pieces {
    id: u64,
    answers: mpsc::Sender<FromWorker>,
}

impl Pieces {
    async fn put(&self, frame: FromWorker) {
        // The queue is closed only when the worker ends, and with it this task.
        let _ = self.answers.send(frame).await;
    }
}

impl Sink for Pieces {
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
