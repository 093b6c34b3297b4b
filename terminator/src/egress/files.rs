//! Which files the egress worker may read (Landlock): what the system's resolver needs, and no other,
//! whatever their permissions say. It can bind no TCP port, and signal no process but itself.
//!
//! A rule is about the file that is there, not about its name: where a file is replaced, the worker
//! cannot read the new one, and says so ([`Readable::has_changed`]); its monitor then starts another.
//! Binds the calling thread and all threads that it starts, for good; apply it before there are
//! others. A kernel that knows only some of the rules applies those.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

/// The files of the system's resolver as they were when the worker was confined.
#[derive(Debug, Default)]
pub(super) struct Readable {
    files: Vec<(&'static str, Option<Identity>)>,
}

/// Device and inode of a file.
type Identity = (u64, u64);

/// The kernel, or the machine, does not take the rules.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesError {
    /// There is no Landlock.
    #[error(
        "the files that the egress process may read are not limited: this kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, and `landlock` among `lsm=`); its user's permissions alone count"
    )]
    Absent,
    /// It is there and refuses.
    #[error(
        "the files that the egress process may read are not limited ({0}): a service manager or container that filters system calls must let `landlock_create_ruleset`, `landlock_add_rule` and `landlock_restrict_self` through"
    )]
    Refused(#[from] RulesetError),
}

/// Confines the calling thread. `no_new_privs` must be set.
pub(super) fn apply() -> Result<Readable, FilesError> {
    let files = FILES.iter().map(|&path| (path, identity(path))).collect();
    let readable = Readable { files };
    let reading = AccessFs::from_read(ABI::V1);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(ABI::V6))?
        .create()?;
    for path in FILES.iter().chain(DIRECTORIES) {
        // What is not there is not read.
        let Ok(opened) = PathFd::new(path) else {
            continue;
        };
        let allowed = match Path::new(path).is_dir() {
            true => reading & !AccessFs::Execute,
            false => AccessFs::ReadFile.into(),
        };
        rules = rules.add_rule(PathBeneath::new(opened, allowed))?;
    }
    match rules.restrict_self()?.ruleset {
        RulesetStatus::NotEnforced => Err(FilesError::Absent),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(readable),
    }
}

impl Readable {
    /// True where a file is now another one than the worker may read.
    pub(super) fn has_changed(&self) -> bool {
        let mut files = self.files.iter();
        files.any(|(path, then)| identity(path) != *then)
    }
}

/// Of the file that a path leads to, if it leads to one.
fn identity(path: &str) -> Option<Identity> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Read by the resolver of libc, which notices when they change.
const FILES: &[&str] = &[
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ld.so.cache",
];

/// The parts of libc's resolver that are loaded when first needed, and where other programs keep
/// resolv.conf.
const DIRECTORIES: &[&str] = &[
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
];

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{Ipv4Addr, TcpListener, ToSocketAddrs};

    use super::*;

    #[test]
    fn the_resolver_works_and_nothing_else_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let secret = directory.path().join("secret");
        fs::write(&secret, "x").expect("ours");
        let confined = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).expect("allowed");
            let readable = match apply() {
                Ok(readable) => readable,
                Err(FilesError::Absent) => {
                    eprintln!("SKIPPED: this kernel has no Landlock");
                    return;
                }
                Err(error) => panic!("{error}"),
            };
            assert!(!readable.has_changed());
            assert!(("localhost", 80).to_socket_addrs().is_ok());
            assert!(fs::read("/etc/hosts").is_ok());
            let denied = |error: std::io::Error| error.kind() == ErrorKind::PermissionDenied;
            assert!(fs::read(&secret).is_err_and(denied));
            assert!(fs::read("/etc/passwd").is_err_and(denied));
            assert!(fs::read("/proc/self/environ").is_err_and(denied));
            assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).is_err_and(denied));
        });
        confined.join().expect("as it should be");
    }

    #[test]
    fn a_file_that_was_replaced_is_noticed() {
        let readable = Readable {
            files: vec![("/etc/hosts", Some((0, 0)))],
        };
        assert!(readable.has_changed());
        assert!(!Readable::default().has_changed());
    }
}
