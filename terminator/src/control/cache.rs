//! Staples and revocations that survive a restart: one file per certificate in a directory, DER as the responder
//! sent it (`openssl ocsp -respin FILE -text` shows it), named after the certificate's fingerprint; and
//! the CRLs that revoke a certificate.
//!
//! Nothing read here is believed: the caller verifies it like a response from the network. A file is
//! complete or absent, because it is written beside its name, synced and renamed. Its modification time is
//! the end of its use, by which files of certificates that are no longer served are
//! found and removed. All calls block.
//!
//! Files are kept in groups: all are written before the first is synced, and the directory is synced once.
//! A disk takes many so in nearly the time of one, and a power cut finds few that wait.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Advice, fadvise};

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

    /// Keeps a group of entries in place of what was there, of those with one name the last. Returns
    /// how many files lie on the disk now, where a power cut leaves them, and what failed.
    pub(super) fn keep(&self, entries: &[Entry]) -> (usize, Vec<CacheError>) {
        let last: HashMap<&str, &Entry> = entries.iter().map(|e| (e.name.as_str(), e)).collect();
        let (mut kept, mut failures, mut begun) = (0, Vec::new(), Vec::with_capacity(last.len()));
        for entry in last.into_values() {
            let mut file = self.begin(entry);
            if file.is_err() && !begun.is_empty() {
                // The files that those before replace give their room back.
                kept += self.finish(&mut begun, &mut failures);
                file = self.begin(entry);
            }
            match file {
                Ok(file) => begun.push(file),
                Err(failure) => failures.push(failure),
            }
        }
        kept += self.finish(&mut begun, &mut failures);
        (kept, failures)
    }

    fn begin(&self, entry: &Entry) -> Result<Begun, CacheError> {
        let path = self.directory.join(&entry.name);
        let beside = path.with_extension(UNFINISHED);
        match write_beside(&beside, &entry.bytes, entry.until) {
            Ok(file) => Ok(Begun { file, beside, path }),
            Err(failure) => Err(discard(&beside, failure)),
        }
    }

    fn finish(&self, begun: &mut Vec<Begun>, failures: &mut Vec<CacheError>) -> usize {
        let mut finished = 0;
        for Begun { file, beside, path } in begun.drain(..) {
            let failed = |reason| failure(&beside, "syncing", reason);
            let synced = file.sync_all().map_err(failed);
            match synced.and_then(|()| rename(&beside, &path)) {
                Ok(()) => finished += 1,
                Err(failure) => failures.push(discard(&beside, failure)),
            }
        }
        if finished == 0 {
            return 0;
        }
        match sync_directory(&self.directory) {
            Ok(()) => finished,
            Err(failure) => {
                failures.push(failure);
                0
            }
        }
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
        self.directory.join(response(certificate))
    }

    fn list_path(&self, name: Fingerprint) -> PathBuf {
        self.directory.join(list(name))
    }
}

/// A file that is written beside its name.
struct Begun {
    file: File,
    beside: PathBuf,
    path: PathBuf,
}

/// What is to be kept, and until when somebody needs it.
pub(super) struct Entry {
    name: String,
    bytes: Vec<u8>,
    until: SystemTime,
}

impl Entry {
    /// A staple.
    pub(super) fn staple(staple: &VerifiedStaple) -> Self {
        Self {
            name: response(staple.certificate()),
            bytes: staple.der().to_vec(),
            until: staple.not_after(),
        }
    }

    /// The response by which the CA revoked a certificate, so that a restart knows of it while the
    /// responder is down. `until` is the certificate's own end.
    pub(super) fn revocation(revocation: &Revocation, until: SystemTime) -> Self {
        Self {
            name: response(revocation.certificate()),
            bytes: revocation.der().to_vec(),
            until,
        }
    }

    /// A CRL, as it came, until the certificates that it revokes end.
    pub(super) fn list(name: Fingerprint, bytes: Vec<u8>, until: SystemTime) -> Self {
        Self {
            name: list(name),
            bytes,
            until,
        }
    }
}

fn response(certificate: Fingerprint) -> String {
    format!("{certificate}.{FINISHED}")
}

fn list(name: Fingerprint) -> String {
    format!("{name}.{LIST}")
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

/// The file is not synced yet, but on its way to the disk.
fn write_beside(path: &Path, bytes: &[u8], until: SystemTime) -> Result<File, CacheError> {
    let failed = |step| move |reason| failure(path, step, reason);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("creating"))?;
    file.write_all(bytes).map_err(failed("writing"))?;
    file.set_modified(until)
        .map_err(failed("setting the time"))?;
    // Starts the writing, so that the first sync of a group finds all of it under way. A file system
    // that does not know of it loses time alone.
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    Ok(file)
}

/// On a full disk the part that was written is in the way of everybody.
fn discard(beside: &Path, failure: CacheError) -> CacheError {
    let _ = fs::remove_file(beside);
    failure
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::{Resource, Rlimit, setrlimit};

    use super::*;

    fn entry(name: &str, bytes: &[u8]) -> Entry {
        Entry {
            name: format!("{name}.ocsp"),
            bytes: bytes.to_vec(),
            until: SystemTime::now(),
        }
    }

    #[test]
    fn of_a_group_the_last_of_each_name_is_kept_and_a_failure_is_of_its_file_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let cache = Cache::new(dir.path());
        fs::create_dir(dir.path().join("c.part")).expect("in our own directory");
        let group = [
            entry("a", b"good"),
            entry("b", b"good"),
            entry("c", b"good"),
            entry("a", b"revoked"),
        ];
        let (kept, failures) = cache.keep(&group);
        assert_eq!((kept, failures.len()), (2, 1), "{failures:?}");
        let read = |name| fs::read(dir.path().join(name));
        assert_eq!(read("a.ocsp").expect("kept"), b"revoked");
        assert_eq!(read("b.ocsp").expect("kept"), b"good");
        assert!(read("c.ocsp").is_err());
    }

    /// Descriptors stand for the room of a disk. They are the whole process's, so it is one of its own.
    #[test]
    fn a_group_for_which_there_is_no_room_is_kept_in_parts() {
        const ALONE: &str = "CLINCH_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let name = "control::cache::tests::a_group_for_which_there_is_no_room_is_kept_in_parts";
            let done = Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", name])
                .env(ALONE, "1")
                .output()
                .expect("it runs again");
            let said = String::from_utf8_lossy(&done.stdout);
            assert!(said.contains("1 passed"), "{said}");
            return;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let few = Rlimit {
            current: Some(64),
            maximum: Some(64),
        };
        setrlimit(Resource::Nofile, few).expect("fewer are allowed");
        let mut taken = Vec::new();
        while let Ok(file) = File::open(dir.path()) {
            taken.push(file);
        }
        taken.truncate(taken.len() - 2);
        let group: Vec<Entry> = (0..7).map(|n| entry(&n.to_string(), b"good")).collect();
        let (kept, failures) = Cache::new(dir.path()).keep(&group);
        drop(taken);
        assert_eq!((kept, failures.len()), (7, 0), "{failures:?}");
        let files = fs::read_dir(dir.path()).expect("readable");
        assert_eq!(files.count(), 7);
    }

    #[test]
    fn an_empty_group_is_nothing_to_do() {
        let (kept, failures) = Cache::new(Path::new("/nowhere")).keep(&[]);
        assert_eq!((kept, failures.len()), (0, 0));
    }
}
