//! ClientHellos for the tests: built by hand field by field, or made by a real TLS client.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part of this module"
)]

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// A ClientHello to be written.
#[derive(Clone, Debug)]
pub struct Hand {
    pub version: u16,
    pub session_id: Vec<u8>,
    pub suites: Vec<u8>,
    pub compression: Vec<u8>,
    /// `None` leaves the whole block out.
    pub extensions: Option<Vec<(u16, Vec<u8>)>>,
}

impl Default for Hand {
    fn default() -> Self {
        Self {
            version: 0x0303,
            session_id: vec![7; 32],
            suites: vec![0x13, 0x01, 0xc0, 0x2b],
            compression: vec![0],
            extensions: Some(vec![
                (0x1a1a, vec![]),
                (0, name(b"www.example.com")),
                (5, vec![1, 0, 0, 0, 0]),
                (13, list16(&[0x04, 0x03, 0x08, 0x04])),
                (16, list16(b"\x02h2\x08http/1.1")),
                (43, list8(&[0x03, 0x04, 0x03, 0x03])),
            ]),
        }
    }
}

impl Hand {
    pub fn with(mut self, kind: u16, body: Vec<u8>) -> Self {
        let extensions = self.extensions.get_or_insert_default();
        match extensions.iter_mut().find(|(k, _)| *k == kind) {
            Some((_, old)) => *old = body,
            None => extensions.push((kind, body)),
        }
        self
    }

    pub fn without(mut self, kind: u16) -> Self {
        self.extensions
            .iter_mut()
            .for_each(|e| e.retain(|(k, _)| *k != kind));
        self
    }

    /// The handshake message, header included.
    pub fn message(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([0x42; 32]);
        body.extend(list8(&self.session_id));
        body.extend(list16(&self.suites));
        body.extend(list8(&self.compression));
        if let Some(extensions) = &self.extensions {
            let mut block = Vec::new();
            for (kind, content) in extensions {
                block.extend(kind.to_be_bytes());
                block.extend(list16(content));
            }
            body.extend(list16(&block));
        }
        let mut message = vec![1, 0];
        message.extend((body.len() as u16).to_be_bytes());
        message.extend(body);
        message
    }

    /// The message in one record.
    pub fn record(&self) -> Vec<u8> {
        records(&self.message(), 1 << 14)
    }
}

/// A message cut into records of at most `size` bytes.
pub fn records(message: &[u8], size: usize) -> Vec<u8> {
    message
        .chunks(size)
        .flat_map(|part| {
            let mut record = vec![22, 3, 1];
            record.extend(list16(part));
            record
        })
        .collect()
}

pub fn list8(content: &[u8]) -> Vec<u8> {
    [&[content.len() as u8], content].concat()
}

pub fn list16(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes(), content].concat()
}

/// Content of `server_name`.
pub fn name(host: &[u8]) -> Vec<u8> {
    list16(&[&[0][..], &list16(host)].concat())
}

/// What rustls sends first, as a client of `host`.
pub fn by_rustls(
    host: &str,
    alpn: &[&str],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Vec<u8> {
    let mut config = ClientConfig::builder_with_protocol_versions(versions)
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    let host = ServerName::try_from(host.to_owned()).expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), host).expect("a client");
    let mut sent = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut sent).expect("in memory");
    }
    sent
}
