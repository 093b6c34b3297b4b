//! Files and names become a [`Table`]: certificates and keys are read and matched, backends resolved.

use std::time::SystemTime;

use crate::config::{CertificateFiles, Config, Ocsp};
use crate::snapshot::Table;

/// A configuration whose files were read and found usable.
pub struct Loaded {
    /// What the workers serve from.
    pub table: Table,
    /// One for each certificate of the table, in its order.
    pub subjects: Vec<Subject>,
    /// What does not prevent serving but should be known, each a sentence.
    pub warnings: Vec<String>,
}

/// What control does about one certificate of the table.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The files it came from.
    pub files: CertificateFiles,
    /// Names of the sites that use it.
    pub sites: Vec<String>,
    /// Kind of revocation information it has.
    pub class: Class,
    /// Stapling as configured.
    pub ocsp: Ocsp,
    /// Responders to ask in turn; empty: nothing is fetched.
    pub responders: Vec<String>,
}

/// Where a certificate's revocation state can be learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// An OCSP responder, its own or a configured one.
    Ocsp,
    /// Only a CRL.
    CrlOnly,
    /// Valid for ten days at most and without pointers: needs none.
    ShortLived,
    /// Nothing.
    None,
}

/// Everything that makes the files of a configuration unusable, all found in one go.
#[derive(Debug)]
pub struct LoadError {
    /// One sentence each, naming the file, the cause and the remedy.
    pub problems: Vec<String>,
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for LoadError {}

/// Reads all certificates and keys, resolves all backends, and builds the table of `epoch`.
/// `kept` is the table in force: a key that can no longer be read, its privileges gone, is taken
/// from there when the certificate did not change. Blocks: files and name resolution.
pub fn load(
    config: &Config,
    epoch: u64,
    kept: Option<&Table>,
    at: SystemTime,
) -> Result<Loaded, LoadError> {
    let _ = (config, epoch, kept, at);
    todo!()
}
