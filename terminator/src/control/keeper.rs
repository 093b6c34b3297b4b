//! Writes the cache behind control's back: a disk that is slow, full or gone delays nothing and
//! leaves the staple in memory as it is.

use std::collections::HashSet;
use std::time::SystemTime;

use tokio::sync::mpsc;

use super::cache::{Cache, CacheError, Entry};
use crate::certificate::Fingerprint;
use crate::limits::{CACHE_FINISH_TIME, CACHE_GROUP, CACHE_QUEUE};
use crate::observability::counters::FetchCounters;

/// The cache with its writer. What became of its work is told by [`Keeper::report`].
pub(super) struct Keeper {
    cache: Cache,
    work: mpsc::Sender<Work>,
    reports: mpsc::Receiver<Report>,
    /// The writer's ends of both, until it is started.
    writer: Option<(mpsc::Receiver<Work>, mpsc::Sender<Report>)>,
}

/// What the writer does.
pub(super) enum Work {
    /// Keep this.
    Keep(Entry),
    /// The CRL of that name revokes nothing any more.
    DropList(Fingerprint),
    /// Remove what nobody needs, given the certificates that are served and the time.
    Prune(HashSet<Fingerprint>, SystemTime),
}

/// What became of it.
pub(super) enum Report {
    /// So many files lie on the disk, where a power cut leaves them.
    Kept(usize),
    /// This was not done.
    Failed(CacheError),
}

impl Keeper {
    /// For a cache, with the writer not started yet.
    pub(super) fn new(cache: Cache) -> Self {
        let (work, assigned) = mpsc::channel(CACHE_QUEUE);
        let (done, reports) = mpsc::channel(CACHE_QUEUE);
        Self {
            cache,
            work,
            reports,
            writer: Some((assigned, done)),
        }
    }

    /// Starts the writer, once. Call it when privileges are gone: the thread has those that the
    /// process has then. Nobody waits for it but [`Keeper::finish`]: a disk may never answer.
    pub(super) fn start(&mut self) {
        let Some((mut assigned, reports)) = self.writer.take() else {
            return;
        };
        let cache = self.cache.clone();
        // One thread, so that a staple and its revocation keep their order.
        std::thread::spawn(move || {
            let mut waiting = Vec::new();
            while assigned.blocking_recv_many(&mut waiting, CACHE_GROUP) > 0 {
                for report in carry_out(&cache, waiting.drain(..)) {
                    if reports.blocking_send(report).is_err() {
                        return;
                    }
                }
            }
        });
    }

    /// For reading.
    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Hands work to the writer; false where it is so far behind that this is lost.
    pub(super) fn assign(&self, work: Work) -> bool {
        self.work.try_send(work).is_ok()
    }

    /// The next thing that the writer has to tell. May be dropped and called again.
    pub(super) async fn report(&mut self) -> Report {
        match self.reports.recv().await {
            Some(report) => report,
            None => std::future::pending().await,
        }
    }

    /// Waits for the writer to finish, a bounded time.
    pub(super) async fn finish(self, counters: &FetchCounters) {
        let Self {
            work, mut reports, ..
        } = self;
        drop(work);
        let drained = async {
            while let Some(report) = reports.recv().await {
                report.tell(counters);
            }
        };
        if tokio::time::timeout(CACHE_FINISH_TIME, drained)
            .await
            .is_err()
        {
            tracing::warn!(
                event = "cache_unfinished",
                "the staple cache was not written out in {CACHE_FINISH_TIME:?}"
            );
        }
    }
}

impl Report {
    /// Counts and logs it.
    pub(super) fn tell(&self, counters: &FetchCounters) {
        match self {
            Self::Kept(files) => {
                counters.cache_writes.add(*files as u64);
                tracing::debug!(event = "cache_written", files, "on the disk");
            }
            Self::Failed(failure) => {
                counters.cache_write_failures.one();
                tracing::warn!(event = "cache_write_failed", "{failure}");
            }
        }
    }
}

/// Does what waits, in order; what is to be kept between two other things goes to the disk together.
fn carry_out(cache: &Cache, waiting: impl Iterator<Item = Work>) -> Vec<Report> {
    let mut reports = Vec::new();
    let mut group = Vec::new();
    for work in waiting {
        if !matches!(work, Work::Keep(_)) {
            keep(cache, &mut group, &mut reports);
        }
        let done = match work {
            Work::Keep(entry) => {
                group.push(entry);
                Ok(())
            }
            Work::DropList(name) => cache.remove_list(name),
            Work::Prune(served, at) => cache.prune(&served, at).map(drop),
        };
        reports.extend(done.err().map(Report::Failed));
    }
    keep(cache, &mut group, &mut reports);
    reports
}

fn keep(cache: &Cache, group: &mut Vec<Entry>, reports: &mut Vec<Report>) {
    let (kept, failures) = cache.keep(group);
    group.clear();
    reports.extend((kept > 0).then_some(Report::Kept(kept)));
    reports.extend(failures.into_iter().map(Report::Failed));
}
