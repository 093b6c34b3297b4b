//! TLS over one TCP connection, from the client's side, with each step's failure told apart.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{ClientConfig, ClientConnection};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{HandshakeKind, IoState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Failure;
use crate::failure::Stage;

/// A connection on its way.
pub(crate) struct Session {
    stream: TcpStream,
    tls: ClientConnection,
    /// Every byte goes out in pieces of this size, with this pause after each.
    trickle: Option<(usize, Duration)>,
    out: Vec<u8>,
}

impl Session {
    pub(crate) fn new(
        stream: TcpStream,
        config: &Arc<ClientConfig>,
        name: ServerName<'static>,
        trickle: Option<(usize, Duration)>,
    ) -> Result<Self, Failure> {
        let tls = ClientConnection::new(Arc::clone(config), name);
        Ok(Self {
            stream,
            tls: tls.map_err(|_| Failure::Tls(Stage::Handshake))?,
            trickle,
            out: Vec::new(),
        })
    }

    /// Completes the handshake.
    pub(crate) async fn handshake(&mut self, buffer: &mut [u8]) -> Result<(), Failure> {
        while self.tls.is_handshaking() {
            self.flush(Stage::Handshake).await?;
            if !self.tls.is_handshaking() {
                break;
            }
            let read = self.read(buffer, &mut Vec::new(), Stage::Handshake).await?;
            if read.ended && self.tls.is_handshaking() {
                return Err(Failure::Closed(Stage::Handshake));
            }
        }
        self.flush(Stage::Handshake).await
    }

    pub(crate) fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The certificates that the server sent; none after resumption.
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        self.tls.peer_certificates().unwrap_or_default()
    }

    /// Encrypts and sends at most [`PART`] bytes at a time.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        for part in bytes.chunks(PART) {
            let written = self.tls.writer().write_all(part);
            written.map_err(|error| Failure::Broken(Stage::Request, error.kind()))?;
            self.flush(Stage::Request).await?;
        }
        Ok(())
    }

    /// Reads once; appends plaintext to `plain`.
    pub(crate) async fn read(
        &mut self,
        buffer: &mut [u8],
        plain: &mut Vec<u8>,
        stage: Stage,
    ) -> Result<Read, Failure> {
        let read = self.stream.read(buffer).await;
        let n = read.map_err(|error| Failure::Broken(stage, error.kind()))?;
        let before = plain.len();
        let mut rest = &buffer[..n];
        let mut ended = n == 0;
        while !rest.is_empty() {
            let taken = self.tls.read_tls(&mut rest);
            taken.map_err(|_| Failure::Tls(stage))?;
            let state = self.tls.process_new_packets();
            let state: IoState = match state {
                Ok(state) => state,
                Err(error) => {
                    // Tells the server why, if it still listens.
                    let _ = self.flush(stage).await;
                    return Err(Failure::of_tls(&error, stage));
                }
            };
            self.plaintext(plain, stage)?;
            ended |= state.peer_has_closed();
        }
        let bytes = plain.len() - before;
        Ok(Read { ended, bytes })
    }

    fn plaintext(&mut self, plain: &mut Vec<u8>, stage: Stage) -> Result<(), Failure> {
        match io::Read::read_to_end(&mut self.tls.reader(), plain) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(Failure::Broken(stage, error.kind())),
        }
    }

    /// Says that no more will come, and reads until the server has said so too: tickets come on the
    /// way. What goes wrong now takes nothing away from what was measured.
    pub(crate) async fn close(mut self, buffer: &mut [u8]) {
        self.tls.send_close_notify();
        if self.flush(Stage::Idle).await.is_err() || self.stream.shutdown().await.is_err() {
            return;
        }
        let mut plain = Vec::new();
        while let Ok(read) = self.read(buffer, &mut plain, Stage::Idle).await {
            if read.ended {
                break;
            }
            plain.clear();
        }
    }

    async fn flush(&mut self, stage: Stage) -> Result<(), Failure> {
        self.out.clear();
        while self.tls.wants_write() {
            let written = self.tls.write_tls(&mut self.out);
            written.map_err(|error| Failure::Broken(stage, error.kind()))?;
        }
        let broken = |error: io::Error| Failure::Broken(stage, error.kind());
        let Some((piece, pause)) = self.trickle else {
            return match self.out.is_empty() {
                true => Ok(()),
                false => self.stream.write_all(&self.out).await.map_err(broken),
            };
        };
        for piece in self.out.chunks(piece) {
            self.stream.write_all(piece).await.map_err(broken)?;
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }
}

/// What one read brought.
pub(crate) struct Read {
    /// The server has ended its side.
    pub(crate) ended: bool,
    /// Bytes of plaintext.
    pub(crate) bytes: usize,
}

/// Plaintext given to rustls at once: what its buffer takes.
const PART: usize = 32 * 1024;
