//! The first segment of a connection: whether it begins a ClientHello, and which server name it
//! carries. This is what the steering program runs; user space runs it in tests.
//!
//! Less is asked than of a whole ClientHello: a name that stands in the bytes at hand is enough,
//! also where the rest of the message has not come. It decides nothing that matters for security:
//! whoever serves the connection walks the whole message again.

use crate::{Bytes, CLIENT_HELLO, Flaw, HEADER, NAME_MAX, RANDOM, SERVER_NAME, Span, list16};

/// What the first bytes of a stream are, as far as steering needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// The host name of a ClientHello as sent, where it stands in these bytes.
    Name(Span),
    /// The start of a ClientHello whose name, if it has one, is not in these bytes.
    Beyond,
    /// A ClientHello without a server name.
    Unnamed,
    /// A record that belongs into the middle of an established connection.
    Stray,
    /// Something else that a server answers: HTTP or a PROXY header.
    Other,
    /// Nothing that starts a connection: most likely its second segment came first.
    Continuation,
}

/// Keys of a server name in the table of the kernel: 64-bit hashes of the name in lower case,
/// without a final dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The name itself.
    pub exact: u64,
    /// The wildcard that would match it; `None` for a name of one label.
    pub wildcard: Option<u64>,
}

/// Looks at the bytes that start a TCP stream, through at most `EXTENSIONS` extensions.
#[inline(always)]
pub fn first<B: Bytes + ?Sized, const EXTENSIONS: usize>(bytes: &B) -> First {
    match opening(bytes) {
        First::Beyond => {}
        other => return other,
    }
    let found = server_name::<B, EXTENSIONS>(bytes);
    found.unwrap_or(First::Beyond)
}

/// Tells a ClientHello ([`First::Beyond`]) from everything else by what its first eleven bytes
/// must be, as far as they are there.
#[inline(always)]
fn opening<B: Bytes + ?Sized>(bytes: &B) -> First {
    let is = |at: usize, wanted: u8| bytes.byte(at).is_none_or(|byte| byte == wanted);
    match bytes.byte(0) {
        Some(HANDSHAKE) => {
            if is(1, 3) && is(5, CLIENT_HELLO) && is(6, 0) && is(9, 3) {
                First::Beyond
            } else {
                First::Continuation
            }
        }
        Some(APPLICATION_DATA) if is(1, 3) && is(2, 3) => First::Stray,
        Some(_) => stranger(bytes),
        None => First::Continuation,
    }
}

/// The plain-text openings that get an answer: HTTP methods and both PROXY headers, by four bytes.
#[inline(always)]
fn stranger<B: Bytes + ?Sized>(bytes: &B) -> First {
    let (Some(high), Some(low)) = (bytes.u16(0), bytes.u16(2)) else {
        return First::Continuation;
    };
    let four = (u32::from(high) << 16 | u32::from(low)).to_be_bytes();
    match &four {
        b"GET " | b"HEAD" | b"POST" | b"PUT " | b"DELE" | b"OPTI" | b"CONN" | b"TRAC" | b"PATC"
        | b"PRI " | b"PROX" | b"\r\n\r\n" => First::Other,
        _ => First::Continuation,
    }
}

/// The server name, `None` where the bytes end before it.
#[inline(always)]
fn server_name<B: Bytes + ?Sized, const EXTENSIONS: usize>(bytes: &B) -> Option<First> {
    let message = RECORD_HEADER;
    let session_id = message + HEADER + 2 + RANDOM;
    let suites = session_id + 1 + bytes.byte(session_id)? as usize;
    let compression = suites + 2 + bytes.u16(suites)? as usize;
    let extensions = compression + 1 + bytes.byte(compression)? as usize;
    let mut at = extensions + 2;
    let end = at + bytes.u16(extensions)? as usize;
    for _ in 0..EXTENSIONS {
        if at >= end {
            return Some(First::Unnamed);
        }
        let kind = bytes.u16(at)?;
        let len = bytes.u16(at + 2)? as usize;
        if kind == SERVER_NAME {
            return name(bytes, at + 4, at + 4 + len).ok();
        }
        at += 4 + len;
    }
    None
}

/// The first entry of a ServerNameList, which RFC 6066 section 3 lets be a host name only.
#[inline(always)]
fn name<B: Bytes + ?Sized>(bytes: &B, start: usize, end: usize) -> Result<First, Flaw> {
    let list = list16(bytes, start, end)?;
    let host = list16(bytes, list.start + 1, list.end())?;
    if bytes.byte(list.start) != Some(0) || host.len == 0 || host.len > NAME_MAX + 1 {
        return Err(Flaw::Length);
    }
    // The last byte must be there, else the name is cut off.
    bytes.byte(host.end() - 1).ok_or(Flaw::Length)?;
    Ok(First::Name(host))
}

/// Hashes a name from its end to its start, so that the hash of its parent is met on the way.
#[inline(always)]
pub fn keys<B: Bytes + ?Sized>(bytes: &B, name: Span) -> Keys {
    let mut hash = OFFSET;
    let mut parent = 0;
    let mut len = name.len;
    if len > 0 && bytes.byte(name.end() - 1) == Some(b'.') {
        len -= 1;
    }
    let last = name.start + len;
    for back in 1..=NAME_MAX {
        if back > len {
            break;
        }
        let Some(byte) = bytes.byte(last - back) else {
            break;
        };
        if byte == b'.' {
            parent = hash;
        }
        hash = step(hash, byte);
    }
    Keys {
        exact: hash,
        wildcard: (parent != 0).then_some(parent ^ WILDCARD),
    }
}

/// The key of a name as the configuration has it: `example.com` or `*.example.com`.
pub fn key_of(name: &str) -> u64 {
    let (bytes, tag) = match name.strip_prefix("*.") {
        Some(parent) => (parent.as_bytes(), WILDCARD),
        None => (name.as_bytes(), 0),
    };
    bytes
        .iter()
        .rev()
        .fold(OFFSET, |hash, &byte| step(hash, byte))
        ^ tag
}

/// One step of FNV-1a, in lower case.
#[inline(always)]
fn step(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(PRIME)
}

const RECORD_HEADER: usize = 5;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;
/// Keeps `*.example.com` apart from `example.com`.
const WILDCARD: u64 = 0x9e37_79b9_7f4a_7c15;
