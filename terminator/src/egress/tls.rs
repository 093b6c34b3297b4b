//! TLS to https responders: an ordinary client that verifies the server's chain and name.
//!
//! Whether that certificate was revoked is not asked: it would need an OCSP response in order to get
//! one (RFC 5280 section 8). What is fetched carries a signature of its own.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::target::Host;

/// Makes connections secure.
#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

impl Tls {
    /// Trusts these CAs (DER), or Mozilla's where there are none.
    pub(super) fn new(anchors: &[Vec<u8>]) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        if anchors.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        for anchor in anchors {
            roots.add(CertificateDer::from(anchor.as_slice()))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Each connection is for one request.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// The handshake, with a server that must prove to be `host`.
    pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        host: &Host,
    ) -> Result<TlsStream<S>, String> {
        let name = match host {
            Host::Name(name) => {
                let name = name.strip_suffix('.').unwrap_or(name).to_owned();
                ServerName::try_from(name).map_err(|error| error.to_string())?
            }
            Host::Address(address) => ServerName::IpAddress(IpAddr::into(*address)),
        };
        self.0
            .connect(name, stream)
            .await
            .map_err(|error| error.to_string())
    }
}
