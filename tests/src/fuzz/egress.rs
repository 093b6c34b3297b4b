//! What servers send to egress, and what egress sends to control.

use std::cell::RefCell;

use clinch::egress::fuzzing;

use super::{Seed, named};

/// Reads what a responder sent as an answer over HTTP; true where it is whole.
///
/// # Panics
/// When more is passed on than was asked for, or pieces that do not fit a frame.
pub fn http(bytes: &[u8]) -> bool {
    thread_local! {
        static RUNTIME: RefCell<tokio::runtime::Runtime> = RefCell::new(
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("descriptors are left"),
        );
    }
    let answer = RUNTIME.with_borrow(|runtime| runtime.block_on(fuzzing::answer(bytes, LIMIT)));
    match answer {
        Ok(response) => {
            assert!((100..1000).contains(&response.head.status));
            true
        }
        Err(error) => {
            drop(error.to_string());
            false
        }
    }
}

/// Reads a frame between control and the egress process, in both directions; true
/// where it is one.
///
/// # Panics
/// When a frame is not the same after it was written and read again.
pub fn frame(bytes: &[u8]) -> bool {
    fuzzing::frame(bytes)
}

pub(super) fn http_seeds() -> Vec<Seed> {
    let answer = |head: &str, body: &str| format!("HTTP/1.1 {head}\r\n\r\n{body}").into_bytes();
    let plain = "200 OK\r\nContent-Type: application/ocsp-response\r\nETag: \"x\"";
    let chunked = format!("{plain}\r\nTransfer-Encoding: chunked");
    let cached = "Cache-Control: max-age=3600\r\nExpires: Fri, 15 Jan 2027 08:00:00 GMT";
    named([
        (
            "length",
            answer(&format!("{plain}\r\nContent-Length: 5"), "hello"),
        ),
        (
            "cached",
            answer(&format!("{plain}\r\n{cached}\r\nContent-Length: 0"), ""),
        ),
        ("to-the-end", answer(plain, "hello")),
        ("chunked", answer(&chunked, "5\r\nhello\r\n0\r\n\r\n")),
        (
            "trailers",
            answer(&chunked, "5;x=y\r\nhello\r\n0\r\nx: y\r\n\r\n"),
        ),
        (
            "too-long",
            answer(&format!("{plain}\r\nContent-Length: 99999"), ""),
        ),
        ("too-long-in-the-end", answer(plain, &"x".repeat(LIMIT + 1))),
        (
            "two-lengths",
            answer("200 OK\r\nContent-Length: 5\r\nContent-Length: 6", "hello"),
        ),
        (
            "continue",
            answer("100 Continue", "HTTP/1.1 200 OK\r\n\r\nhello"),
        ),
        ("not-modified", answer("304 Not Modified", "")),
        (
            "redirect",
            answer("302 Found\r\nLocation: /\r\nContent-Length: 0", ""),
        ),
        ("http10", b"HTTP/1.0 404 Not Found\r\n\r\n".to_vec()),
        ("not-http", b"220 mail.example ESMTP\r\n".to_vec()),
    ])
}

pub(super) fn frame_seeds() -> Vec<Seed> {
    let frames = fuzzing::frames().into_iter();
    frames
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .collect()
}

/// Bytes of a body that are taken.
const LIMIT: usize = 1024;
