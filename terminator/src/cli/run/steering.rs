//! Steering as `clinch run` sees it: prepared while there are privileges, started last, and done
//! without where the machine does not have it.

use std::io;

use crate::config::{Config, SteeringMode};
use crate::observability::Instance;
use crate::snapshot::Subscriber;
use crate::steering::{Mode, Observed, Running, Steering};

/// Loads the programs if the configuration has the table; else, or where that fails, the reason.
pub(super) fn prepare(config: &Config, workers: usize) -> (Option<Steering>, Option<String>) {
    if !config.steering.prepared {
        return (None, None);
    }
    let addresses = config.listeners.iter().map(|l| l.addresses.len()).sum();
    let names = config.sites.iter().map(|site| site.names.len()).sum();
    match Steering::prepare(addresses, workers, names) {
        Ok(steering) => (Some(steering), None),
        Err(error) => (None, Some(error.to_string())),
    }
}

/// Tells observers and the operator what is in force until the steering thread says otherwise.
pub(super) fn report(config: &Config, instance: &Instance, unsteered: Option<String>) {
    let mode = match config.steering.hands_over() {
        true => Mode::HandOver,
        false => Mode::Reuseport,
    };
    if let Some(reason) = &unsteered
        && config.steering.mode == SteeringMode::Kernel
    {
        tracing::warn!(mode = mode.word(), reason, "the kernel does not steer");
    }
    instance.steering.update(|report| {
        report.mode = mode;
        report.reason = unsteered;
    });
}

/// Starts the steering thread with its subscriber, the one left when the workers have theirs.
pub(super) fn start(
    steering: Option<Steering>,
    rest: Vec<Subscriber>,
    instance: &Instance,
) -> io::Result<Option<Running>> {
    let (Some(steering), Some(subscriber)) = (steering, rest.into_iter().next()) else {
        return Ok(None);
    };
    let counters: Vec<_> = instance
        .workers
        .iter()
        .map(|w| w.counters.clone())
        .collect();
    let observe = move || Observed {
        active: counters.iter().map(|c| c.active.value()).collect(),
        landed: counters.iter().map(|c| c.landed.value()).sum(),
    };
    steering
        .start(subscriber, instance.steering.clone(), Box::new(observe))
        .map(Some)
}
