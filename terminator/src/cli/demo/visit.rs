//! A client's visit: a full handshake, its staple verified, and a page fetched through it.

use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned, SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::backend::greeting;
use crate::clock;
use crate::ocsp::{self, Policy, VerifiedStaple};

/// Where to go, and what must be found there.
pub(super) struct Visit {
    pub(super) address: SocketAddr,
    pub(super) name: &'static str,
    pub(super) version: &'static SupportedProtocolVersion,
    pub(super) root: CertificateDer<'static>,
    pub(super) leaf: CertificateDer<'static>,
    pub(super) issuer: CertificateDer<'static>,
}

/// What was found.
pub(super) struct Visited {
    group: String,
    suite: String,
    staple: Result<VerifiedStaple, String>,
    page: bool,
}

impl fmt::Display for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:21} {:?} {}",
            self.name, self.version.version, self.address
        )
    }
}

impl fmt::Display for Visited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}  ", self.group, self.suite)?;
        match &self.staple {
            Ok(staple) => write!(
                f,
                "stapled: good, {} bytes, until {}",
                staple.der().len(),
                clock::rfc3339(staple.not_after())
            )?,
            Err(why) => write!(f, "not stapled: {why}")?,
        }
        write!(
            f,
            "  backend: {}",
            if self.page {
                "answered"
            } else {
                "wrong answer"
            }
        )
    }
}

impl Visited {
    /// A verified staple and the right page.
    pub(super) fn is_right(&self) -> bool {
        self.staple.is_ok() && self.page
    }
}

impl Visit {
    /// Goes there.
    pub(super) fn make(&self) -> anyhow::Result<Visited> {
        let (config, seen) = self.client()?;
        let tls = ClientConnection::new(config, ServerName::try_from(self.name)?)?;
        let tcp = TcpStream::connect_timeout(&self.address, PATIENCE).context("no connection")?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(tls, tcp);
        let host = format!("{}:{}", self.name, self.address.port());
        write!(
            stream,
            "GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let tls = &stream.conn;
        ensure!(
            tls.peer_certificates().and_then(|chain| chain.first()) == Some(&self.leaf),
            "another certificate was served"
        );
        Ok(Visited {
            group: tls
                .negotiated_key_exchange_group()
                .map_or("?".to_owned(), |group| format!("{:?}", group.name())),
            suite: tls
                .negotiated_cipher_suite()
                .map_or("?".to_owned(), |suite| format!("{:?}", suite.suite())),
            staple: self.judge(&seen.staple()),
            page: answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&greeting(&host)),
        })
    }

    fn judge(&self, staple: &[u8]) -> Result<VerifiedStaple, String> {
        if staple.is_empty() {
            return Err("the server sent none".to_owned());
        }
        let now = SystemTime::now();
        ocsp::verify(staple, &self.leaf, &self.issuer, &Policy::default(), now)
            .map_err(|refusal| refusal.to_string())
    }

    fn client(&self) -> anyhow::Result<(Arc<ClientConfig>, Arc<Seen>)> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone())?;
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()?;
        let seen = Arc::new(Seen {
            webpki,
            staple: Mutex::default(),
        });
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[self.version])?
            .dangerous()
            .with_custom_certificate_verifier(seen.clone())
            .with_no_client_auth();
        Ok((Arc::new(config), seen))
    }
}

/// Verifies certificates as webpki does and keeps the staple.
#[derive(Debug)]
struct Seen {
    webpki: Arc<WebPkiServerVerifier>,
    staple: Mutex<Vec<u8>>,
}

impl Seen {
    fn staple(&self) -> Vec<u8> {
        self.staple
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        staple: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        staple.clone_into(&mut self.staple.lock().unwrap_or_else(PoisonError::into_inner));
        self.webpki
            .verify_server_cert(leaf, issuers, name, staple, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// For each step of a visit.
const PATIENCE: Duration = Duration::from_secs(10);
