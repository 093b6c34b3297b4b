//! The client of every measurement: one connection at a time through rustls or in the clear, strict
//! about what the server must have done.
//!
//! It does not verify signatures: that is the client's CPU and would only slow the load down. It does
//! check, in every handshake, what a fair comparison rests on: the very certificate, exactly the staple
//! expected (or none), a full handshake, the one cipher suite and group offered, and no tickets.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    DigitallySignedStruct, HandshakeKind, NamedGroup, SignatureScheme, SupportedProtocolVersion,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::relay::HANDSHAKE;

/// The cipher suites measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// TLS_AES_128_GCM_SHA256.
    Aes128Gcm,
    /// TLS_CHACHA20_POLY1305_SHA256.
    ChaCha20,
}

/// A provider with one suite and one group, so that what is negotiated is what was meant.
pub fn provider(suite: Suite, group: NamedGroup) -> Result<CryptoProvider> {
    let suite = match suite {
        Suite::Aes128Gcm => aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        Suite::ChaCha20 => aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    };
    let kx = aws_lc_rs::ALL_KX_GROUPS.iter().copied();
    let kx = kx.filter(|kx| kx.name() == group).collect::<Vec<_>>();
    ensure!(kx.len() == 1, "aws-lc-rs has no {group:?}");
    Ok(CryptoProvider {
        cipher_suites: vec![suite],
        kx_groups: kx,
        ..aws_lc_rs::default_provider()
    })
}

/// What the client asks for and holds the server to.
#[derive(Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Client {
    /// A client of the site `name`, which has the certificate `leaf` and staples `staple`.
    pub fn new(
        name: &str,
        leaf: &CertificateDer<'static>,
        staple: Option<&[u8]>,
        suite: Suite,
        group: NamedGroup,
    ) -> Result<Self> {
        let expected = Expected {
            leaf: leaf.clone(),
            staple: staple.unwrap_or_default().to_vec(),
        };
        let provider = provider(suite, group)?;
        Ok(Self {
            config: Arc::new(configuration(provider, &rustls::version::TLS13, expected)?),
            name: ServerName::try_from(name.to_owned())?,
        })
    }

    /// A client of the same kind for a site with an RSA certificate that speaks TLS 1.2 alone:
    /// ECDHE-RSA-AES128-GCM-SHA256 on X25519.
    pub fn older(
        name: &str,
        leaf: &CertificateDer<'static>,
        staple: Option<&[u8]>,
    ) -> Result<Self> {
        let mut provider = provider(Suite::Aes128Gcm, NamedGroup::X25519)?;
        provider.cipher_suites =
            vec![aws_lc_rs::cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];
        let expected = Expected {
            leaf: leaf.clone(),
            staple: staple.unwrap_or_default().to_vec(),
        };
        let config = configuration(provider, &rustls::version::TLS12, expected)?;
        Ok(Self {
            config: Arc::new(config),
            name: ServerName::try_from(name.to_owned())?,
        })
    }

    /// The same client, which keeps the tickets it gets and resumes with them. Only for use without a
    /// socket: [`Connection`] insists on full handshakes.
    pub fn resuming(mut self) -> Self {
        let config = Arc::make_mut(&mut self.config);
        config.resumption = Resumption::in_memory_sessions(256);
        self
    }

    /// The client's half of a handshake, for use without a socket.
    pub fn connection(&self) -> Result<ClientConnection, rustls::Error> {
        ClientConnection::new(Arc::clone(&self.config), self.name.clone())
    }
}

fn configuration(
    provider: CryptoProvider,
    version: &'static SupportedProtocolVersion,
    expected: Expected,
) -> Result<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(expected))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Takes exactly one certificate with exactly one staple.
struct Expected {
    leaf: CertificateDer<'static>,
    /// Empty: there must be none.
    staple: Vec<u8>,
}

impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expected(staple of {} bytes)", self.staple.len())
    }
}

impl ServerCertVerifier for Expected {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        staple: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *leaf != self.leaf {
            return Err(rustls::Error::General("another certificate".to_owned()));
        }
        if staple != self.staple {
            return Err(rustls::Error::General(format!(
                "a staple of {} bytes where one of {} is expected",
                staple.len(),
                self.staple.len()
            )));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::RSA_PSS_SHA256,
        ]
    }
}

/// A connection, with TLS or without.
pub struct Connection {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Connection {
    /// Connects, and completes the handshake if there is a client to make one.
    pub async fn open(
        address: SocketAddr,
        client: Option<&Client>,
        buffer: &mut [u8],
    ) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let tls = client.map(Client::connection).transpose()?.map(Box::new);
        let mut connection = Self { stream, tls };
        while connection
            .tls
            .as_ref()
            .is_some_and(|tls| tls.is_handshaking())
        {
            connection.flush().await?;
            let (end, _) = connection.fill(buffer, &mut Vec::new()).await?;
            ensure!(!end, "the server closed during the handshake");
        }
        connection.flush().await?;
        if let Some(tls) = &connection.tls {
            let kind = tls.handshake_kind();
            ensure!(
                kind == Some(HandshakeKind::Full),
                "not a full handshake: {kind:?}"
            );
        }
        Ok(connection)
    }

    /// In the clear: as many bytes to and fro as a handshake has.
    pub async fn flights(&mut self, buffer: &mut [u8]) -> Result<()> {
        let [hello, flight, finished] = HANDSHAKE;
        self.stream.write_all(&vec![0; hello]).await?;
        self.stream.read_exact(&mut buffer[..flight]).await?;
        self.stream.write_all(&vec![0; finished]).await?;
        Ok(())
    }

    /// Asks for `path` and reads the whole answer; says how long its body was.
    pub async fn request(&mut self, path: &str, buffer: &mut [u8]) -> Result<u64> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench.test\r\n\r\n");
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(request.as_bytes())?,
            None => self.stream.write_all(request.as_bytes()).await?,
        }
        self.flush().await?;
        let mut head = Vec::new();
        let start = loop {
            let (end, _) = self.fill(buffer, &mut head).await?;
            if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            ensure!(
                !end && head.len() < 64 * 1024,
                "an answer of {} bytes without a head",
                head.len()
            );
        };
        let length = content_length(&head[..start])?;
        let mut got = (head.len() - start) as u64;
        while got < length {
            head.clear();
            let (end, read) = self.fill(buffer, &mut head).await?;
            got += read as u64;
            ensure!(
                !end || got >= length,
                "{got} of {length} bytes, then the end"
            );
        }
        ensure!(got == length, "{got} bytes where {length} were announced");
        Ok(length)
    }

    /// Says that no more will come and waits until the server has said so too.
    pub async fn close(mut self, buffer: &mut [u8]) -> Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.flush().await?;
        self.stream.shutdown().await?;
        loop {
            match self.fill(buffer, &mut Vec::new()).await {
                Ok((true, _)) => break,
                Ok((false, _)) => {}
                // A server may reset what it regards as closed; nothing was lost by then.
                Err(error) if is_reset(&error) => break,
                Err(error) => return Err(error),
            }
        }
        let tickets = self.tls.map_or(0, |tls| tls.tls13_tickets_received());
        ensure!(tickets == 0, "the server sent {tickets} session tickets");
        Ok(())
    }

    /// Writes what rustls has ready.
    async fn flush(&mut self) -> Result<()> {
        let Some(tls) = &mut self.tls else {
            return Ok(());
        };
        let mut out = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut out)?;
        }
        if !out.is_empty() {
            self.stream.write_all(&out).await?;
        }
        Ok(())
    }

    /// Reads once. Appends the plaintext to `plain`; says whether the stream ended, and how many
    /// bytes of plaintext there were.
    async fn fill(&mut self, buffer: &mut [u8], plain: &mut Vec<u8>) -> Result<(bool, usize)> {
        let n = self.stream.read(buffer).await?;
        let before = plain.len();
        let Some(tls) = &mut self.tls else {
            plain.extend_from_slice(&buffer[..n]);
            return Ok((n == 0, n));
        };
        let mut rest = &buffer[..n];
        let mut closed = n == 0;
        while !rest.is_empty() {
            tls.read_tls(&mut rest)?;
            let state = match tls.process_new_packets() {
                Ok(state) => state,
                Err(error) => bail!("the server broke TLS: {error}"),
            };
            match tls.reader().read_to_end(plain) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            closed |= state.peer_has_closed();
        }
        Ok((closed, plain.len() - before))
    }
}

fn is_reset(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionReset)
}

fn content_length(head: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(head)?;
    ensure!(
        text.starts_with("HTTP/1.1 200 "),
        "an answer that is not 200: {text}"
    );
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim())
    });
    Ok(value.context("an answer without Content-Length")?.parse()?)
}
