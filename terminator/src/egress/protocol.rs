//! What control and the egress process say to each other.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One HTTP request to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Absolute `http://` URL.
    pub url: String,
    /// GET or POST with its body.
    pub method: Method,
    /// Value of the Accept header.
    pub accept: String,
    /// For the whole request: resolution, connect, answer.
    pub deadline: Duration,
    /// Largest body taken, bytes.
    pub limit: usize,
}

/// How the request is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// Everything is in the URL.
    Get,
    /// With a body of this content type.
    Post {
        /// Value of the Content-Type header.
        content_type: String,
        /// The body.
        body: Vec<u8>,
    },
}

/// What the server answered, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// HTTP status code.
    pub status: u16,
    /// Value of the Content-Type header.
    pub content_type: Option<String>,
    /// Value of the Cache-Control header.
    pub cache_control: Option<String>,
    /// Value of the Expires header.
    pub expires: Option<String>,
    /// Value of the ETag header.
    pub etag: Option<String>,
    /// The body, at most [`Request::limit`] bytes.
    pub body: Vec<u8>,
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum FetchError {}
