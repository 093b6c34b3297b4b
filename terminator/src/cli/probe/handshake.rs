//! One TLS handshake as a client, with everything that the server showed kept for the report.
//!
//! Signatures of the handshake are verified; whether the chain is trusted is found out beside it
//! and reported, so that a server with a private CA can be looked at as well.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// What a server did in one handshake.
#[derive(Debug)]
pub(super) struct Seen {
    /// The address that answered.
    pub(super) address: SocketAddr,
    /// Protocol version, e.g. `TLSv1_3`.
    pub(super) version: String,
    /// Cipher suite by its IANA name.
    pub(super) cipher: String,
    /// Key exchange group.
    pub(super) group: String,
    /// Certificates as sent, leaf first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Stapled OCSP response; empty: none.
    pub(super) staple: Vec<u8>,
    /// Why the chain is not trusted by the given roots or not valid for the name.
    pub(super) distrust: Option<rustls::Error>,
}

/// Connects to the first address of `target` that answers and completes a handshake for `name`,
/// all within `deadline` for each address.
pub(super) fn handshake(
    target: &str,
    name: ServerName<'static>,
    roots: RootCertStore,
    deadline: Duration,
) -> anyhow::Result<Seen> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let recorder = Arc::new(Recorder::new(&provider, roots)?);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&recorder) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let (mut stream, address, until) = connect(target, deadline)?;
    let mut client = ClientConnection::new(Arc::new(config), name.clone())?;
    while client.is_handshaking() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("{address} did not complete the handshake within {deadline:?}");
        }
        stream.set_read_timeout(Some(left))?;
        stream.set_write_timeout(Some(left))?;
        client
            .complete_io(&mut stream)
            .map_err(|error| explain(error, address, &name))?;
    }
    client.send_close_notify();
    // The figures are there; a server that closes first takes nothing away from them.
    let _ = client.complete_io(&mut stream);
    let recorded = recorder.take();
    Ok(Seen {
        address,
        version: word(client.protocol_version()),
        cipher: word(client.negotiated_cipher_suite().map(|suite| suite.suite())),
        group: word(client.negotiated_key_exchange_group().map(|g| g.name())),
        chain: recorded.chain,
        staple: recorded.staple,
        distrust: recorded.distrust,
    })
}

fn connect(target: &str, deadline: Duration) -> anyhow::Result<(TcpStream, SocketAddr, Instant)> {
    let addresses = target
        .to_socket_addrs()
        .with_context(|| format!("cannot find an address for {target}"))?;
    let mut failure = anyhow!("{target} has no address");
    for address in addresses {
        let until = Instant::now() + deadline;
        match TcpStream::connect_timeout(&address, deadline) {
            Ok(stream) => return Ok((stream, address, until)),
            Err(error) => failure = anyhow!("cannot connect to {address}: {error}"),
        }
    }
    Err(failure)
}

/// A failed handshake in words, with what most often stands behind it.
fn explain(error: io::Error, address: SocketAddr, name: &ServerName<'_>) -> anyhow::Error {
    let name = name.to_str();
    if matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    ) {
        return anyhow!("{address} did not answer the handshake in time");
    }
    let inner = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::AlertReceived(AlertDescription::UnrecognisedName)) => anyhow!(
            "{address} refused the handshake (unrecognized_name): it serves no site `{name}`; try --name"
        ),
        Some(rustls::Error::AlertReceived(AlertDescription::HandshakeFailure)) => anyhow!(
            "{address} refused the handshake (handshake_failure): nothing in common, or a staple that must be there is not"
        ),
        Some(rustls::Error::AlertReceived(alert)) => {
            anyhow!("{address} refused the handshake: alert {alert:?}")
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            anyhow!("{address} does not speak TLS on this port: {error}")
        }
        _ => anyhow!("the handshake with {address} failed: {error}"),
    }
}

fn word(value: Option<impl std::fmt::Debug>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| format!("{value:?}"))
}

/// Keeps what the server shows, and judges the chain without ending the handshake over it.
#[derive(Debug)]
struct Recorder {
    /// `None` without any root: then nothing is trusted.
    judge: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    recorded: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    chain: Vec<CertificateDer<'static>>,
    staple: Vec<u8>,
    distrust: Option<rustls::Error>,
}

impl Recorder {
    fn new(provider: &Arc<CryptoProvider>, roots: RootCertStore) -> anyhow::Result<Self> {
        let judge = if roots.is_empty() {
            None
        } else {
            let provider = Arc::clone(provider);
            Some(WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build()?)
        };
        Ok(Self {
            judge,
            provider: Arc::clone(provider),
            recorded: Mutex::default(),
        })
    }

    fn take(&self) -> Recorded {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut recorded)
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        staple: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = match &self.judge {
            Some(judge) => judge.verify_server_cert(leaf, intermediates, name, &[], now),
            None => Err(rustls::CertificateError::UnknownIssuer.into()),
        };
        let chain = std::iter::once(leaf).chain(intermediates);
        *self.recorded.lock().unwrap_or_else(PoisonError::into_inner) = Recorded {
            chain: chain.map(|der| der.clone().into_owned()).collect(),
            staple: staple.to_vec(),
            distrust: verdict.err(),
        };
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
