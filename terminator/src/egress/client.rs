//! Control's end of the egress process: starts it, asks it, notices when it is gone.

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
    /// Starts `clinch egress` as `user`, or as the present user. Must be called within a tokio
    /// runtime and, where `user` is another one, before privileges are dropped.
    pub fn launch(user: Option<&str>) -> Result<Self, LaunchError> {
        let _ = user;
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
