//! How many workers there are, where they run, and how many connections each may hold.

use crate::config::Config;
use crate::limits::{
    CONNECTIONS_PER_WORKER, DESCRIPTORS_PER_CONNECTION, DESCRIPTORS_PER_PROCESS,
    DESCRIPTORS_PER_WORKER,
};
use crate::sys::{affinity, resources};

/// The shape of the data plane, known to fit the descriptor limit in force.
#[derive(Debug)]
pub(super) struct Plan {
    cores: Vec<usize>,
    workers: usize,
    capacity: usize,
    descriptors: u64,
    /// The operator left the capacity to clinch.
    derived: bool,
}

/// The configured number of connections needs more file descriptors than the process may have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "limits.connections_per_worker = {asked} with {workers} workers needs {needed} file descriptors \
     (two for a connection), and the limit is {limit}; raise the limit to {needed} (systemd: \
     LimitNOFILE={needed}, shell: ulimit -n {needed}), or lower limits.connections_per_worker to \
     {fitting} or leave it out"
)]
pub(super) struct TooFewDescriptors {
    asked: usize,
    workers: usize,
    needed: u64,
    limit: u64,
    fitting: u64,
}

impl Plan {
    /// Raises the descriptor limit as far as it goes and divides it among the workers.
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        let cores = affinity::allowed_cores()?;
        let workers = config.workers.unwrap_or(cores.len()).max(1);
        let asked = config.limits.connections_per_worker;
        let wanted = needed(workers, asked.unwrap_or(0));
        let descriptors = resources::raise_descriptor_limit(wanted)?;
        Ok(Self {
            cores,
            workers,
            capacity: capacity(asked, workers, descriptors)?,
            descriptors,
            derived: asked.is_none(),
        })
    }

    pub(super) fn workers(&self) -> usize {
        self.workers
    }

    /// Connections per worker.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The core of each worker. Workers beyond the number of cores are left to the scheduler.
    pub(super) fn cores(&self) -> impl Iterator<Item = Option<usize>> + '_ {
        (0..self.workers).map(|index| self.cores.get(index).copied())
    }

    /// Tells the operator.
    pub(super) fn report(&self) {
        tracing::info!(
            workers = self.workers,
            cores = ?self.cores,
            connections_per_worker = self.capacity,
            derived_from_descriptor_limit = self.derived,
            descriptors = self.descriptors,
            "workers and limits"
        );
        if self.workers > self.cores.len() {
            tracing::warn!(
                workers = self.workers,
                cores = self.cores.len(),
                "more workers than cores: they share cores, which costs speed; leave `workers` out for one per core"
            );
        }
    }
}

/// Connections per worker: as asked, if it fits, else as many as fit.
fn capacity(asked: Option<usize>, workers: usize, limit: u64) -> Result<usize, TooFewDescriptors> {
    let fixed = needed(workers, 0);
    let fitting = limit.saturating_sub(fixed) / (workers as u64 * DESCRIPTORS_PER_CONNECTION);
    let too_few = |asked| TooFewDescriptors {
        asked,
        workers,
        needed: needed(workers, asked),
        limit,
        fitting,
    };
    match asked {
        Some(asked) if asked as u64 > fitting => Err(too_few(asked)),
        Some(asked) => Ok(asked),
        None if fitting == 0 => Err(too_few(1)),
        None => Ok(usize::try_from(fitting)
            .unwrap_or(usize::MAX)
            .min(CONNECTIONS_PER_WORKER)),
    }
}

/// File descriptors for so many connections on each worker.
fn needed(workers: usize, connections: usize) -> u64 {
    let per_worker = DESCRIPTORS_PER_WORKER
        .saturating_add((connections as u64).saturating_mul(DESCRIPTORS_PER_CONNECTION));
    DESCRIPTORS_PER_PROCESS.saturating_add((workers as u64).saturating_mul(per_worker))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_derived_fits_and_one_more_would_not() {
        for (workers, limit) in [(1, 1024), (4, 65_536), (64, 1_048_576)] {
            let derived = capacity(None, workers, limit).expect("fits");
            assert!(needed(workers, derived) <= limit, "{workers} {limit}");
            if derived < CONNECTIONS_PER_WORKER {
                assert!(needed(workers, derived + 1) > limit, "{workers} {limit}");
            }
        }
        assert_eq!(
            capacity(None, 1, u64::MAX).expect("fits"),
            CONNECTIONS_PER_WORKER
        );
    }

    #[test]
    fn what_is_asked_for_is_kept_or_refused_with_the_figures() {
        assert_eq!(capacity(Some(100), 2, 4096), Ok(100));
        let error = capacity(Some(100_000), 2, 4096).expect_err("does not fit");
        assert_eq!(
            capacity(Some(error.fitting as usize), 2, 4096).ok(),
            Some(error.fitting as usize)
        );
        assert_eq!(capacity(Some(100_000), 2, error.needed), Ok(100_000));
        let text = error.to_string();
        assert!(text.contains("LimitNOFILE"), "{text}");
    }

    #[test]
    fn a_limit_too_low_for_one_connection_is_refused() {
        assert!(capacity(None, 8, 64).is_err());
    }
}
