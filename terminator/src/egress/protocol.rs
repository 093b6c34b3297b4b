//! What control and the egress process say to each other.
//!
//! One frame is one message of a `SOCK_SEQPACKET` socket pair, at most [`EGRESS_FRAME_BYTES`] long, encoded
//! with postcard. A request fits one frame; an answer is a head, then chunks of the body, then an
//! end, so that a body may be larger than a frame; or, at any point, a failure. Frames of different
//! requests interleave. Both ends are the same program, so the encoding carries no version.
//!
//! Before anything else a worker is told its [`Settings`]. Where they say so, it reports what a host
//! was found to be ([`Destination`]) and connects only when control agrees: a firewall can be opened
//! in between, for these addresses and this port alone.
//!
//! This module encodes, decodes and bounds; it sends nothing. Whoever receives an answer must hold
//! its body to [`Request::limit`] and must not believe anything in it before it was verified.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::policy::{Class, NamedBy};
use super::settings::Settings;
use crate::limits::EGRESS_FRAME_BYTES;
use crate::observability::counters::EgressRefusal;

/// One HTTP request to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Absolute `http://` or `https://` URL.
    pub url: String,
    /// Who chose it.
    pub named_by: NamedBy,
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

/// A host and what it was found to be, before it is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Name or address: the responder's, or the proxy's where there is one.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The addresses that pass the policy, in the order in which they will be tried; none other is.
    /// At least one, at most [`EGRESS_ADDRESSES`](crate::limits::EGRESS_ADDRESSES).
    pub addresses: Vec<IpAddr>,
    /// For how long DNS says so, within the bounds of `egress.ttl_min` and `egress.ttl_max`. `None`
    /// where that is not known: the system looked up, or the host is an address.
    pub ttl: Option<Duration>,
}

/// The part of a request during which its time ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Looking up the host name.
    Resolve,
    /// While control decides about the addresses.
    Admit,
    /// Connecting, through the proxy if there is one.
    Connect,
    /// The TLS handshake.
    Secure,
    /// From the request to the status line and headers.
    Answer,
    /// Reading the body.
    Body,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "while its name was looked up",
            Self::Admit => "while its addresses were let through",
            Self::Connect => "while connecting",
            Self::Secure => "during the TLS handshake",
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
    /// Neither http nor https.
    #[error(
        "\"{scheme}\" responders are not asked, only http and https ones; set `ocsp.responder` of the site to the URL of such a one"
    )]
    Scheme {
        /// The scheme of the URL.
        scheme: String,
    },
    /// https, which the configuration does not want.
    #[error(
        "https responders are not asked, because `egress.https` is false; change that, or set `ocsp.responder` to an http:// URL"
    )]
    HttpsOff,
    /// A user name or password in the URL.
    #[error(
        "the URL has a user name in it, which a responder's never has; set `ocsp.responder` to a URL without"
    )]
    Credentials,
    /// A host in a form that programs understand differently.
    #[error(
        "\"{host}\" is not plainly a host name or an address, so it is not asked; set `ocsp.responder` to a URL with a plain one"
    )]
    Host {
        /// As given, shortened.
        host: String,
    },
    /// A port that the operator did not allow.
    #[error(
        "responders at port {port} are not asked; if this one is right, add {port} to `egress.ports`"
    )]
    Port {
        /// The port of the URL.
        port: u16,
    },
    /// Every address of the host is one that the operator did not allow.
    #[error(
        "{host} has the address {address}, {class}, where no responder is asked; if it is a private CA's, add the network to `egress.allow`"
    )]
    Address {
        /// The host of the URL.
        host: String,
        /// The first of its addresses.
        address: IpAddr,
        /// What is wrong with it.
        class: Class,
    },
    /// Control, which was asked before connecting, said no.
    #[error("{host} may not be connected to: {reason}")]
    Refused {
        /// The host that was found.
        host: String,
        /// Control's reason.
        reason: String,
    },
    /// The server's certificate was not accepted, or TLS failed otherwise.
    #[error(
        "no TLS connection to {host} ({reason}); if its CA is your own, name it in `egress.trust`"
    )]
    Tls {
        /// The host of the URL.
        host: String,
        /// The reason.
        reason: String,
    },
    /// The proxy did not connect through.
    #[error(
        "the proxy {proxy} does not connect to {host} ({reason}); check its rules and `egress.proxy`"
    )]
    Proxy {
        /// The proxy.
        proxy: String,
        /// Where it was to connect to.
        host: String,
        /// What it answered.
        reason: String,
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

impl FetchError {
    /// The rule of the egress policy that was broken, if that is why.
    pub fn refusal(&self) -> Option<EgressRefusal> {
        match self {
            Self::Url { .. } => Some(EgressRefusal::Url),
            Self::Scheme { .. } | Self::HttpsOff => Some(EgressRefusal::Scheme),
            Self::Credentials => Some(EgressRefusal::Credentials),
            Self::Host { .. } => Some(EgressRefusal::Host),
            Self::Port { .. } => Some(EgressRefusal::Port),
            Self::Address { .. } => Some(EgressRefusal::Address),
            Self::Refused { .. } => Some(EgressRefusal::Firewall),
            Self::Tls { .. } => Some(EgressRefusal::Tls),
            Self::Proxy { .. } => Some(EgressRefusal::Proxy),
            Self::RequestTooLarge { .. }
            | Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::TimedOut { .. }
            | Self::TooLarge { .. }
            | Self::Http { .. }
            | Self::Busy { .. }
            | Self::Silent
            | Self::Gone => None,
        }
    }
}

/// From control to the worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ToWorker {
    /// A CA for https, DER. All of them come before the settings.
    Anchor(Vec<u8>),
    /// How to work from now on. What is under way goes on as it began.
    Settings(Settings),
    /// What control says to a [`FromWorker::Resolved`].
    Admit {
        /// Of the request.
        id: u64,
        /// Why it must not connect, if so.
        refused: Option<String>,
    },
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
        /// What the machine did not let it give up, in words.
        unconfined: Vec<String>,
    },
    /// The host is found, and control is to say whether to connect.
    Resolved {
        /// Of the request.
        id: u64,
        /// What would be connected to.
        destination: Destination,
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
            named_by: NamedBy::Certificate,
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
