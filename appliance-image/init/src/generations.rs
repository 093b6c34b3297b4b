//! Configurations, one folder each, and which of them is in force.
//!
//! `ROOT/generations/N` holds `machine.toml`, `clinch.toml` and what they name, or all of that sealed in
//! one file; the link `ROOT/current` points to the one that is known to serve. A new one is copied beside it, tried, and
//! only then linked: a crash, a power cut or a refusal on the way leaves the old one in force.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::sealed::Files;

/// The configurations below one folder.
#[derive(Clone, Debug)]
pub struct Generations {
    root: PathBuf,
}

impl Generations {
    /// Those below `root`, which must be writable.
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Folder of a generation.
    pub fn folder(&self, number: u64) -> PathBuf {
        self.root.join("generations").join(number.to_string())
    }

    /// The generation in force.
    pub fn current(&self) -> Option<u64> {
        let target = fs::read_link(self.root.join("current")).ok()?;
        let number = target.file_name()?.to_str()?.parse().ok()?;
        self.folder(number).is_dir().then_some(number)
    }

    /// Copies a folder to a new generation, owned by the user that clinch becomes. It is not in force.
    pub fn stage(&self, from: &Path, owner: Option<u32>) -> io::Result<u64> {
        let unfinished = self.unfinished()?;
        copy_to(from, &unfinished, owner, LARGEST)?;
        self.finish(&unfinished)
    }

    /// Keeps a sealed configuration as a new generation, with the digest of what was sealed. It is
    /// not in force.
    pub fn keep_sealed(&self, bytes: &[u8], digest: &str) -> io::Result<u64> {
        let unfinished = self.unfinished()?;
        fs::create_dir_all(&unfinished)?;
        for (name, bytes) in [(SEALED, bytes), (SOURCE, digest.as_bytes())] {
            let path = unfinished.join(name);
            fs::write(&path, bytes)?;
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            File::open(&path)?.sync_all()?;
        }
        File::open(&unfinished)?.sync_all()?;
        self.finish(&unfinished)
    }

    /// The bytes of a generation that is sealed.
    pub fn sealed(&self, number: u64) -> Option<Vec<u8>> {
        fs::read(self.folder(number).join(SEALED)).ok()
    }

    /// Digest of the folder that a generation was made of.
    pub fn source(&self, number: u64) -> Option<String> {
        let folder = self.folder(number);
        match folder.join(SEALED).exists() {
            true => fs::read_to_string(folder.join(SOURCE)).ok(),
            false => digest(&folder).ok(),
        }
    }

    fn unfinished(&self) -> io::Result<PathBuf> {
        let folder = self.root.join("generations").join("unfinished");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        Ok(folder)
    }

    fn finish(&self, unfinished: &Path) -> io::Result<u64> {
        let number = self.newest() + 1;
        fs::rename(unfinished, self.folder(number))?;
        rustix::fs::sync();
        Ok(number)
    }

    /// Puts a generation in force, and removes those before the one that was.
    pub fn confirm(&self, number: u64) -> io::Result<()> {
        let before = self.current();
        let fresh = self.root.join("current.new");
        let _ = fs::remove_file(&fresh);
        symlink(Path::new("generations").join(number.to_string()), &fresh)?;
        fs::rename(&fresh, self.root.join("current"))?;
        rustix::fs::sync();
        for old in self
            .numbers()
            .into_iter()
            .filter(|n| *n != number && Some(*n) != before)
        {
            let _ = fs::remove_dir_all(self.folder(old));
        }
        Ok(())
    }

    /// Takes away a generation that is not in force.
    pub fn discard(&self, number: u64) {
        if self.current() != Some(number) {
            let _ = fs::remove_dir_all(self.folder(number));
        }
    }

    /// Remembers a configuration that did not serve, so that it is not tried at every boot.
    pub fn reject(&self, digest: &str) {
        let _ = fs::write(self.root.join("rejected"), digest);
    }

    /// Whether a configuration was tried before and did not serve.
    pub fn rejected(&self, digest: &str) -> bool {
        fs::read_to_string(self.root.join("rejected")).is_ok_and(|known| known == digest)
    }

    /// Remembers the volume whose configuration came into force, so that it may stay attached without
    /// undoing what an operator sends later.
    pub fn remember_volume(&self, digest: &str) {
        let _ = fs::write(self.root.join("volume"), digest);
    }

    /// Whether this volume's configuration was the last that came into force from one.
    pub fn remembers_volume(&self, digest: &str) -> bool {
        fs::read_to_string(self.root.join("volume")).is_ok_and(|known| known == digest)
    }

    fn newest(&self) -> u64 {
        self.numbers().into_iter().max().unwrap_or(0)
    }

    fn numbers(&self) -> Vec<u64> {
        let entries = fs::read_dir(self.root.join("generations"))
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }
}

/// SHA-256 over names and contents of a folder; equal folders have equal digests.
pub fn digest(folder: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    add(folder, Path::new(""), &mut hash, 0)?;
    Ok(crate::machine::to_hex(&hash.finalize()))
}

fn add(folder: &Path, below: &Path, hash: &mut Sha256, depth: usize) -> io::Result<()> {
    for entry in sorted(folder, depth)? {
        let name = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            add(&entry.path(), &name, hash, depth + 1)?;
        } else {
            let bytes = fs::read(entry.path())?;
            hash.update(name.to_string_lossy().to_lowercase().as_bytes());
            hash.update([0]);
            hash.update(bytes.len().to_le_bytes());
            hash.update(bytes);
        }
    }
    Ok(())
}

/// Copies a configuration to a folder, owned by the user that clinch becomes, which others cannot read.
/// More than `largest` bytes are refused.
pub fn copy_to(from: &Path, to: &Path, owner: Option<u32>, largest: u64) -> io::Result<()> {
    let mut budget = largest;
    copy(from, to, owner, &mut budget, 0).map_err(|error| match budget {
        0 => io::Error::other(format!("a configuration may have {largest} bytes at most")),
        _ => error,
    })
}

/// The files of a folder by their paths in it.
pub fn files(folder: &Path) -> io::Result<Files> {
    let mut found = Files::new();
    collect(folder, Path::new(""), &mut found, 0)?;
    Ok(found)
}

fn collect(folder: &Path, below: &Path, into: &mut Files, depth: usize) -> io::Result<()> {
    for entry in sorted(folder, depth)? {
        let name = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &name, into, depth + 1)?;
        } else {
            let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
            into.insert(name.to_owned(), fs::read(entry.path())?);
        }
    }
    Ok(())
}

/// Writes files to a folder, which is emptied first, as [`copy_to`] does.
pub fn write_files(folder: &Path, files: &Files, owner: Option<u32>) -> io::Result<()> {
    let _ = fs::remove_dir_all(folder);
    make_private(folder, owner)?;
    for (name, bytes) in files {
        let name = Path::new(name);
        let normal = |part| matches!(part, std::path::Component::Normal(_));
        if !name.components().all(normal) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let parents: Vec<&Path> = name.ancestors().skip(1).collect();
        for parent in parents.into_iter().rev() {
            make_private(&folder.join(parent), owner)?;
        }
        let path = folder.join(name);
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        chown(&path, owner, owner)?;
    }
    Ok(())
}

fn make_private(folder: &Path, owner: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o750))?;
    chown(folder, owner, owner)
}

fn copy(
    from: &Path,
    to: &Path,
    owner: Option<u32>,
    budget: &mut u64,
    depth: usize,
) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in sorted(from, depth)? {
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&entry.path(), &target, owner, budget, depth + 1)?;
        } else if kind.is_file() {
            let length = entry.metadata()?.len();
            *budget = budget.saturating_sub(length);
            if *budget == 0 {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            fs::copy(entry.path(), &target)?;
            // Keys among them: clinch refuses those that others may read.
            fs::set_permissions(&target, Permissions::from_mode(0o600))?;
            chown(&target, owner, owner)?;
            File::open(&target)?.sync_all()?;
        }
    }
    make_private(to, owner)?;
    File::open(to)?.sync_all()
}

fn sorted(folder: &Path, depth: usize) -> io::Result<Vec<fs::DirEntry>> {
    const DEEPEST: usize = 8;
    if depth > DEEPEST {
        return Err(io::Error::other("folders are nested too deeply"));
    }
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.retain(|entry| !UNWANTED.iter().any(|name| entry.file_name() == *name));
    entries.sort_by_key(fs::DirEntry::file_name);
    Ok(entries)
}

/// What other systems leave on volumes.
const UNWANTED: [&str; 3] = ["lost+found", "System Volume Information", ".Trashes"];
/// All files of a generation in one, sealed; and the digest of what was sealed.
const SEALED: &str = "sealed";
const SOURCE: &str = "source";
/// Bytes of one configuration.
const LARGEST: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, Generations, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let generations = Generations::at(dir.path());
        let source = dir.path().join("source");
        fs::create_dir_all(source.join("keys")).unwrap();
        fs::write(source.join("clinch.toml"), "a").unwrap();
        fs::write(source.join("keys/k"), "b").unwrap();
        (dir, generations, source)
    }

    #[test]
    fn a_staged_generation_is_in_force_only_once_confirmed() {
        let (_dir, generations, source) = place();
        let first = generations.stage(&source, None).unwrap();
        assert_eq!(generations.current(), None);
        generations.confirm(first).unwrap();
        fs::write(source.join("clinch.toml"), "c").unwrap();
        let second = generations.stage(&source, None).unwrap();
        assert_eq!((first, second, generations.current()), (1, 2, Some(1)));
        generations.discard(second);
        assert_eq!(generations.numbers(), [1]);
        generations.discard(first);
        assert_eq!(generations.current(), Some(1), "what is in force stays");
    }

    #[test]
    fn the_last_good_one_is_kept_and_older_ones_go() {
        let (_dir, generations, source) = place();
        for _ in 0..3 {
            let number = generations.stage(&source, None).unwrap();
            generations.confirm(number).unwrap();
        }
        let mut left = generations.numbers();
        left.sort_unstable();
        assert_eq!(left, [2, 3]);
    }

    #[test]
    fn a_copy_has_the_digest_of_its_source_and_private_files() {
        let (_dir, generations, source) = place();
        let number = generations.stage(&source, None).unwrap();
        let folder = generations.folder(number);
        assert_eq!(digest(&folder).unwrap(), digest(&source).unwrap());
        let mode = fs::metadata(folder.join("keys/k"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(source.join("keys/k"), "changed").unwrap();
        assert_ne!(digest(&folder).unwrap(), digest(&source).unwrap());
    }

    #[test]
    fn a_sealed_generation_has_its_bytes_and_the_digest_of_its_source() {
        let (_dir, generations, source) = place();
        let digest = digest(&source).unwrap();
        let number = generations.keep_sealed(b"sealed bytes", &digest).unwrap();
        assert_eq!(
            generations.sealed(number).as_deref(),
            Some(&b"sealed bytes"[..])
        );
        assert_eq!(generations.source(number), Some(digest));
        let plain = generations.stage(&source, None).unwrap();
        assert_eq!(
            (generations.sealed(plain), generations.source(plain)),
            (None, generations.source(number))
        );
    }

    #[test]
    fn files_are_collected_and_written_back_but_never_outside() {
        let (dir, _, source) = place();
        let files = files(&source).unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["clinch.toml", "keys/k"]);
        let to = dir.path().join("to");
        write_files(&to, &files, None).unwrap();
        assert_eq!(digest(&to).unwrap(), digest(&source).unwrap());
        for name in ["../x", "/x", "a/../../x"] {
            let bad = Files::from([(name.to_owned(), Vec::new())]);
            assert!(write_files(&to, &bad, None).is_err(), "{name}");
        }
    }

    #[test]
    fn the_last_volume_alone_is_remembered() {
        let (_dir, generations, _) = place();
        assert!(!generations.remembers_volume("a"));
        generations.remember_volume("a");
        generations.remember_volume("b");
        assert!(generations.remembers_volume("b") && !generations.remembers_volume("a"));
    }

    #[test]
    fn more_than_may_be_copied_is_refused() {
        let (dir, _, source) = place();
        let error = copy_to(&source, &dir.path().join("to"), None, 1).unwrap_err();
        assert!(error.to_string().contains("1 bytes at most"), "{error}");
    }
}
