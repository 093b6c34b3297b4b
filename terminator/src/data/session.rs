//! One TLS connection without its I/O: bytes received go in, plaintext and bytes to send come out.
//!
//! Wraps rustls's unbuffered connection so that buffers are the caller's and exist only while bytes
//! move. Nothing here waits, sends or receives.

use std::sync::Arc;

use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedStatus, WriteTraffic,
};
use rustls::{ExtractedSecrets, ServerConfig};

use super::buffers::{Buffers, Chunk, sealed_size};

/// A TLS connection's state.
pub(super) struct Session {
    tls: Box<UnbufferedServerConnection>,
    closed: bool,
    /// Set by the first error. rustls must not be asked again then: it may still hold on to input that
    /// is no longer there.
    broken: bool,
}

/// Why a session cannot go on.
#[derive(Debug)]
pub(super) enum Broken {
    /// The peer broke the protocol, or wants something else than we can do.
    Tls(rustls::Error),
    /// An earlier error ended it.
    Earlier,
    /// A message after the handshake came in pieces, which no client does and rustls cannot put
    /// together while we write.
    Fragmented,
    /// The keys may seal no more records.
    Exhausted,
}

impl Session {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self {
            tls: Box::new(UnbufferedServerConnection::new(config)?),
            closed: false,
            broken: false,
        })
    }

    /// Whether the handshake is still going on.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Whether the client has said that it will send no more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// What was negotiated.
    pub(super) fn negotiated(&self) -> &rustls::CommonState {
        &self.tls
    }

    /// Gives up the keys of both directions, and what makes the next ones. Only after the handshake, with
    /// all that [`Session::pump`] wrote sent, of a configuration with `enable_secret_extraction`.
    pub(super) fn into_keys(
        self,
    ) -> Result<(ExtractedSecrets, KernelConnection<ServerConnectionData>), rustls::Error> {
        self.tls.dangerous_into_kernel_connection()
    }

    /// Works through `input` as far as it goes: plaintext is appended to `plain`, what must be sent to
    /// `out`. What is left in `input` is an incomplete record. After an error `out` holds the alert, and
    /// the session does nothing more.
    pub(super) fn pump(
        &mut self,
        input: &mut Chunk,
        plain: &mut Chunk,
        out: &mut Chunk,
        buffers: &Buffers,
    ) -> Result<(), Broken> {
        if self.broken {
            return Err(Broken::Earlier);
        }
        let pumped = self.work_through(input, plain, out, buffers);
        self.broken = pumped.is_err();
        pumped
    }

    fn work_through(
        &mut self,
        input: &mut Chunk,
        plain: &mut Chunk,
        out: &mut Chunk,
        buffers: &Buffers,
    ) -> Result<(), Broken> {
        loop {
            let UnbufferedStatus {
                mut discard, state, ..
            } = self.tls.process_tls_records(input.bytes_mut());
            let mut blocked = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(Broken::Tls)?;
                        plain.append(record.payload, buffers);
                        discard += record.discard;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, out, buffers)?,
                Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
                Ok(ConnectionState::PeerClosed) => self.closed = true,
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => {
                    blocked = true;
                }
                // Early data is never offered; a closed connection has nothing more to say.
                Ok(_) => blocked = true,
                Err(error) => {
                    input.consume(discard);
                    self.alert(input, out, buffers);
                    return Err(Broken::Tls(error));
                }
            }
            input.consume(discard);
            if blocked {
                break;
            }
        }
        if !self.tls.is_handshaking() && holds_record(input.bytes()) && !self.closed {
            return Err(Broken::Fragmented);
        }
        Ok(())
    }

    /// Seals `plain` into records at the end of `out`, after whatever the protocol has to say first.
    ///
    /// Only after the handshake.
    pub(super) fn seal(
        &mut self,
        plain: &[u8],
        out: &mut Chunk,
        buffers: &Buffers,
    ) -> Result<(), Broken> {
        self.write(out, buffers, sealed_size(plain.len()), |traffic, room| {
            traffic.encrypt(plain, room)
        })
    }

    /// Puts a close_notify at the end of `out`.
    pub(super) fn close(&mut self, out: &mut Chunk, buffers: &Buffers) -> Result<(), Broken> {
        self.write(out, buffers, sealed_size(2), |traffic, room| {
            traffic.queue_close_notify(room)
        })
    }

    fn write(
        &mut self,
        out: &mut Chunk,
        buffers: &Buffers,
        mut room: usize,
        mut write: impl FnMut(
            &mut WriteTraffic<'_, ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> Result<(), Broken> {
        if self.broken {
            return Err(Broken::Earlier);
        }
        loop {
            // No input: `pump` leaves no message half read, so rustls has nothing to look back at.
            let UnbufferedStatus { state, .. } = self.tls.process_tls_records(&mut []);
            match state.map_err(Broken::Tls)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    match write(&mut traffic, out.room(room, buffers)) {
                        Ok(n) => {
                            out.filled(n);
                            return Ok(());
                        }
                        Err(EncryptError::InsufficientSize(InsufficientSizeError {
                            required_size,
                        })) => {
                            room = required_size;
                        }
                        Err(EncryptError::EncryptExhausted) => return Err(Broken::Exhausted),
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => encode(&mut data, out, buffers)?,
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::PeerClosed => self.closed = true,
                _ => return Err(Broken::Exhausted),
            }
        }
    }

    /// Collects the alert that rustls has queued after an error. Only as long as something is queued:
    /// asked once more, rustls would judge the same bytes again and queue a second alert.
    fn alert(&mut self, input: &mut Chunk, out: &mut Chunk, buffers: &Buffers) {
        while self.tls.wants_write() {
            let UnbufferedStatus { state, .. } = self.tls.process_tls_records(input.bytes_mut());
            let Ok(ConnectionState::EncodeTlsData(mut data)) = state else {
                return;
            };
            if encode(&mut data, out, buffers).is_err() {
                return;
            }
        }
    }
}

fn encode<D>(
    data: &mut EncodeTlsData<'_, D>,
    out: &mut Chunk,
    buffers: &Buffers,
) -> Result<(), Broken> {
    let mut room = 0;
    loop {
        match data.encode(out.room(room, buffers)) {
            Ok(n) => {
                out.filled(n);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                room = required_size;
            }
            Err(EncodeError::AlreadyEncoded) => return Ok(()),
        }
    }
}

/// Whether the bytes begin with a whole record.
fn holds_record(bytes: &[u8]) -> bool {
    missing(bytes) == 0
}

/// How many bytes the record at the start of `bytes` wants yet, as far as its header says.
pub(super) fn missing(bytes: &[u8]) -> usize {
    match bytes {
        [_, _, _, high, low, rest @ ..] => {
            usize::from(u16::from_be_bytes([*high, *low])).saturating_sub(rest.len())
        }
        _ => RECORD_HEADER - bytes.len(),
    }
}

/// Bytes before what a record seals: type, version, length (RFC 8446 section 5.1).
const RECORD_HEADER: usize = 5;
