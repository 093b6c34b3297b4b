//! Many bytes whose loss, repetition or disorder shows, and their exchange in both directions at once.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::PROMPT;
use crate::backend::Stream;
use crate::client::Session;

/// Deterministic bytes that compress and repeat nowhere near a buffer's size (xorshift64).
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut all = Vec::with_capacity(length + 8);
    while all.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        all.extend(state.to_le_bytes());
    }
    all.truncate(length);
    all
}

/// Sends all of `up`, ends, and reads to the end, both at once on a non-blocking connection.
///
/// # Panics
/// When it takes too long, or the other side leaves the protocol.
#[track_caller]
pub fn exchange(session: &mut Session, up: &[u8]) -> Vec<u8> {
    let (conn, sock) = (&mut session.stream.conn, &mut session.stream.sock);
    sock.set_nonblocking(true).expect("a socket");
    let (mut sent, mut down, mut ended) = (0, Vec::new(), false);
    let deadline = Instant::now() + PROMPT * 3;
    loop {
        assert!(
            Instant::now() < deadline,
            "{sent} sent, {} received",
            down.len()
        );
        if sent < up.len() {
            sent += conn.writer().write(&up[sent..]).expect("rustls takes it");
            if sent == up.len() {
                conn.send_close_notify();
            }
        }
        let mut idle = true;
        while conn.wants_write() && ready(conn.write_tls(sock)) {
            idle = false;
        }
        if !ended && ready(conn.read_tls(sock)) {
            idle = false;
            let state = conn.process_new_packets().expect("clinch speaks TLS");
            ended = state.peer_has_closed();
            let mut chunk = vec![0; state.plaintext_bytes_to_read()];
            conn.reader().read_exact(&mut chunk).expect("rustls has it");
            down.extend(chunk);
        }
        if ended && sent == up.len() && !conn.wants_write() {
            return down;
        }
        if idle {
            let interest = if conn.wants_write() {
                PollFlags::IN | PollFlags::OUT
            } else {
                PollFlags::IN
            };
            // What is not ready within the deadline fails above.
            let _ = poll(&mut [PollFd::new(sock, interest)], Some(&A_MOMENT));
        }
    }
}

/// Whether the socket could do it now.
#[track_caller]
fn ready(done: io::Result<usize>) -> bool {
    match done {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        Err(error) => panic!("the connection broke: {error}"),
    }
}

/// The backend's side of an [`exchange`]: expects `bytes(2, length)`, and sends `bytes(1, length)` at the
/// same time.
///
/// # Panics
/// When it gets others.
pub fn answer(stream: Stream, length: usize) {
    let (mut to, mut from) = stream.split();
    let writer = std::thread::spawn(move || {
        to.write_all(&bytes(1, length)).expect("clinch takes it");
        to.shutdown(Shutdown::Write).expect("open");
    });
    let mut got = Vec::new();
    from.read_to_end(&mut got).expect("a clean end");
    assert!(got == bytes(2, length), "{} other bytes", got.len());
    writer.join().expect("written");
    // Only now, so that the client knows that the backend was content.
    drop(from);
}

/// The backend's side of [`draw`]: answers one byte with `length` of them.
pub fn pour(mut stream: Stream, length: usize) {
    let piece = vec![7; 1 << 16];
    if stream.read_exact(&mut [0]).is_err() {
        // Whoever only looks whether somebody is there.
        return;
    }
    for at in (0..length).step_by(piece.len()) {
        let part = &piece[..piece.len().min(length - at)];
        stream.write_all(part).expect("clinch takes it");
    }
}

/// Asks for a long answer and returns its length.
#[track_caller]
pub fn draw(session: &mut Session) -> usize {
    session.stream.write_all(b"?").expect("open");
    session.stream.flush().expect("open");
    let mut buffer = vec![0; 1 << 16];
    let mut got = 0;
    while let n @ 1.. = session.stream.read(&mut buffer).expect("a clean end") {
        got += n;
    }
    got
}

/// How long to wait for the socket before the deadline is looked at.
const A_MOMENT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};
