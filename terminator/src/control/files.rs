//! Certificate and key files are read, bounded, and keys only where nobody else can read them.
//!
//! What is in the files is not looked at; [`crate::certificate`] does that.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::limits::CREDENTIAL_FILE_BYTES;

/// Why a file was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// It is not there.
    #[error("{} does not exist; correct the path in the configuration", .0.display())]
    Absent(PathBuf),
    /// It may not be read.
    #[error("{} may not be read by user id {uid}; `chown {uid}` it, or start clinch as a user who may", .path.display())]
    NotReadable {
        /// Of the file.
        path: PathBuf,
        /// Who tried.
        uid: u32,
    },
    /// A directory, a pipe or a device.
    #[error("{} is not a regular file; name the file itself in the configuration", .0.display())]
    NotAFile(PathBuf),
    /// Larger than any certificate chain or key.
    #[error("{} is larger than {CREDENTIAL_FILE_BYTES} bytes; it cannot be a certificate or a key", .0.display())]
    TooLarge(PathBuf),
    /// A key that others can read or change.
    #[error(
        "the key {} has mode {mode:o}: users other than its owner can use it; `chmod 600 {}`, and replace the key if others have an account on this machine", .path.display(), .path.display()
    )]
    Exposed {
        /// Of the file.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// A key that somebody else put there.
    #[error("the key {} belongs to user id {uid}, who is neither root nor the user of clinch; `chown` it to one of them", .path.display())]
    Foreign {
        /// Of the file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Anything else that the system said.
    #[error("{} cannot be read: {reason}", .path.display())]
    System {
        /// Of the file.
        path: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },
}

/// Reads a certificate file.
pub(super) fn read_chain(path: &Path) -> Result<Vec<u8>, FileError> {
    let (mut file, _) = open(path)?;
    let mut bytes = Vec::new();
    read(path, &mut file, &mut bytes)?;
    Ok(bytes)
}

/// Reads a key file. Its owner must be root or one of `owners`, and
/// nobody else may have any right to it. The open file is judged, not the name, so that it cannot
/// be exchanged in between.
pub(super) fn read_key(path: &Path, owners: &[u32]) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let (mut file, metadata) = open(path)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let path = path.to_owned();
        return Err(FileError::Exposed { path, mode });
    }
    let uid = metadata.uid();
    if uid != 0 && !owners.contains(&uid) {
        let path = path.to_owned();
        return Err(FileError::Foreign { path, uid });
    }
    // Sized once: a growing buffer would leave copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(CREDENTIAL_FILE_BYTES as usize + 1));
    read(path, &mut file, &mut bytes)?;
    Ok(bytes)
}

fn open(path: &Path) -> Result<(File, std::fs::Metadata), FileError> {
    let system = |reason: io::Error| match reason.kind() {
        io::ErrorKind::NotFound => FileError::Absent(path.to_owned()),
        io::ErrorKind::PermissionDenied => FileError::NotReadable {
            path: path.to_owned(),
            uid: rustix::process::geteuid().as_raw(),
        },
        _ => FileError::System {
            path: path.to_owned(),
            reason,
        },
    };
    let file = OpenOptions::new()
        .read(true)
        // Opening a pipe would wait for a writer.
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(system)?;
    let metadata = file.metadata().map_err(system)?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile(path.to_owned()));
    }
    Ok((file, metadata))
}

fn read(path: &Path, file: &mut File, bytes: &mut Vec<u8>) -> Result<(), FileError> {
    file.take(CREDENTIAL_FILE_BYTES + 1)
        .read_to_end(bytes)
        .map_err(|reason| FileError::System {
            path: path.to_owned(),
            reason,
        })?;
    if bytes.len() as u64 > CREDENTIAL_FILE_BYTES {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key_with_mode(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("site.key");
        fs::write(&path, "key").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("changed");
        (directory, path)
    }

    fn us() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[test]
    fn a_key_is_read_only_where_nobody_else_has_a_right_to_it() {
        for mode in [0o600, 0o400] {
            let (_directory, path) = key_with_mode(mode);
            let bytes = read_key(&path, &[us()]).expect("private");
            assert_eq!(*bytes, *b"key");
        }
        for mode in [0o640, 0o644, 0o604, 0o660, 0o601] {
            let (_directory, path) = key_with_mode(mode);
            let error = read_key(&path, &[us()]).expect_err("exposed").to_string();
            assert!(error.contains(&format!("mode {mode:o}")), "{error}");
            assert!(error.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn a_key_of_another_user_is_refused() {
        if us() != 0 {
            eprintln!("SKIPPED: only root can give a file away");
            return;
        }
        let (_directory, path) = key_with_mode(0o600);
        std::os::unix::fs::chown(&path, Some(4242), None).expect("given away");
        let error = read_key(&path, &[us()]).expect_err("foreign");
        assert!(matches!(error, FileError::Foreign { uid: 4242, .. }));
        assert!(read_key(&path, &[us(), 4242]).is_ok());
    }

    #[test]
    fn what_is_no_file_of_reasonable_size_is_refused_without_waiting() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .expect("a pipe");
        assert!(matches!(read_chain(&path), Err(FileError::NotAFile(_))));
        assert!(matches!(
            read_chain(directory.path()),
            Err(FileError::NotAFile(_))
        ));
        let path = directory.path().join("absent");
        assert!(matches!(read_chain(&path), Err(FileError::Absent(_))));
        let path = directory.path().join("large");
        fs::write(&path, vec![b'x'; CREDENTIAL_FILE_BYTES as usize + 1]).expect("written");
        assert!(matches!(read_chain(&path), Err(FileError::TooLarge(_))));
    }
}
