//! The way from other tasks to control: a bounded channel of commands, each with its answer.

use tokio::sync::{mpsc, oneshot};

use super::explain::Explanation;
use super::inquiry::Fetched;
use super::reload::{ReloadError, ReloadReport};
use super::status::Status;
use crate::limits::CONTROL_COMMANDS;

/// Talks to a [`super::Control`] from other tasks. Its answers come only while
/// [`super::Control::first_fetch`] or [`super::Control::run`] is polled.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
}

/// What control is asked to do.
pub(super) enum Command {
    Status(oneshot::Sender<Status>),
    /// Answered with one receiver for each certificate of that name.
    Fetch(String, oneshot::Sender<Vec<oneshot::Receiver<Fetched>>>),
    Explain(String, oneshot::Sender<Explanation>),
    Reload(oneshot::Sender<Result<ReloadReport, ReloadError>>),
    Shutdown,
}

impl Handle {
    /// A handle, and control's end of it.
    pub(super) fn new() -> (Self, mpsc::Receiver<Command>) {
        let (commands, received) = mpsc::channel(CONTROL_COMMANDS);
        (Self { commands }, received)
    }

    /// The present state of everything control knows. `None` when control has ended.
    pub async fn status(&self) -> Option<Status> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Status(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Asks now, whatever is planned, about the certificates that a name stands for (none: there is
    /// no such name), and says what came of it, step by step. `None` when control has ended; what a
    /// reload overtakes is left out.
    pub async fn fetch(&self, name: String) -> Option<Vec<Fetched>> {
        let (answer, answered) = oneshot::channel();
        let sent = self.commands.send(Command::Fetch(name, answer)).await;
        sent.ok()?;
        let mut fetched = Vec::new();
        for one in answered.await.ok()? {
            fetched.extend(one.await.ok());
        }
        Some(fetched)
    }

    /// Why a name does or does not get a staple. `None` when control has ended.
    pub async fn explain(&self, name: String) -> Option<Explanation> {
        let (answer, answered) = oneshot::channel();
        let sent = self.commands.send(Command::Explain(name, answer)).await;
        sent.ok()?;
        answered.await.ok()
    }

    /// Reads configuration and files again. Concurrent calls are served one after the other.
    pub async fn reload(&self) -> Result<ReloadReport, ReloadError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.commands.send(Command::Reload(answer)).await;
        sent.map_err(|_| ReloadError::ShuttingDown)?;
        answered.await.unwrap_or(Err(ReloadError::ShuttingDown))
    }

    /// Ends [`super::Control::run`]; returns when it has ended. The egress process ends with it.
    pub async fn shutdown(&self) {
        // An error says that it has ended already.
        let _ = self.commands.send(Command::Shutdown).await;
        self.commands.closed().await;
    }
}
