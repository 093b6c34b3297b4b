//! Fetches counted by responder and result, over reloads. Bounded: responders beyond
//! [`RESPONDERS_COUNTED`] are counted together, as [`OTHERS`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::RESPONDERS_COUNTED;
use crate::observability::counters::{FetchResult, Reason};

/// Fetches by responder and result.
#[derive(Default)]
pub(super) struct Tally(BTreeMap<String, [u64; FetchResult::COUNT]>);

/// What one responder was asked, and how that went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponderStatus {
    /// Host and port.
    pub host: String,
    /// Attempts by result; results that did not occur are left out.
    pub fetches: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts one attempt.
    pub(super) fn one(&mut self, host: &str, result: FetchResult) {
        let full = self.0.len() >= RESPONDERS_COUNTED && !self.0.contains_key(host);
        let host = if full { OTHERS } else { host };
        if let Some(counts) = self.0.get_mut(host) {
            counts[result.index()] += 1;
        } else {
            let mut counts = [0; FetchResult::COUNT];
            counts[result.index()] = 1;
            self.0.insert(host.to_owned(), counts);
        }
    }

    /// All counts.
    pub(super) fn report(&self) -> Vec<ResponderStatus> {
        let report = self.0.iter().map(|(host, counts)| ResponderStatus {
            host: host.clone(),
            fetches: FetchResult::ALL
                .iter()
                .map(|result| (result.label().to_owned(), counts[result.index()]))
                .filter(|(_, count)| *count > 0)
                .collect(),
        });
        report.collect()
    }
}

/// The responders that have no count of their own.
const OTHERS: &str = "others";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responders_are_counted_apart_up_to_a_bound() {
        let mut tally = Tally::default();
        for n in 0..2 * RESPONDERS_COUNTED {
            tally.one(&format!("responder{n}"), FetchResult::Good);
            tally.one("responder0", FetchResult::TimedOut);
        }
        let report = tally.report();
        assert_eq!(report.len(), RESPONDERS_COUNTED + 1);
        let count = |host: &str, result: &str| {
            let of = report.iter().find(|r| r.host == host).expect("counted");
            of.fetches.get(result).copied()
        };
        assert_eq!(count("responder0", "good"), Some(1));
        assert_eq!(count("responder0", "timed_out"), Some(512));
        assert_eq!(count(OTHERS, "good"), Some(RESPONDERS_COUNTED as u64));
        assert_eq!(count(OTHERS, "timed_out"), None);
    }
}
