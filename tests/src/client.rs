//! A TLS client (rustls) that shows what the server did: version, suite, group, staple, resumption.
//!
//! It checks the certificate against the test's roots as a real client would. It does not verify the
//! staple: a test does that with [`clinch::ocsp::verify`], or looks at the bytes.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup,
    ProtocolVersion, RootCertStore, SignatureScheme, StreamOwned, SupportedProtocolVersion,
};

use crate::PROMPT;

/// How a client goes about its handshakes. Sessions are remembered per `Client`.
#[derive(Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
}

/// What to offer; the default offers everything.
#[derive(Clone, Default)]
pub struct Offer {
    /// Protocol versions; empty: all.
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// Groups in order of preference; empty: all.
    pub groups: Vec<NamedGroup>,
    /// Suites in order of preference; empty: all.
    pub suites: Vec<rustls::CipherSuite>,
    /// Signature schemes; empty: all.
    pub schemes: Vec<SignatureScheme>,
    /// ALPN protocols.
    pub alpn: Vec<&'static str>,
}

/// A connection whose handshake is complete.
pub struct Session {
    /// The connection; reads and writes are application data.
    pub stream: StreamOwned<ClientConnection, TcpStream>,
    /// The staple, if the server sent one in this handshake. A resumed handshake carries none.
    pub staple: Option<Vec<u8>>,
    /// The chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
}

impl Client {
    /// Offers everything and trusts `root`.
    pub fn new(root: &CertificateDer<'static>) -> Self {
        Self::offering(root, &Offer::default())
    }

    /// Offers TLS 1.2 alone.
    pub fn tls12(root: &CertificateDer<'static>) -> Self {
        let versions = vec![&rustls::version::TLS12];
        Self::offering(
            root,
            &Offer {
                versions,
                ..Offer::default()
            },
        )
    }

    /// Offers what `offer` says.
    pub fn offering(root: &CertificateDer<'static>, offer: &Offer) -> Self {
        let mut provider = aws_lc_rs::default_provider();
        if !offer.suites.is_empty() {
            provider
                .cipher_suites
                .retain(|s| offer.suites.contains(&s.suite()));
        }
        if !offer.groups.is_empty() {
            provider.kx_groups = ordered_groups(&provider, &offer.groups);
        }
        let provider = Arc::new(provider);
        let mut roots = RootCertStore::empty();
        roots
            .add(root.clone())
            .expect("the test's root is a certificate");
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .expect("one root");
        let seen = Arc::new(Seen {
            webpki,
            schemes: offer.schemes.clone(),
        });
        let versions: &[&SupportedProtocolVersion] = match &offer.versions[..] {
            [] => rustls::ALL_VERSIONS,
            some => some,
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions and suites go together")
            .dangerous()
            .with_custom_certificate_verifier(seen)
            .with_no_client_auth();
        config.alpn_protocols = offer.alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        Self {
            config: Arc::new(config),
        }
    }

    /// The same client without server names: it sends no SNI.
    pub fn without_sni(mut self) -> Self {
        Arc::make_mut(&mut self.config).enable_sni = false;
        self
    }

    /// Connects and completes a handshake for `name`.
    pub fn connect(&self, address: SocketAddr, name: &str) -> io::Result<Session> {
        let tcp = TcpStream::connect(address)?;
        self.over(tcp, name)
    }

    /// Completes a handshake for `name` over a connection.
    pub fn over(&self, mut tcp: TcpStream, name: &str) -> io::Result<Session> {
        tcp.set_read_timeout(Some(PROMPT))?;
        tcp.set_write_timeout(Some(PROMPT))?;
        tcp.set_nodelay(true)?;
        let mut tls = self.start(name);
        STAPLE.take();
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        let staple = STAPLE.take();
        let chain = tls.peer_certificates().unwrap_or_default().to_vec();
        let stream = StreamOwned::new(tls, tcp);
        Ok(Session {
            stream,
            staple,
            chain,
        })
    }

    /// The first flight for `name`: the bytes of a ClientHello as this client sends it.
    pub fn hello(&self, name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.start(name)
            .write_tls(&mut bytes)
            .expect("a Vec takes all bytes");
        bytes
    }

    /// A connection that has not sent anything yet.
    pub fn start(&self, name: &str) -> ClientConnection {
        let name = ServerName::try_from(name.to_owned()).expect("a valid server name");
        ClientConnection::new(self.config.clone(), name).expect("a usable configuration")
    }
}

impl Session {
    /// The protocol version.
    pub fn version(&self) -> ProtocolVersion {
        self.stream.conn.protocol_version().expect("complete")
    }

    /// The cipher suite.
    pub fn suite(&self) -> rustls::CipherSuite {
        self.stream
            .conn
            .negotiated_cipher_suite()
            .expect("complete")
            .suite()
    }

    /// The key exchange group; none where a TLS 1.2 session was resumed.
    pub fn group(&self) -> Option<NamedGroup> {
        self.stream
            .conn
            .negotiated_key_exchange_group()
            .map(|g| g.name())
    }

    /// Whether the server took up an earlier session.
    pub fn resumed(&self) -> bool {
        self.stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The ALPN protocol.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.stream.conn.alpn_protocol()
    }

    /// Sends bytes and reads as many back; they must be the same.
    #[track_caller]
    pub fn echo(&mut self, bytes: &[u8]) {
        self.stream
            .write_all(bytes)
            .expect("clinch takes the bytes");
        let mut back = vec![0; bytes.len()];
        self.stream
            .read_exact(&mut back)
            .expect("the bytes come back");
        assert!(back == bytes, "the bytes that came back are not those sent");
    }

    /// Ends this direction: close_notify, then the end of the TCP stream.
    pub fn finish(&mut self) -> io::Result<()> {
        self.stream.conn.send_close_notify();
        self.stream.flush()?;
        self.stream.sock.shutdown(Shutdown::Write)
    }

    /// Reads to the end; an end without close_notify is an error (`UnexpectedEof`).
    pub fn read_to_close(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// Waits at most this long in each read.
    pub fn patience(&self, limit: Duration) {
        self.stream
            .sock
            .set_read_timeout(Some(limit))
            .expect("a positive time");
    }
}

thread_local! {
    /// The staple that the verifier saw in this thread's handshake. One verifier serves all
    /// connections of a client, since rustls resumes no session that another verifier checked.
    static STAPLE: Cell<Option<Vec<u8>>> = const { Cell::new(None) };
}

/// Checks certificates as webpki does and keeps the staple.
#[derive(Debug)]
struct Seen {
    webpki: Arc<WebPkiServerVerifier>,
    schemes: Vec<SignatureScheme>,
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
        let verified = self
            .webpki
            .verify_server_cert(leaf, issuers, name, staple, now)?;
        STAPLE.set((!staple.is_empty()).then(|| staple.to_vec()));
        Ok(verified)
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
        match &self.schemes[..] {
            [] => self.webpki.supported_verify_schemes(),
            some => some.to_vec(),
        }
    }
}

fn ordered_groups(
    provider: &CryptoProvider,
    order: &[NamedGroup],
) -> Vec<&'static dyn rustls::crypto::SupportedKxGroup> {
    order
        .iter()
        .map(|name| {
            aws_lc_rs::ALL_KX_GROUPS
                .iter()
                .chain(&provider.kx_groups)
                .find(|group| group.name() == *name)
                .copied()
                .unwrap_or_else(|| panic!("rustls has no group {name:?}"))
        })
        .collect()
}
