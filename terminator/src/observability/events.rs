//! The log: text or JSON lines on standard error, and a valve for warnings of hot paths.
//!
//! Events are `tracing` events with fields; which events there are is up to the parts that emit
//! them. Call [`start`] once, before the first event.

use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::Log;

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error(
        "log.level = \"{level}\" is not a filter ({reason}); use error, warn, info, debug or trace, optionally by module as in \"info,clinch::control=debug\""
    )]
    Filter {
        /// As configured.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody set one up before.
    #[error("the log was set up twice, which is a fault in clinch")]
    Twice,
}

/// Sends all events of the process that pass the configured filter to standard error.
pub fn start(log: &Log) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&log.level).map_err(|error| LogError::Filter {
        level: log.level.clone(),
        reason: error.to_string(),
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let started = if log.json {
        builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .finish()
            .try_init()
    } else {
        builder.finish().try_init()
    };
    started.map_err(|_| LogError::Twice)
}

/// Lets one event through per period and counts the rest, so that a peer cannot fill the log.
///
/// It belongs to one thread; each worker has its own.
///
/// ```
/// # use clinch::observability::events::Occasionally;
/// # use std::time::{Duration, Instant};
/// let no_descriptors = Occasionally::every(Duration::from_secs(10));
/// if let Some(suppressed) = no_descriptors.admit(Instant::now()) {
///     tracing::warn!(suppressed, "no file descriptors left");
/// }
/// ```
#[derive(Debug)]
pub struct Occasionally {
    period: Duration,
    last: Cell<Option<Instant>>,
    suppressed: Cell<u64>,
}

impl Occasionally {
    /// One event in each `period` passes.
    pub fn every(period: Duration) -> Self {
        Self {
            period,
            last: Cell::new(None),
            suppressed: Cell::new(0),
        }
    }

    /// `Some` when the event should be written: how many were not, since the last one that was.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let due = self
            .last
            .get()
            .is_none_or(|last| now.saturating_duration_since(last) >= self.period);
        if due {
            self.last.set(Some(now));
            Some(self.suppressed.take())
        } else {
            self.suppressed.set(self.suppressed.get().saturating_add(1));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_gives_one_event_and_the_next_one_tells_how_many_were_lost() {
        let valve = Occasionally::every(Duration::from_secs(10));
        let start = Instant::now();
        assert_eq!(valve.admit(start), Some(0));
        for second in 1..10 {
            assert_eq!(valve.admit(start + Duration::from_secs(second)), None);
        }
        assert_eq!(valve.admit(start + Duration::from_secs(10)), Some(9));
        assert_eq!(valve.admit(start + Duration::from_secs(25)), Some(0));
    }

    #[test]
    fn a_filter_that_does_not_parse_is_refused_with_the_words_that_would() {
        let log = Log {
            json: false,
            level: "clinch=loudly".to_owned(),
        };
        let error = start(&log).expect_err("no such level").to_string();
        assert!(
            error.contains("loudly") && error.contains("debug"),
            "{error}"
        );
    }
}
