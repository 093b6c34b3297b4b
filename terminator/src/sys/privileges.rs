//! What the process may do: becomes an unprivileged account for good, gives up capabilities, and
//! keeps the kernel from writing the keys in its memory into a core file.
//!
//! It does not decide which account, nor when. The caller looks the account up and calls
//! [`forbid_core_dumps`] before any key is read, binds low ports, and calls [`Account::assume`]
//! before it starts a thread: capabilities belong to a thread, not to the process.

use std::ffi::{CStr, CString};
use std::io;

use caps::CapSet;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// A user with a group and the supplementary groups that go with it, as numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// As the operator wrote it.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups. Where the operator named a group, only that one.
    pub groups: Vec<u32>,
}

/// Why privileges cannot be given up; each is for the operator to put right.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// No such user.
    #[error(
        "there is no user \"{0}\" on this machine; create it (`useradd --system --no-create-home {0}`) or change `user` in the configuration"
    )]
    UnknownUser(String),
    /// No such group.
    #[error(
        "there is no group \"{0}\" on this machine; create it (`groupadd --system {0}`) or change `user` in the configuration"
    )]
    UnknownGroup(String),
    /// The account database could not be read.
    #[error("the account database could not be asked for \"{name}\": {source}")]
    Database {
        /// What was looked up.
        name: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Only root may become somebody else.
    #[error(
        "this process may not become user \"{name}\" ({step}: {source}); start it as root, or let the service manager choose the user and leave `user` out of the configuration"
    )]
    NotPermitted {
        /// Who it should have become.
        name: String,
        /// The call that was refused.
        step: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The way back was still open afterwards.
    #[error(
        "after becoming user \"{0}\" the process could still return to root; it will not serve like that"
    )]
    NotForGood(String),
    /// A capability set could not be emptied.
    #[error("the {set} capabilities could not be given up: {reason}")]
    Capabilities {
        /// Which set.
        set: &'static str,
        /// The system's reason.
        reason: String,
    },
    /// A switch of the kernel could not be set.
    #[error("{switch} could not be set: {source}")]
    Switch {
        /// Which switch.
        switch: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

impl Account {
    /// Looks up `user` or `user:group`; each is a name or a number.
    pub fn find(spec: &str) -> Result<Self, PrivilegeError> {
        let (user, group) = match spec.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (spec, None),
        };
        let (uid, primary) = match (user_entry(user)?, user.parse::<u32>()) {
            (Some(entry), _) => entry,
            // A number needs no entry; its group is then the same number, as `chown` and `su` have it.
            (None, Ok(uid)) => (uid, uid),
            (None, Err(_)) => return Err(PrivilegeError::UnknownUser(user.to_owned())),
        };
        let (gid, groups) = match group {
            Some(group) => {
                let gid = group_number(group)?;
                (gid, vec![gid])
            }
            None => (primary, groups_of(user, primary)),
        };
        Ok(Self {
            name: spec.to_owned(),
            uid,
            gid,
            groups,
        })
    }

    /// Becomes this account for good: groups, user, no capability left in any set.
    ///
    /// Call it while the process has one thread.
    pub fn assume(&self) -> Result<(), PrivilegeError> {
        let refused = |step| PrivilegeError::NotPermitted {
            name: self.name.clone(),
            step,
            source: io::Error::last_os_error(),
        };
        // The bounding set can be emptied only while CAP_SETPCAP is there, hence before the rest.
        clear_bounding()?;
        // SAFETY: the pointer and the length are those of a live Vec of gid_t (u32 on Linux).
        if unsafe { libc::setgroups(self.groups.len(), self.groups.as_ptr()) } != 0 {
            return Err(refused("setgroups"));
        }
        // SAFETY: no pointers are passed.
        if unsafe { libc::setresgid(self.gid, self.gid, self.gid) } != 0 {
            return Err(refused("setresgid"));
        }
        // SAFETY: no pointers are passed.
        if unsafe { libc::setresuid(self.uid, self.uid, self.uid) } != 0 {
            return Err(refused("setresuid"));
        }
        clear_capabilities()?;
        // SAFETY: no pointers are passed. It is expected to fail.
        if self.uid != 0 && unsafe { libc::setresuid(0, 0, 0) } == 0 {
            return Err(PrivilegeError::NotForGood(self.name.clone()));
        }
        // A change of identity resets the dumpable flag to the system's default (prctl(2)).
        forbid_tracing()
    }
}

/// Empties every capability set of a process that is not root but was started with some, as a
/// service manager does so that it can bind low ports.
pub fn drop_capabilities() -> Result<(), PrivilegeError> {
    clear_bounding()?;
    clear_capabilities()
}

/// Empties the bounding set of the calling thread and of the threads it starts from here on;
/// [`Account::assume`] could do so for its own thread alone. A failure is no harm as long as
/// [`forbid_new_privileges`] came first.
pub fn empty_bounding_set() {
    let _ = clear_bounding();
}

/// True where the process may do anything.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// From here on nothing that this process executes can gain privileges (`PR_SET_NO_NEW_PRIVS`).
pub fn forbid_new_privileges() -> Result<(), PrivilegeError> {
    rustix::thread::set_no_new_privs(true).map_err(|errno| PrivilegeError::Switch {
        switch: "no_new_privs",
        source: errno.into(),
    })
}

/// Keeps the keys out of core files, and other processes of the same user out of this memory.
pub fn forbid_core_dumps() -> Result<(), PrivilegeError> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(Resource::Core, none).map_err(|errno| PrivilegeError::Switch {
        switch: "a core file limit of 0",
        source: errno.into(),
    })?;
    forbid_tracing()
}

fn forbid_tracing() -> Result<(), PrivilegeError> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|errno| {
        PrivilegeError::Switch {
            switch: "the dumpable flag",
            source: errno.into(),
        }
    })
}

/// The bounding set: without CAP_SETPCAP it cannot be changed, which is no harm once
/// `no_new_privs` keeps it from ever being used.
fn clear_bounding() -> Result<(), PrivilegeError> {
    match caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP) {
        Ok(true) => {
            caps::clear(None, CapSet::Bounding).map_err(|error| PrivilegeError::Capabilities {
                set: "bounding",
                reason: error.to_string(),
            })
        }
        _ => Ok(()),
    }
}

fn clear_capabilities() -> Result<(), PrivilegeError> {
    let sets = [
        (CapSet::Ambient, "ambient"),
        (CapSet::Effective, "effective"),
        (CapSet::Permitted, "permitted"),
        (CapSet::Inheritable, "inheritable"),
    ];
    for (set, name) in sets {
        caps::clear(None, set).map_err(|error| PrivilegeError::Capabilities {
            set: name,
            reason: error.to_string(),
        })?;
    }
    Ok(())
}

/// The user's number and primary group, `None` where the database has no such name.
fn user_entry(name: &str) -> Result<Option<(u32, u32)>, PrivilegeError> {
    let Ok(wanted) = CString::new(name) else {
        return Ok(None);
    };
    let mut buffer = vec![0; ENTRY_BYTES];
    // SAFETY: all-zero is a valid `passwd`: integers and null pointers.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: every pointer is to a live local, and the length is that of `buffer`, which outlives
    // the use of `entry`.
    let error = unsafe {
        libc::getpwnam_r(
            wanted.as_ptr(),
            &raw mut entry,
            buffer.as_mut_ptr(),
            buffer.len(),
            &raw mut found,
        )
    };
    if !found.is_null() {
        return Ok(Some((entry.pw_uid, entry.pw_gid)));
    }
    absent(name, error).map(|()| None)
}

fn group_number(name: &str) -> Result<u32, PrivilegeError> {
    let unknown = || PrivilegeError::UnknownGroup(name.to_owned());
    let wanted = CString::new(name).map_err(|_| unknown())?;
    let mut buffer = vec![0; ENTRY_BYTES];
    // SAFETY: all-zero is a valid `group`: integers and null pointers.
    let mut entry: libc::group = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: as in `user_entry`.
    let error = unsafe {
        libc::getgrnam_r(
            wanted.as_ptr(),
            &raw mut entry,
            buffer.as_mut_ptr(),
            buffer.len(),
            &raw mut found,
        )
    };
    if !found.is_null() {
        return Ok(entry.gr_gid);
    }
    absent(name, error)?;
    name.parse().map_err(|_| unknown())
}

/// Tells "no such entry" from "the database could not be read". The manual of getpwnam_r lists
/// several errors that mean the former.
fn absent(name: &str, error: libc::c_int) -> Result<(), PrivilegeError> {
    match error {
        0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => Ok(()),
        error => Err(PrivilegeError::Database {
            name: name.to_owned(),
            source: io::Error::from_raw_os_error(error),
        }),
    }
}

/// The groups that list the user as a member, with the primary one.
fn groups_of(user: &str, primary: u32) -> Vec<u32> {
    let Ok(user) = CString::new(user) else {
        return vec![primary];
    };
    let mut groups: Vec<libc::gid_t> = vec![0; MOST_GROUPS];
    let mut count = libc::c_int::try_from(MOST_GROUPS).expect("a small constant");
    let user: &CStr = &user;
    // SAFETY: `groups` has room for `count` entries, and both outlive the call.
    let written =
        unsafe { libc::getgrouplist(user.as_ptr(), primary, groups.as_mut_ptr(), &raw mut count) };
    let Ok(written) = usize::try_from(written) else {
        // More groups than fit: the primary one is enough to serve; nothing is gained by more.
        return vec![primary];
    };
    groups.truncate(written);
    groups
}

/// Room for one entry of the account database; a group with many members is the longest.
const ENTRY_BYTES: usize = 64 * 1024;

/// Supplementary groups taken over from the account database.
const MOST_GROUPS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_by_number() {
        let named = Account::find("root").expect("root exists");
        assert_eq!((named.uid, named.gid), (0, 0));
        assert_eq!(Account::find("0:0").expect("a number").uid, 0);
    }

    #[test]
    fn a_named_group_replaces_all_others() {
        let account = Account::find("nobody:0").expect("nobody exists");
        assert_ne!(account.uid, 0);
        assert_eq!(account.groups, [0]);
    }

    #[test]
    fn a_user_that_does_not_exist_is_named_with_the_remedy() {
        let error = Account::find("no-such-user").expect_err("unknown");
        assert!(matches!(&error, PrivilegeError::UnknownUser(name) if name == "no-such-user"));
        assert!(error.to_string().contains("useradd"), "{error}");
        assert!(Account::find("root:no-such-group").is_err());
        assert!(Account::find("nul\0byte").is_err());
    }
}
