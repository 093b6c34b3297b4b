//! Writes the cache behind control's back: a disk that is slow, full or gone delays nothing and
//! leaves the staple in memory as it is.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::mpsc;

use super::cache::{Cache, CacheError};
use crate::certificate::Fingerprint;
use crate::limits::{CACHE_FINISH_TIME, CACHE_QUEUE};
use crate::ocsp::{Revocation, VerifiedStaple};

/// The cache with its writer. What it could not do is told by [`Keeper::failure`].
pub(super) struct Keeper {
    cache: Cache,
    work: mpsc::Sender<Work>,
    failures: mpsc::Receiver<CacheError>,
    /// The writer's ends of both, until it is started.
    writer: Option<(mpsc::Receiver<Work>, mpsc::Sender<CacheError>)>,
}

/// What the writer does.
pub(super) enum Work {
    /// Keep this staple.
    Write(Arc<VerifiedStaple>),
    /// Keep this word of the CA, until the certificate ends.
    Revoke(Arc<Revocation>, SystemTime),
    /// Keep this CRL under that name, until the certificates that it revokes end.
    KeepList(Fingerprint, Vec<u8>, SystemTime),
    /// The CRL of that name revokes nothing any more.
    DropList(Fingerprint),
    /// Remove what nobody needs, given the certificates that are served and the time.
    Prune(HashSet<Fingerprint>, SystemTime),
}

impl Keeper {
    /// For a cache, with the writer not started yet.
    pub(super) fn new(cache: Cache) -> Self {
        let (work, assigned) = mpsc::channel(CACHE_QUEUE);
        let (failed, failures) = mpsc::channel(CACHE_QUEUE);
        Self {
            cache,
            work,
            failures,
            writer: Some((assigned, failed)),
        }
    }

    /// Starts the writer, once. Call it when privileges are gone: the thread has those that the
    /// process has then. Nobody waits for it but [`Keeper::finish`]: a disk may never answer.
    pub(super) fn start(&mut self) {
        let Some((mut assigned, failed)) = self.writer.take() else {
            return;
        };
        let cache = self.cache.clone();
        // One thread, so that a staple and its revocation keep their order.
        std::thread::spawn(move || {
            while let Some(work) = assigned.blocking_recv() {
                let done = match work {
                    Work::Write(staple) => cache.write(&staple),
                    Work::Revoke(revocation, end) => cache.write_revocation(&revocation, end),
                    Work::KeepList(name, list, end) => cache.write_list(name, &list, end),
                    Work::DropList(name) => cache.remove_list(name),
                    Work::Prune(served, at) => cache.prune(&served, at).map(drop),
                };
                if let Err(error) = done
                    && failed.blocking_send(error).is_err()
                {
                    return;
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

    /// The next thing that the writer could not do. May be dropped and called again.
    pub(super) async fn failure(&mut self) -> CacheError {
        match self.failures.recv().await {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Waits for the writer to finish, a bounded time.
    pub(super) async fn finish(self) {
        let Self {
            work, mut failures, ..
        } = self;
        drop(work);
        let drained = async { while failures.recv().await.is_some() {} };
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
