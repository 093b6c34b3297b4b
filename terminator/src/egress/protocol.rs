//! What control and the egress process say to each other.
//!
//! One frame is one message of a `SOCK_SEQPACKET` socket pair, at most [`EGRESS_FRAME_BYTES`] long, encoded
//! with postcard. A request fits one frame; an answer is a head, then chunks of the body, then an
//! end, so that a body may be larger than a frame; or, at any point, a failure. Frames of different
//! requests interleave. Both ends are the same program, so the encoding carries no version.
//!
//! This module encodes, decodes and bounds; it sends nothing. Whoever receives an answer must hold
//! its body to [`Request::limit`] and must not believe anything in it before it was verified.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::EGRESS_FRAME_BYTES;

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
    /// What is there already: the server may then answer with status 304 and no body.
    pub known: Validators,
}

/// What names the version of an answer (RFC 9110 section 8.8), as the server wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    /// Value of the ETag header, for If-None-Match.
    pub etag: Option<String>,
    /// Value of the Last-Modified header, for If-Modified-Since.
    pub last_modified: Option<String>,
}

impl Validators {
    /// True where a server can be asked whether there is something newer.
    pub fn are_there(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }
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
    /// Status line and the headers that matter.
    pub head: Head,
    /// The body, at most [`Request::limit`] bytes.
    pub body: Vec<u8>,
}

/// The part of an answer before its body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// HTTP status code.
    pub status: u16,
    /// Value of the Content-Type header.
    pub content_type: Option<String>,
    /// Value of the Cache-Control header.
    pub cache_control: Option<String>,
    /// Value of the Expires header.
    pub expires: Option<String>,
    /// Value of the Age header: seconds that caches on the way kept the answer.
    pub age: Option<String>,
    /// Value of the Date header: what the server believes the time to be.
    pub date: Option<String>,
    /// Values of the ETag and Last-Modified headers.
    pub validators: Validators,
    /// Who answered.
    pub address: Option<SocketAddr>,
    /// How long each stage before the body took, in order.
    pub stages: Vec<(Stage, Duration)>,
}

/// The part of a request during which its time ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Looking up the host name.
    Resolve,
    /// Connecting.
    Connect,
    /// From the request to the status line and headers.
    Answer,
    /// Reading the body.
    Body,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "while its name was looked up",
            Self::Connect => "while connecting",
            Self::Answer => "while waiting for its answer",
            Self::Body => "in the middle of its answer",
        })
    }
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum FetchError {
    /// The URL does not parse or names no host.
    #[error("\"{url}\" is not a usable URL: {reason}")]
    Url {
        /// As given.
        url: String,
        /// The parser's reason.
        reason: String,
    },
    /// Only http is spoken: an OCSP response and a CRL carry their own signature, and https would
    /// need a revocation check in order to make one (RFC 5280 section 8).
    #[error(
        "\"{scheme}\" responders are not asked, only http ones; set `ocsp.responder` of the site to an http:// URL"
    )]
    Scheme {
        /// The scheme of the URL.
        scheme: String,
    },
    /// The request is longer than a frame.
    #[error(
        "the request takes {bytes} bytes, more than the {EGRESS_FRAME_BYTES} that are possible"
    )]
    RequestTooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The host name has no address.
    #[error("the name {host} cannot be resolved ({reason}); check DNS on this machine")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's reason.
        reason: String,
    },
    /// None of the addresses took the connection.
    #[error(
        "cannot connect to {host} ({reason}); check the route and the firewall for the user of the egress process"
    )]
    Connect {
        /// Host and port.
        host: String,
        /// The reason for each address that was tried.
        reason: String,
    },
    /// The time for the whole request ran out.
    #[error("the responder took longer than {after:?}, {stage}")]
    TimedOut {
        /// The deadline of the request.
        after: Duration,
        /// What it was doing.
        stage: Stage,
    },
    /// The body is larger than asked for.
    #[error("the answer is larger than the {limit} bytes taken")]
    TooLarge {
        /// The bound.
        limit: usize,
    },
    /// The peer does not speak HTTP, or the connection broke before the answer was whole.
    #[error("the answer is not complete HTTP: {reason}")]
    Http {
        /// The parser's reason.
        reason: String,
    },
    /// More requests at once than the egress process takes.
    #[error("the egress process is busy with {in_flight} requests")]
    Busy {
        /// How many it has.
        in_flight: usize,
    },
    /// The egress process did not answer in time, though it must.
    #[error("the egress process does not answer")]
    Silent,
    /// The egress process ended while the request was under way, or cannot be started.
    #[error("the egress process is not there")]
    Gone,
}

/// From control to the worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ToWorker {
    /// Make this request.
    Fetch {
        /// Named in every frame of the answer. Never used twice.
        id: u64,
        /// The request.
        request: Request,
    },
}

/// From the worker to control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FromWorker {
    /// The first frame of a new worker: whatever was asked of an earlier one is lost.
    Hello {
        /// Why its system calls could not be limited, in words, if so.
        unfiltered: Option<String>,
    },
    /// An answer begins.
    Head {
        /// Of the request.
        id: u64,
        /// Status and headers.
        head: Head,
    },
    /// The body goes on.
    Chunk {
        /// Of the request.
        id: u64,
        /// At most [`EGRESS_CHUNK_BYTES`].
        bytes: Vec<u8>,
    },
    /// The answer is whole.
    End {
        /// Of the request.
        id: u64,
    },
    /// There is no answer, or no more of it.
    Failed {
        /// Of the request.
        id: u64,
        /// Why.
        error: FetchError,
    },
}

/// A frame that cannot be sent or was not understood.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// Longer than [`EGRESS_FRAME_BYTES`].
    #[error("a frame of {bytes} bytes is longer than {EGRESS_FRAME_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not what the other end of this protocol writes.
    #[error("a frame does not parse: {0}")]
    Malformed(#[from] postcard::Error),
}

/// Encodes one frame.
pub(super) fn encode<T: Serialize>(frame: &T) -> Result<Vec<u8>, FrameError> {
    let bytes = postcard::to_stdvec(frame)?;
    if bytes.len() > EGRESS_FRAME_BYTES {
        return Err(FrameError::TooLong { bytes: bytes.len() });
    }
    Ok(bytes)
}

/// Decodes one frame.
pub(super) fn decode<'a, T: Deserialize<'a>>(frame: &'a [u8]) -> Result<T, FrameError> {
    Ok(postcard::from_bytes(frame)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::EGRESS_CHUNK_BYTES;

    #[test]
    fn a_full_chunk_fits_a_frame() {
        let chunk = FromWorker::Chunk {
            id: u64::MAX,
            bytes: vec![0xff; EGRESS_CHUNK_BYTES],
        };
        let frame = encode(&chunk).expect("fits");
        assert_eq!(decode::<FromWorker>(&frame).expect("decodes"), chunk);
    }

    #[test]
    fn a_request_longer_than_a_frame_is_not_encoded() {
        let request = Request {
            url: "u".repeat(EGRESS_FRAME_BYTES),
            method: Method::Get,
            accept: String::new(),
            deadline: Duration::from_secs(1),
            limit: 1,
            known: Validators::default(),
        };
        assert!(matches!(
            encode(&ToWorker::Fetch { id: 1, request }),
            Err(FrameError::TooLong { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode::<FromWorker>(&bytes);
            let _ = decode::<ToWorker>(&bytes);
        }
    }
}
