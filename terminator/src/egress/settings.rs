//! What the egress worker must know of the configuration. Control reads it and sends it; the worker
//! opens no file for it.

use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::policy::Policy;
use crate::config::{self, Proxy, Resolver};
use crate::limits::{EGRESS_ANCHORS, EGRESS_CHUNK_BYTES};

/// Settings of the worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Where requests may go.
    pub policy: Policy,
    /// The only host that is connected to, if there is one.
    pub proxy: Option<Proxy>,
    /// DNS servers of its own; `None`: the system looks up.
    pub resolver: Option<Resolver>,
    /// Certificates of CAs, DER, for https; none: Mozilla's. Sent in frames of their own.
    #[serde(skip)]
    pub anchors: Vec<Vec<u8>>,
    /// Control says whether a connection may be made, once the addresses are known.
    pub(super) announce: bool,
}

/// `egress.trust` cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`egress.trust`, {}: {reason}; it must be a PEM file with certificates of CAs", .path.display())]
pub struct TrustError {
    path: PathBuf,
    reason: String,
}

impl Settings {
    /// What a configuration says. Reads the trust file, if one is named.
    pub fn read(config: &config::Egress) -> Result<Self, TrustError> {
        let anchors = match &config.trust {
            Some(path) => anchors(path)?,
            None => Vec::new(),
        };
        Ok(Self {
            policy: Policy::of(config),
            proxy: config.proxy.clone(),
            resolver: config.resolver.clone(),
            anchors,
            announce: false,
        })
    }
}

fn anchors(path: &Path) -> Result<Vec<Vec<u8>>, TrustError> {
    let failed = |reason: String| TrustError {
        path: path.to_owned(),
        reason,
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(|error| failed(error.to_string()))?
        .take(EGRESS_ANCHORS + 1)
        .map(|read| read.map(|der| der.as_ref().to_vec()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(error.to_string()))?;
    if certificates.is_empty() {
        return Err(failed("it has no certificate".to_owned()));
    }
    if certificates.len() > EGRESS_ANCHORS {
        return Err(failed(format!(
            "it has more than {EGRESS_ANCHORS} certificates"
        )));
    }
    for der in &certificates {
        if der.len() > EGRESS_CHUNK_BYTES {
            return Err(failed(format!("a certificate has {} bytes", der.len())));
        }
        let der = CertificateDer::from(der.as_slice());
        webpki::anchor_from_trusted_cert(&der).map_err(|error| failed(error.to_string()))?;
    }
    Ok(certificates)
}
