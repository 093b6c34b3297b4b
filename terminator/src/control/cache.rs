//! Staples and revocations that survive a restart: one file per certificate in a directory, DER as the responder
//! sent it (`openssl ocsp -respin FILE -text` shows it), named after the certificate's fingerprint; and
//! the CRLs that revoke a certificate.
//!
//! Nothing read here is believed: the caller verifies it like a response from the network. A file is
//! complete or absent, because it is written beside its name and renamed. Its modification time is
//! the end of its use, by which files of certificates that are no longer served are
//! found and removed. All calls block.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::certificate::Fingerprint;
use crate::limits::{CRL_BYTES, OCSP_RESPONSE_BYTES};
use crate::ocsp::{Revocation, VerifiedStaple};

/// The directory.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    directory: PathBuf,
}

/// What went wrong with the cache. Serving goes on without it.
#[derive(Debug, thiserror::Error)]
#[error(
    "the staple cache {}: {step} failed: {reason}; serving goes on, but a restart finds nothing there{}",
    .path.display(), remedy(.reason)
)]
pub(super) struct CacheError {
    path: PathBuf,
    step: &'static str,
    reason: io::Error,
}

fn remedy(reason: &io::Error) -> &'static str {
    match reason.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ": make room on the disk",
        io::ErrorKind::NotFound => ": make the directory, or change `cache_dir`",
        io::ErrorKind::ReadOnlyFilesystem => ": mount it writable, or change `cache_dir`",
        io::ErrorKind::PermissionDenied => {
            ": give the directory to the user that clinch runs as, or change `cache_dir`"
        }
        _ => "",
    }
}

impl Cache {
    /// Uses a directory that is there.
    pub(super) fn new(directory: &Path) -> Self {
        let directory = directory.to_owned();
        Self { directory }
    }

    /// The response kept for a certificate.
    pub(super) fn read(&self, certificate: Fingerprint) -> Result<Option<Vec<u8>>, CacheError> {
        read(&self.path(certificate), OCSP_RESPONSE_BYTES)
    }

    /// The CRL kept under a name.
    pub(super) fn read_list(&self, name: Fingerprint) -> Result<Option<Vec<u8>>, CacheError> {
        read(&self.list_path(name), CRL_BYTES)
    }

    /// Keeps a CRL, as it came, until the certificates that it revokes end.
    pub(super) fn write_list(
        &self,
        name: Fingerprint,
        list: &[u8],
        until: SystemTime,
    ) -> Result<(), CacheError> {
        self.put(&self.list_path(name), list, until)
    }

    /// Removes a CRL, if there is one.
    pub(super) fn remove_list(&self, name: Fingerprint) -> Result<(), CacheError> {
        let path = self.list_path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failure(&path, "removing", error))
            }
            _ => Ok(()),
        }
    }

    /// Keeps a staple in place of what was there.
    pub(super) fn write(&self, staple: &VerifiedStaple) -> Result<(), CacheError> {
        let path = self.path(staple.certificate());
        self.put(&path, staple.der(), staple.not_after())
    }

    /// Keeps the response by which the CA revoked a certificate in place of what was there, so that a
    /// restart knows of it while the responder is down. `until` is the certificate's own end.
    pub(super) fn write_revocation(
        &self,
        revocation: &Revocation,
        until: SystemTime,
    ) -> Result<(), CacheError> {
        let path = self.path(revocation.certificate());
        self.put(&path, revocation.der(), until)
    }

    fn put(&self, path: &Path, der: &[u8], until: SystemTime) -> Result<(), CacheError> {
        let beside = path.with_extension(UNFINISHED);
        let written = write_beside(&beside, der, until)
            .and_then(|()| rename(&beside, path))
            .and_then(|()| sync_directory(&self.directory));
        if written.is_err() {
            // On a full disk the part that was written is in the way of everybody.
            let _ = fs::remove_file(&beside);
        }
        written
    }

    /// Removes what certificates outside `served` left behind: responses of no use from `at` on,
    /// and unfinished files. Other files are not touched. Returns how many were removed.
    pub(super) fn prune(
        &self,
        served: &HashSet<Fingerprint>,
        at: SystemTime,
    ) -> Result<usize, CacheError> {
        let failed = |step| move |reason| failure(&self.directory, step, reason);
        let names: HashSet<String> = served.iter().map(Fingerprint::to_string).collect();
        let mut removed = 0;
        for entry in fs::read_dir(&self.directory).map_err(failed("listing"))? {
            let entry = entry.map_err(failed("listing"))?;
            let path = entry.path();
            let (Some(stem), Some(extension)) = (
                path.file_stem().and_then(|stem| stem.to_str()),
                path.extension().and_then(|extension| extension.to_str()),
            ) else {
                continue;
            };
            let ours = stem.len() == 64 && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
            let over = || {
                let modified = entry.metadata().and_then(|metadata| metadata.modified());
                modified.is_ok_and(|end| end < at)
            };
            let useless = ours
                && match extension {
                    UNFINISHED => true,
                    FINISHED => !names.contains(stem) && over(),
                    LIST => over(),
                    _ => false,
                };
            if useless {
                fs::remove_file(&path).map_err(failed("removing"))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn path(&self, certificate: Fingerprint) -> PathBuf {
        self.directory.join(format!("{certificate}.{FINISHED}"))
    }

    fn list_path(&self, name: Fingerprint) -> PathBuf {
        self.directory.join(format!("{name}.{LIST}"))
    }
}

/// At most one byte more than `most`, so that the verifier refuses what is longer.
fn read(path: &Path, most: usize) -> Result<Option<Vec<u8>>, CacheError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failure(path, "opening", error)),
    };
    let mut bytes = Vec::new();
    file.take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failure(path, "reading", error))?;
    Ok(Some(bytes))
}

fn write_beside(path: &Path, der: &[u8], until: SystemTime) -> Result<(), CacheError> {
    let failed = |step| move |reason| failure(path, step, reason);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("creating"))?;
    file.write_all(der).map_err(failed("writing"))?;
    file.set_modified(until)
        .map_err(failed("setting the time"))?;
    file.sync_all().map_err(failed("syncing"))
}

fn rename(from: &Path, to: &Path) -> Result<(), CacheError> {
    fs::rename(from, to).map_err(|reason| failure(to, "renaming", reason))
}

fn sync_directory(directory: &Path) -> Result<(), CacheError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|reason| failure(directory, "syncing", reason))
}

fn failure(path: &Path, step: &'static str, reason: io::Error) -> CacheError {
    CacheError {
        path: path.to_owned(),
        step,
        reason,
    }
}

/// Extension of a kept response: what `openssl` writes too.
const FINISHED: &str = "ocsp";

/// Extension of a kept CRL.
const LIST: &str = "crl";

/// Extension of a file that is being written.
const UNFINISHED: &str = "part";
