//! Certificates and staples for one run: the same for every contender.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Result;
use clinch::cli::demo::authority::{Authority, HashAlgorithm, KeyAlgorithm, LeafSpec, OcspAnswer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// One site's certificate, on disk and in memory.
pub struct Site {
    /// The name it is asked for by.
    pub name: String,
    /// PEM: leaf, then issuer.
    pub cert: PathBuf,
    /// PEM, mode 600.
    pub key: PathBuf,
    /// PEM: leaf, issuer and key in one file; `FILE.ocsp` beside it is the staple (HAProxy, Hitch).
    pub combined: PathBuf,
    /// The staple, DER.
    pub staple_file: PathBuf,
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The staple: *good*, signed by a delegated responder whose certificate is in it.
    pub staple: Vec<u8>,
}

impl Site {
    /// The private key.
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>> {
        Ok(PrivateKeyDer::from_pem_file(&self.key)?)
    }
}

/// Makes an authority and, under `directory`, a certificate and a signed response for each name.
/// Certificate `i` names `http://RESPONDER/i` as its responder; `responder` is host and port.
pub fn make(directory: &Path, responder: &str, names: &[&str]) -> Result<Vec<Site>> {
    make_with(directory, responder, names, KeyAlgorithm::P256)
}

/// The same with keys of another kind in the leaves; the authority's own are ECDSA P-256.
pub fn make_with(
    directory: &Path,
    responder: &str,
    names: &[&str],
    key: KeyAlgorithm,
) -> Result<Vec<Site>> {
    let now = SystemTime::now();
    let authority = Authority::new(now)?;
    let mut sites = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let issued = authority.issue(&LeafSpec {
            names: vec![(*name).to_owned()],
            ocsp_urls: vec![format!("http://{responder}/{index}")],
            key,
            ..LeafSpec::default()
        })?;
        let answer = OcspAnswer::good(now);
        let staple = authority.respond_about(&answer, &issued.serial, HashAlgorithm::Sha1)?;
        let path = |suffix: &str| directory.join(format!("{name}.{suffix}"));
        let combined = issued.chain_pem.clone() + &issued.key_pem;
        write(&path("pem"), issued.chain_pem.as_bytes(), 0o644)?;
        write(&path("key"), issued.key_pem.as_bytes(), 0o600)?;
        write(&path("all"), combined.as_bytes(), 0o600)?;
        write(&path("all.ocsp"), &staple, 0o644)?;
        sites.push(Site {
            name: (*name).to_owned(),
            cert: path("pem"),
            key: path("key"),
            combined: path("all"),
            staple_file: path("all.ocsp"),
            chain: vec![issued.leaf, issued.issuer],
            staple,
        });
    }
    Ok(sites)
}

/// Writes a file with these permissions.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    std::fs::write(path, bytes)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(())
}
