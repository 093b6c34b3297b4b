//! From raw bytes received so far to a [`Hello`]: what is no TLS is recognised, and the handshake
//! message is put together from its records.

use crate::{Bytes, Flaw, HEADER, Outline, Span, length24, walk};

/// What the bytes received so far are.
#[derive(Clone, Copy, Debug)]
pub enum Reading<'a> {
    /// The start of a ClientHello, or of something that may become one: receive more.
    Incomplete,
    /// No TLS.
    NotTls(Stranger),
    /// A ClientHello that offers nothing from TLS 1.2 on.
    TooOld {
        /// The version it asks for, e.g. 0x0301 for TLS 1.0.
        version: u16,
    },
    /// TLS, but not a readable ClientHello.
    Malformed(Flaw),
    /// A ClientHello of this many bytes, more than the scratch buffer holds.
    TooLarge(usize),
    /// A whole ClientHello.
    Complete(Hello<'a>),
}

/// Who talks to a TLS port without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// An HTTP request in plain text.
    Http,
    /// A hello in the SSL 2.0 format (RFC 5246 appendix E.2).
    Sslv2,
    /// Anything else.
    Other,
}

/// A whole ClientHello.
#[derive(Clone, Copy, Debug)]
pub struct Hello<'a> {
    message: &'a [u8],
    outline: Outline,
    consumed: usize,
}

/// Reads a connection's first bytes.
///
/// `received` is everything received so far, from the first byte on; call again with more of it
/// after [`Reading::Incomplete`]. `scratch` takes the message where it came in several records, and
/// its length bounds the message whether or not it did.
pub fn read<'a>(received: &'a [u8], scratch: &'a mut [u8]) -> Reading<'a> {
    match message(received, scratch) {
        Ok((message, consumed)) => judge(message, consumed),
        Err(other) => other,
    }
}

impl<'a> Hello<'a> {
    /// The host name as the client sent it; see [`crate::normalise_name`].
    pub fn server_name(&self) -> Option<&'a [u8]> {
        Some(self.part(self.outline.server_name)).filter(|name| !name.is_empty())
    }

    /// Whether the client asks for a stapled OCSP response.
    pub fn asks_for_staple(&self) -> bool {
        self.outline.asks_for_staple
    }

    /// Whether TLS 1.3 is offered.
    pub fn offers_tls13(&self) -> bool {
        self.outline.tls13
    }

    /// Whether TLS 1.2 is offered.
    pub fn offers_tls12(&self) -> bool {
        self.outline.tls12
    }

    /// Code points of the cipher suites in the client's order.
    pub fn cipher_suites(&self) -> impl Iterator<Item = u16> + 'a {
        pairs(self.part(self.outline.cipher_suites))
    }

    /// Code points of the signature schemes that the client can verify, in its order. Empty where
    /// the extension is missing, as in the oldest TLS 1.2 clients.
    pub fn signature_schemes(&self) -> impl Iterator<Item = u16> + 'a {
        pairs(self.part(self.outline.signature_schemes))
    }

    /// The ALPN protocols in the client's order.
    pub fn alpn(&self) -> impl Iterator<Item = &'a [u8]> + 'a {
        let mut rest = self.part(self.outline.alpn);
        core::iter::from_fn(move || {
            let (&len, after) = rest.split_first()?;
            let (protocol, after) = after.split_at_checked(usize::from(len))?;
            rest = after;
            Some(protocol)
        })
    }

    /// Where everything is, relative to [`Hello::message`].
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// The handshake message with its 4-byte header, out of its records.
    pub fn message(&self) -> &'a [u8] {
        self.message
    }

    /// Bytes of what was received up to the end of the record that ends the ClientHello.
    pub fn consumed(&self) -> usize {
        self.consumed
    }

    fn part(&self, span: Span) -> &'a [u8] {
        self.message.get(span.start..span.end()).unwrap_or(&[])
    }
}

fn judge(message: &[u8], consumed: usize) -> Reading<'_> {
    match walk::<[u8], EXTENSIONS>(message) {
        Err(flaw) => Reading::Malformed(flaw),
        Ok(outline) if !outline.tls12 && !outline.tls13 => Reading::TooOld {
            version: outline.legacy_version,
        },
        Ok(outline) => Reading::Complete(Hello {
            message,
            outline,
            consumed,
        }),
    }
}

/// The contiguous handshake message and the bytes of records it took.
fn message<'a>(
    received: &'a [u8],
    scratch: &'a mut [u8],
) -> Result<(&'a [u8], usize), Reading<'a>> {
    let first = record(received, 0)?;
    let fragment = received.get(first.start..first.end().min(received.len()));
    let fragment = fragment.ok_or(Reading::Incomplete)?;
    match fragment.first() {
        Some(&crate::CLIENT_HELLO) | None => {}
        Some(&other) => return Err(Reading::Malformed(Flaw::MessageType(other))),
    }
    // The usual case: the header tells the length, and one record holds the message.
    if let Some(len) = length24(fragment, 1) {
        let len = bounded(HEADER + len, scratch.len())?;
        if len <= first.len {
            let message = fragment.get(..len).ok_or(Reading::Incomplete)?;
            if received.len() < first.end() {
                return Err(Reading::Incomplete);
            }
            return Ok((message, first.end()));
        }
    }
    reassemble(received, scratch)
}

/// Copies the fragments of a message that spans records into `scratch`.
fn reassemble<'a>(
    received: &'a [u8],
    scratch: &'a mut [u8],
) -> Result<(&'a [u8], usize), Reading<'a>> {
    let room = scratch.len();
    let (mut filled, mut at) = (0, 0);
    loop {
        let span = record(received, at)?;
        let fragment = received.get(span.start..span.end());
        let fragment = fragment.ok_or(Reading::Incomplete)?;
        let take = fragment.len().min(room - filled);
        scratch[filled..filled + take].copy_from_slice(&fragment[..take]);
        filled += take;
        at = span.end();
        if let Some(len) = length24(&scratch[..filled], 1) {
            let len = bounded(HEADER + len, room)?;
            if len <= filled {
                return Ok((&scratch[..len], at));
            }
        } else if filled == room {
            return Err(Reading::TooLarge(HEADER));
        }
    }
}

fn bounded<'a>(len: usize, room: usize) -> Result<usize, Reading<'a>> {
    if len > room {
        return Err(Reading::TooLarge(len));
    }
    Ok(len)
}

/// The fragment of the record that starts at `at`; it may reach past what was received.
fn record<'a>(received: &[u8], at: usize) -> Result<Span, Reading<'a>> {
    let header = received.get(at..).unwrap_or(&[]);
    if at == 0 {
        greet(header)?;
    }
    let Some((&kind, header)) = header.split_first() else {
        return Err(Reading::Incomplete);
    };
    // RFC 8446 section 5.1: no other record may stand between the fragments of a message.
    if kind != HANDSHAKE {
        return Err(Reading::Malformed(Flaw::RecordType(kind)));
    }
    let Some(len) = header.u16(2).map(usize::from) else {
        return Err(Reading::Incomplete);
    };
    // RFC 8446 section 5.1: handshake fragments are not empty and at most 2^14 bytes.
    if len == 0 || len > FRAGMENT_MAX {
        return Err(Reading::Malformed(Flaw::RecordLength(len)));
    }
    let start = at + RECORD_HEADER;
    Ok(Span { start, len })
}

/// Tells TLS from the rest by the first bytes. The minor version of the first record is ignored
/// (RFC 8446 section 5.1, `legacy_record_version`).
fn greet<'a>(first: &[u8]) -> Result<(), Reading<'a>> {
    match first {
        [] => Err(Reading::Incomplete),
        [CONTENT_FIRST..=CONTENT_LAST] | [CONTENT_FIRST..=CONTENT_LAST, 3, ..] => Ok(()),
        [0x80..=0xff] | [0x80..=0xff, _] | [0x80..=0xff, _, 1] => Err(Reading::Incomplete),
        [0x80..=0xff, _, 1, 0 | 2 | 3, ..] => Err(Reading::NotTls(Stranger::Sslv2)),
        _ => Err(http(first)),
    }
}

fn http<'a>(first: &[u8]) -> Reading<'a> {
    let is_method = |method: &&&[u8]| first.starts_with(method);
    let may_become = |method: &&&[u8]| method.starts_with(first);
    if METHODS.iter().any(|method| is_method(&method)) {
        Reading::NotTls(Stranger::Http)
    } else if METHODS.iter().any(|method| may_become(&method)) {
        Reading::Incomplete
    } else {
        Reading::NotTls(Stranger::Other)
    }
}

/// Extensions of one ClientHello. Browsers send about 18, and each costs at least four bytes of a
/// message that the scratch buffer bounds.
const EXTENSIONS: usize = 256;

const HANDSHAKE: u8 = 22;
/// Content types of TLS records: change_cipher_spec to heartbeat.
const CONTENT_FIRST: u8 = 20;
const CONTENT_LAST: u8 = 24;
const RECORD_HEADER: usize = 5;
const FRAGMENT_MAX: usize = 1 << 14;

const METHODS: [&[u8]; 10] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"CONNECT ",
    b"TRACE ",
    b"PATCH ",
    b"PRI * HTTP/2",
];

fn pairs<'a>(list: &'a [u8]) -> impl Iterator<Item = u16> + 'a {
    list.chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}
