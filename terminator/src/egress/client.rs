//! Control's end of the egress process: starts it, asks it, notices when it is gone.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::protocol::{FetchError, Request, Response};

/// A running egress process. Clones share it.
#[derive(Clone)]
pub struct Client {}

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
pub enum LaunchError {}

impl Client {
    /// Starts `PROGRAM egress` ([`SELF`]) as `user`, or as the present user. Must be called within a tokio
    /// runtime and, where `user` is another one, before privileges are dropped.
    pub fn launch(program: &Path, user: Option<&str>) -> Result<Self, LaunchError> {
        let _ = (program, user);
        todo!()
    }

    /// Makes one request. Ends at [`Request::deadline`] at the latest, whatever the process does.
    pub async fn fetch(&self, request: Request) -> Result<Response, FetchError> {
        let _ = request;
        todo!()
    }

    /// Whether requests can be made.
    pub fn state(&self) -> State {
        todo!()
    }
}

/// The running program itself, even when its file was replaced or lies where the user of the
/// egress process may not look (proc(5)).
pub const SELF: &str = "/proc/self/exe";
