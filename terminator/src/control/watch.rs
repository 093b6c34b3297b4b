//! Notices that the configuration, a certificate or a key was replaced on disk.
//!
//! Directories are watched, because files are replaced by renaming and reached through links; then
//! the files themselves are compared, so that a neighbour's change causes nothing. It reads no file.
//! The caller reloads when [`Watch::settled`] says so; signals and `clinch reload` work without it.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Files under watch.
pub(super) struct Watch {
    /// Ends the watching when dropped.
    watcher: Option<RecommendedWatcher>,
    events: mpsc::Receiver<()>,
    sender: mpsc::Sender<()>,
    files: HashMap<PathBuf, Option<Trace>>,
    /// Where they are.
    directories: HashSet<PathBuf>,
    /// When something happened, and when it last did.
    stir: Option<(Instant, Instant)>,
}

/// What changes when a file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trace {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Watch {
    /// Watches nothing yet.
    pub(super) fn new() -> Self {
        let (sender, events) = mpsc::channel(1);
        Self {
            watcher: None,
            events,
            sender,
            files: HashMap::new(),
            directories: HashSet::new(),
            stir: None,
        }
    }

    /// Starts the thread that the kernel's notices come in on, once. Call it when privileges are
    /// gone: the thread has those that the process has then.
    pub(super) fn start(&mut self) -> Result<(), notify::Error> {
        let sender = self.sender.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| is_change(event.kind)) {
                // One waiting notice says as much as many.
                let _ = sender.try_send(());
            }
        });
        self.watcher = Some(watcher?);
        Ok(())
    }

    /// Watches these files instead, and returns in words what cannot be watched. Of those that were watched before, the last look counts, so that
    /// a change since then is not missed.
    pub(super) fn follow(&mut self, files: impl Iterator<Item = PathBuf>) -> Vec<String> {
        let mut before = std::mem::take(&mut self.files);
        let mut directories = HashSet::new();
        for file in files {
            directories.insert(directory_of(&file));
            let trace = before.remove(&file).unwrap_or_else(|| Trace::of(&file));
            self.files.insert(file, trace);
        }
        let Some(watcher) = &mut self.watcher else {
            return Vec::new();
        };
        for gone in self.directories.difference(&directories) {
            // The directory may not exist any more, and then is not watched either.
            let _ = watcher.unwatch(gone);
        }
        let mut warnings = Vec::new();
        for new in directories.difference(&self.directories) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                warnings.push(format!(
                    "changes in {} are not noticed ({error}); use `clinch reload` or SIGHUP",
                    new.display()
                ));
            }
        }
        self.directories = directories;
        warnings
    }

    /// Waits until something happened in a directory and then nothing more for a while, and the
    /// files under watch differ from what they were. May be dropped and called again at any time.
    pub(super) async fn settled(&mut self) {
        loop {
            let Some((first, last)) = self.stir else {
                self.stirred().await;
                continue;
            };
            let quiet = (last + QUIET).min(first + LONGEST_WAIT);
            tokio::select! {
                () = self.stirred() => continue,
                () = tokio::time::sleep_until(quiet) => {}
            }
            self.stir = None;
            if self.refresh() {
                return;
            }
        }
    }

    /// Takes the files as they are now for known; true where one differs from before.
    pub(super) fn refresh(&mut self) -> bool {
        let mut changed = false;
        for (file, known) in &mut self.files {
            let now = Trace::of(file);
            changed |= *known != now;
            *known = now;
        }
        changed
    }

    async fn stirred(&mut self) {
        // There is always a sender: our own.
        self.events.recv().await;
        let now = Instant::now();
        self.stir = Some((self.stir.map_or(now, |(first, _)| first), now));
    }
}

impl Trace {
    fn of(file: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(file).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Reading a file is an event too, and control reads files.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// Without a further event: certificate and key are two files.
const QUIET: Duration = Duration::from_secs(1);

/// After the first event, however many follow.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn watch(file: PathBuf) -> (Watch, Vec<String>) {
        let mut watch = Watch::new();
        watch.start().expect("inotify");
        let warnings = watch.follow(std::iter::once(file));
        (watch, warnings)
    }

    async fn settles(watch: &mut Watch, within: Duration) -> bool {
        tokio::time::timeout(within, watch.settled()).await.is_ok()
    }

    #[tokio::test]
    async fn a_replaced_file_is_noticed_and_its_neighbours_are_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("site.pem");
        fs::write(&file, "old").expect("written");
        let (mut watch, warnings) = watch(file.clone());
        assert_eq!(warnings, Vec::<String>::new());

        fs::write(directory.path().join("neighbour"), "x").expect("written");
        fs::read(&file).expect("read");
        assert!(!settles(&mut watch, Duration::from_millis(2500)).await);

        let beside = directory.path().join("beside");
        fs::write(&beside, "new").expect("written");
        fs::rename(&beside, &file).expect("renamed");
        assert!(settles(&mut watch, Duration::from_secs(10)).await);
        assert!(!settles(&mut watch, Duration::from_millis(1500)).await);
    }

    #[tokio::test]
    async fn a_link_that_is_turned_around_is_noticed() {
        // The way certificates are mounted into containers: file -> data/file, data -> version.
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        for version in ["v1", "v2"] {
            fs::create_dir(at(version)).expect("made");
            fs::write(at(version).join("site.pem"), version).expect("written");
        }
        std::os::unix::fs::symlink("v1", at("data")).expect("linked");
        std::os::unix::fs::symlink("data/site.pem", at("site.pem")).expect("linked");
        let (mut watch, _) = watch(at("site.pem"));
        std::os::unix::fs::symlink("v2", at("new")).expect("linked");
        fs::rename(at("new"), at("data")).expect("renamed");
        assert!(settles(&mut watch, Duration::from_secs(10)).await);
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_told_in_words() {
        let (_watch, warnings) = watch(PathBuf::from("/no/such/file"));
        assert!(warnings[0].contains("clinch reload"), "{warnings:?}");
    }
}
