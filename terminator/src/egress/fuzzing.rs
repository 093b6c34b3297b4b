//! Ways in for the fuzz targets: what egress does with bytes from the network, and what control does
//! with bytes from egress, each without a socket. Nothing in clinch itself calls this.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;

use super::http::{self, Sink};
use super::policy::{NamedBy, Policy};
use super::protocol::{
    Destination, FetchError, FromWorker, Head, Method, Request, Response, ToWorker, Validators,
    decode, encode,
};
use super::settings::Settings;
use crate::config::PortRange;
use crate::limits::EGRESS_CHUNK_BYTES;

/// Reads the bytes that a server sent as the answer to a request, as the egress worker does, with at
/// most `limit` bytes of body.
///
/// # Panics
/// When a piece is longer than a frame has room for, or the body longer than `limit`.
pub async fn answer(bytes: &[u8], limit: usize) -> Result<Response, FetchError> {
    let request = Request {
        url: "http://responder.example/".to_owned(),
        named_by: NamedBy::Certificate,
        method: Method::Get,
        accept: "*/*".to_owned(),
        deadline: Duration::from_secs(10),
        limit,
        known: Validators::default(),
    };
    let mut whole = Whole {
        limit,
        head: None,
        body: Vec::new(),
    };
    http::perform_on(&request, bytes, &mut whole).await?;
    Ok(Response {
        head: whole.head.expect("the head comes before the end"),
        body: whole.body,
    })
}

/// Decodes bytes as a frame of either direction, and tells whether they are one.
///
/// # Panics
/// When a frame that was decoded is not the same after it was encoded and decoded again.
pub fn frame(bytes: &[u8]) -> bool {
    let from = decode::<FromWorker>(bytes);
    if let Ok(frame) = &from
        && let Ok(again) = encode(frame)
    {
        assert_eq!(decode::<FromWorker>(&again).as_ref().ok(), Some(frame));
    }
    let to = decode::<ToWorker>(bytes);
    if let Ok(frame) = &to
        && let Ok(again) = encode(frame)
    {
        assert_eq!(decode::<ToWorker>(&again).as_ref().ok(), Some(frame));
    }
    from.is_ok() || to.is_ok()
}

/// Frames of each kind, encoded.
pub fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let head = Head {
        status: 200,
        content_type: Some("application/ocsp-response".to_owned()),
        cache_control: Some("max-age=3600".to_owned()),
        validators: known(),
        ..Head::default()
    };
    let request = |method| Request {
        url: "http://responder.example/path".to_owned(),
        named_by: NamedBy::Operator,
        method,
        accept: "application/ocsp-response".to_owned(),
        deadline: Duration::from_secs(10),
        limit: 65_536,
        known: known(),
    };
    let post = Method::Post {
        content_type: "application/ocsp-request".to_owned(),
        body: vec![0x30, 0x03, 0x0a, 0x01, 0x00],
    };
    let hello = |unconfined: &[&str]| FromWorker::Hello {
        unconfined: unconfined.iter().map(|&reason| reason.to_owned()).collect(),
    };
    let destination = Destination {
        host: "responder.example".to_owned(),
        port: 80,
        addresses: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        ttl: Some(Duration::from_secs(60)),
    };
    let error = FetchError::TooLarge { limit: 1 };
    let bytes = vec![0; 16];
    let from = [
        ("hello", hello(&[])),
        ("unconfined", hello(&["no seccomp"])),
        ("resolved", FromWorker::Resolved { id: 3, destination }),
        ("head", FromWorker::Head { id: 1, head }),
        ("chunk", FromWorker::Chunk { id: 300, bytes }),
        ("end", FromWorker::End { id: u64::MAX }),
        ("failed", FromWorker::Failed { id: 2, error }),
    ];
    let to = [("get", Method::Get), ("post", post)].map(|(name, method)| {
        let request = request(method);
        (name, ToWorker::Fetch { id: 7, request })
    });
    let others = [
        ("anchor", ToWorker::Anchor(vec![0x30, 0])),
        ("settings", ToWorker::Settings(settings())),
        (
            "admit",
            ToWorker::Admit {
                id: 3,
                refused: None,
            },
        ),
    ];
    let from = from.iter().map(|(name, frame)| (*name, encode(frame)));
    let to = to
        .iter()
        .chain(&others)
        .map(|(name, frame)| (*name, encode(frame)));
    from.chain(to)
        .map(|(name, frame)| (name, frame.expect("a short frame")))
        .collect()
}

fn known() -> Validators {
    Validators {
        etag: Some("\"x\"".to_owned()),
        last_modified: None,
    }
}

fn settings() -> Settings {
    Settings {
        policy: Policy {
            allow: vec![IpNet::from(IpAddr::from(Ipv4Addr::LOCALHOST))],
            ports: vec![PortRange {
                first: 80,
                last: 80,
            }],
            https: true,
        },
        proxy: None,
        resolver: None,
        anchors: Vec::new(),
        announce: true,
    }
}

/// Puts an answer together, and holds the worker's part of it to its bounds.
struct Whole {
    limit: usize,
    head: Option<Head>,
    body: Vec<u8>,
}

impl Sink for Whole {
    async fn admit(&mut self, _: Destination) -> Result<(), String> {
        Ok(())
    }

    async fn head(&mut self, head: Head) {
        assert!(self.head.replace(head).is_none(), "two heads");
    }

    async fn chunk(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= EGRESS_CHUNK_BYTES, "a piece is too long");
        self.body.extend_from_slice(bytes);
        assert!(self.body.len() <= self.limit, "the body is too long");
    }
}
