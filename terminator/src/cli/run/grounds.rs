//! What the process stands on: the account it becomes, the directories and files that account
//! needs, and the end of its privileges.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown, lchown};
use std::path::Path;

use anyhow::Context;

use crate::config::Config;
use crate::observability::admin::Socket;
use crate::sys::privileges::{self, Account, PrivilegeError};

/// The account to become, looked up before anything depends on it.
pub(super) fn account(config: &Config) -> Result<Option<Account>, PrivilegeError> {
    let account = config.user.as_deref().map(Account::find).transpose()?;
    Ok(account.filter(|account| {
        // Started as that very user already, by a service manager: nothing is left to become.
        account.uid != rustix::process::geteuid().as_raw()
    }))
}

/// Makes the cache directory where it is missing, so that control finds it. A failure only costs the
/// staples at the next start, and control reports it again with the first write.
pub(super) fn make_cache_directory(config: &Config) {
    if let Some(path) = config.cache.as_deref()
        && let Err(error) = make_directory(path)
    {
        tracing::warn!(path = %path.display(), %error, "the cache directory cannot be made; staples will not survive a restart");
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    DirBuilder::new().mode(0o700).create(path)
}

/// Gives the cache directory to the account. Only what is root's changes hands. Files with a second name stay what they are: somebody else
/// may have linked them here.
fn give_directory(path: &Path, account: &Account) -> io::Result<()> {
    if fs::metadata(path)?.uid() != 0 {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let facts = entry.metadata()?;
        if facts.is_file() && facts.nlink() == 1 {
            lchown(entry.path(), Some(account.uid), Some(account.gid))?;
        }
    }
    chown(path, Some(account.uid), Some(account.gid))
}

/// Becomes the account, or gives up what capabilities there are; afterwards no way leads back.
pub(super) fn leave_privileges(
    config: &Config,
    account: Option<&Account>,
    admin: Option<&Socket>,
) -> anyhow::Result<()> {
    match account {
        Some(account) => {
            if let Some(path) = config.cache.as_deref()
                && let Err(error) = give_directory(path, account)
            {
                tracing::warn!(path = %path.display(), %error, "the cache directory cannot be given to the configured user; staples will not survive a restart");
            }
            if let Some(admin) = admin {
                admin
                    .hand_over(account.uid, account.gid)
                    .context("the admin socket cannot be given to the configured user")?;
            }
            account.assume()?;
            tracing::info!(
                user = account.name,
                uid = account.uid,
                gid = account.gid,
                "privileges given up"
            );
        }
        None if privileges::is_root() => tracing::warn!(
            "running as root: set `user` in the configuration, so that a fault in clinch is not a fault of the whole machine"
        ),
        None => privileges::drop_capabilities()?,
    }
    Ok(())
}

/// Says which files a reload will not be able to read. They were read with other privileges at
/// start; without a word the operator would learn of it when a renewed certificate is not served.
pub(super) fn warn_of_unreadable_files(config_path: &Path, config: &Config) {
    let certificates = config.sites.iter().flat_map(|site| &site.certificates);
    let files = std::iter::once(config_path)
        .chain(certificates.flat_map(|files| [files.cert.as_path(), files.key.as_path()]));
    let mut unreadable: Vec<(&Path, io::Error)> = files
        .filter_map(|path| Some((path, File::open(path).err()?)))
        .collect();
    unreadable.sort_by_key(|(path, _)| *path);
    unreadable.dedup_by_key(|(path, _)| *path);
    let Some((path, error)) = unreadable.first() else {
        return;
    };
    tracing::warn!(
        files = unreadable.len(),
        first = %path.display(),
        %error,
        "files cannot be read any more without the privileges of the start: a reload will keep their present contents or be refused; give them to the user that clinch runs as (chown), or restart clinch instead of reloading"
    );
}
