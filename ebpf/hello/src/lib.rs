//! The ClientHello, read before any TLS state exists: whether these are TLS bytes at all, which
//! server name the client wants, whether it asks for a staple, and what it can verify.
//!
//! [`walk`] is generic over how bytes are read ([`Bytes`]), takes no slice, allocates nothing and
//! loops a bounded number of times, so that the same code can run inside an eBPF program. [`read`]
//! is the way in for user space: from the raw bytes received so far, through the record layer.
//!
//! It does not decide: no site is chosen, no certificate, no alert. It does not replace the TLS
//! library, which parses the same bytes again and enforces the rest of RFC 8446; what is refused
//! here is only what makes the walk itself meaningless.

#![no_std]
#![forbid(unsafe_code)]

mod first;
mod name;
mod records;

pub use first::{First, Keys, first, key_of, keys};
pub use name::{NAME_MAX, is_address, normalise_name};
pub use records::{Hello, Reading, Stranger, read};

/// A source of bytes with a known end.
pub trait Bytes {
    /// The byte at an offset, `None` past the end.
    fn byte(&self, at: usize) -> Option<u8>;

    /// How many bytes there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Two bytes, big-endian.
    #[inline(always)]
    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte(at)?, self.byte(at + 1)?]))
    }
}

impl Bytes for [u8] {
    #[inline(always)]
    fn byte(&self, at: usize) -> Option<u8> {
        self.get(at).copied()
    }

    #[inline(always)]
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    #[inline(always)]
    fn u16(&self, at: usize) -> Option<u16> {
        let bytes = self.get(at..)?.first_chunk()?;
        Some(u16::from_be_bytes(*bytes))
    }
}

/// A part of the message: offset of its first byte and length in bytes. An empty span stands for
/// what is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset from the start of the handshake message.
    pub start: usize,
    /// Length in bytes.
    pub len: usize,
}

impl Span {
    /// Offset of the first byte after the span.
    pub fn end(self) -> usize {
        self.start + self.len
    }
}

/// Where the parts of a ClientHello are (RFC 8446 section 4.1.2). Every span lies inside the
/// message it was made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// `legacy_version`.
    pub legacy_version: u16,
    /// `cipher_suites`, a list of u16.
    pub cipher_suites: Span,
    /// The host name of `server_name` as sent (RFC 6066 section 3).
    pub server_name: Span,
    /// `status_request` of type `ocsp` is there (RFC 6066 section 8).
    pub asks_for_staple: bool,
    /// The scheme list of `signature_algorithms`, a list of u16.
    pub signature_schemes: Span,
    /// The protocol list of `application_layer_protocol_negotiation` (RFC 7301): each entry one
    /// length byte and the name; the lengths fill the span exactly.
    pub alpn: Span,
    /// TLS 1.3 is offered.
    pub tls13: bool,
    /// TLS 1.2 is offered.
    pub tls12: bool,
}

/// What makes a ClientHello unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A TLS record that cannot start a connection: not of type `handshake`.
    RecordType(u8),
    /// A record of this length: empty, or over 2^14 bytes (RFC 8446 section 5.1).
    RecordLength(usize),
    /// The first handshake message is of this type, not a ClientHello.
    MessageType(u8),
    /// A length field points past the end of what contains it, or leaves bytes over.
    Length,
    /// More extensions than the walk takes.
    TooManyExtensions,
    /// An extension that may come once came twice (RFC 8446 section 4.2).
    Duplicate(u16),
}

/// Walks a whole handshake message, its 4-byte header included, over at most `EXTENSIONS`
/// extensions.
pub fn walk<B: Bytes + ?Sized, const EXTENSIONS: usize>(message: &B) -> Result<Outline, Flaw> {
    let mut outline = Outline::default();
    let end = HEADER + length24(message, 1).ok_or(Flaw::Length)?;
    match message.byte(0) {
        Some(CLIENT_HELLO) if end == message.len() => {}
        Some(CLIENT_HELLO) | None => return Err(Flaw::Length),
        Some(other) => return Err(Flaw::MessageType(other)),
    }
    outline.legacy_version = message.u16(HEADER).ok_or(Flaw::Length)?;
    let session_id = list8(message, HEADER + 2 + RANDOM, end)?;
    outline.cipher_suites = list16(message, session_id.end(), end)?;
    if session_id.len > 32 || outline.cipher_suites.len % 2 != 0 {
        return Err(Flaw::Length);
    }
    let compression = list8(message, outline.cipher_suites.end(), end)?;
    let mut seen = Seen::default();
    // A TLS 1.2 client may leave the extensions out altogether (RFC 5246 section 7.4.1.2).
    if compression.end() != end {
        let extensions = list16(message, compression.end(), end)?;
        if extensions.end() != end {
            return Err(Flaw::Length);
        }
        walk_extensions::<B, EXTENSIONS>(message, extensions, &mut outline, &mut seen)?;
    }
    // RFC 8446 section 4.2.1: where the extension is there, it alone counts.
    if !seen.supported_versions {
        outline.tls12 = outline.legacy_version >= TLS12;
    }
    Ok(outline)
}

/// Extensions met so far, of those that are read.
#[derive(Default)]
struct Seen {
    server_name: bool,
    status_request: bool,
    signature_algorithms: bool,
    alpn: bool,
    supported_versions: bool,
}

fn walk_extensions<B: Bytes + ?Sized, const EXTENSIONS: usize>(
    message: &B,
    extensions: Span,
    outline: &mut Outline,
    seen: &mut Seen,
) -> Result<(), Flaw> {
    let end = extensions.end();
    let mut at = extensions.start;
    for _ in 0..EXTENSIONS {
        if at == end {
            return Ok(());
        }
        let kind = message.u16(at).ok_or(Flaw::Length)?;
        let body = list16(message, at + 2, end)?;
        read_extension(message, kind, body, outline, seen)?;
        at = body.end();
    }
    if at == end {
        return Ok(());
    }
    Err(Flaw::TooManyExtensions)
}

fn read_extension<B: Bytes + ?Sized>(
    message: &B,
    kind: u16,
    body: Span,
    outline: &mut Outline,
    seen: &mut Seen,
) -> Result<(), Flaw> {
    let seen = match kind {
        SERVER_NAME => &mut seen.server_name,
        STATUS_REQUEST => &mut seen.status_request,
        SIGNATURE_ALGORITHMS => &mut seen.signature_algorithms,
        ALPN => &mut seen.alpn,
        SUPPORTED_VERSIONS => &mut seen.supported_versions,
        _ => return Ok(()),
    };
    if core::mem::replace(seen, true) {
        return Err(Flaw::Duplicate(kind));
    }
    match kind {
        SERVER_NAME => outline.server_name = host_name(message, body)?,
        STATUS_REQUEST => outline.asks_for_staple = message.byte(body.start) == Some(OCSP),
        SIGNATURE_ALGORITHMS => outline.signature_schemes = u16_list(message, body)?,
        ALPN => outline.alpn = protocols(message, body)?,
        _ => supported_versions(message, body, outline)?,
    }
    Ok(())
}

/// The first host name of a ServerNameList. RFC 6066 section 3 allows one name of a type, and
/// defines no other type; entries of other types are passed over.
fn host_name<B: Bytes + ?Sized>(message: &B, body: Span) -> Result<Span, Flaw> {
    let list = whole(list16(message, body.start, body.end())?, body)?;
    let mut at = list.start;
    let mut found = Span::default();
    for _ in 0..NAMES {
        if at == list.end() {
            break;
        }
        let kind = message.byte(at).ok_or(Flaw::Length)?;
        let name = list16(message, at + 1, list.end())?;
        if kind == HOST_NAME {
            if name.len == 0 {
                return Err(Flaw::Length);
            }
            if found.len != 0 {
                return Err(Flaw::Duplicate(SERVER_NAME));
            }
            found = name;
        }
        at = name.end();
    }
    if at != list.end() || list.len == 0 {
        return Err(Flaw::Length);
    }
    Ok(found)
}

fn u16_list<B: Bytes + ?Sized>(message: &B, body: Span) -> Result<Span, Flaw> {
    let list = whole(list16(message, body.start, body.end())?, body)?;
    if list.len == 0 || list.len % 2 != 0 {
        return Err(Flaw::Length);
    }
    Ok(list)
}

/// The list of RFC 7301 section 3.1, its entries checked so that whoever reads them need not.
fn protocols<B: Bytes + ?Sized>(message: &B, body: Span) -> Result<Span, Flaw> {
    let list = whole(list16(message, body.start, body.end())?, body)?;
    let mut at = list.start;
    for _ in 0..PROTOCOLS {
        if at == list.end() {
            break;
        }
        let protocol = list8(message, at, list.end())?;
        if protocol.len == 0 {
            return Err(Flaw::Length);
        }
        at = protocol.end();
    }
    if at != list.end() || list.len == 0 {
        return Err(Flaw::Length);
    }
    Ok(list)
}

fn supported_versions<B: Bytes + ?Sized>(
    message: &B,
    body: Span,
    outline: &mut Outline,
) -> Result<(), Flaw> {
    let list = whole(list8(message, body.start, body.end())?, body)?;
    if list.len == 0 || list.len % 2 != 0 {
        return Err(Flaw::Length);
    }
    for index in 0..VERSIONS {
        if index * 2 >= list.len {
            break;
        }
        match message.u16(list.start + index * 2) {
            Some(TLS13) => outline.tls13 = true,
            Some(TLS12) => outline.tls12 = true,
            _ => {}
        }
    }
    Ok(())
}

/// The content of a list with a one-byte length at `at`, which must end by `end`.
#[inline(always)]
fn list8<B: Bytes + ?Sized>(message: &B, at: usize, end: usize) -> Result<Span, Flaw> {
    let len = message.byte(at).ok_or(Flaw::Length)? as usize;
    within(Span { start: at + 1, len }, end)
}

/// The content of a list with a two-byte length at `at`, which must end by `end`.
#[inline(always)]
fn list16<B: Bytes + ?Sized>(message: &B, at: usize, end: usize) -> Result<Span, Flaw> {
    let len = message.u16(at).ok_or(Flaw::Length)? as usize;
    within(Span { start: at + 2, len }, end)
}

#[inline(always)]
fn within(span: Span, end: usize) -> Result<Span, Flaw> {
    if span.end() > end {
        return Err(Flaw::Length);
    }
    Ok(span)
}

/// A list that must fill the extension it stands in.
#[inline(always)]
fn whole(list: Span, body: Span) -> Result<Span, Flaw> {
    if list.end() != body.end() {
        return Err(Flaw::Length);
    }
    Ok(list)
}

#[inline(always)]
fn length24<B: Bytes + ?Sized>(message: &B, at: usize) -> Option<usize> {
    Some((message.byte(at)? as usize) << 16 | message.u16(at + 1)? as usize)
}

/// Handshake type and 24-bit length (RFC 8446 section 4).
const HEADER: usize = 4;
const CLIENT_HELLO: u8 = 1;
const RANDOM: usize = 32;

const TLS12: u16 = 0x0303;
const TLS13: u16 = 0x0304;

const SERVER_NAME: u16 = 0;
const STATUS_REQUEST: u16 = 5;
const SIGNATURE_ALGORITHMS: u16 = 13;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

const HOST_NAME: u8 = 0;
const OCSP: u8 = 1;

/// Entries of a ServerNameList that are looked at. More than one is a client nobody has seen.
const NAMES: usize = 4;
/// ALPN entries that are looked at; real clients send two or three.
const PROTOCOLS: usize = 64;
/// All that fit into the one-byte length.
const VERSIONS: usize = 127;
