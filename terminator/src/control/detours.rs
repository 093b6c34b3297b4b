//! In which order the responders of a certificate are asked, where it names several: those that
//! failed lately come last, so that a stuck one does not cost each certificate the wait for it.
//!
//! Pure: hosts, outcomes and instants are arguments. One question at a time finds out whether a host
//! is back, and the caller reports how every attempt ended.

use std::collections::HashMap;
use std::time::SystemTime;

use super::fetch::host_of;
use crate::limits::{DETOURS, RESPONDER_FIRST_REST, RESPONDER_LONGEST_REST};

/// The hosts that failed lately.
#[derive(Default)]
pub(super) struct Detours(HashMap<String, Failing>);

struct Failing {
    /// In a row.
    failures: u32,
    /// Passed over before.
    until: SystemTime,
}

impl Detours {
    /// Positions of these URLs in the order in which they are to be tried. A host whose rest is over
    /// is tried in its place by this question, and passed over by others meanwhile.
    pub(super) fn order(&mut self, urls: &[String], now: SystemTime) -> Vec<usize> {
        let mut order: Vec<usize> = (0..urls.len()).collect();
        if self.0.is_empty() || urls.len() < 2 {
            return order;
        }
        let mut rests = |&position: &usize| {
            let Some(failing) = self.0.get_mut(&host_of(&urls[position])) else {
                return false;
            };
            let rests = failing.until > now;
            if !rests {
                failing.until = now + RESPONDER_LONGEST_REST;
            }
            rests
        };
        order.sort_by_cached_key(&mut rests);
        order
    }

    /// Takes note of an attempt: whether the host was there, whatever it said.
    pub(super) fn note(&mut self, host: &str, reached: bool, now: SystemTime) {
        match reached {
            true => drop(self.0.remove(host)),
            false => self.failed(host, now),
        }
    }

    fn failed(&mut self, host: &str, now: SystemTime) {
        if self.0.len() >= DETOURS && !self.0.contains_key(host) {
            self.0.retain(|_, failing| failing.until > now);
            if self.0.len() >= DETOURS {
                return;
            }
        }
        let failing = self.0.entry(host.to_owned()).or_insert(Failing {
            failures: 0,
            until: now,
        });
        let rest = RESPONDER_FIRST_REST.saturating_mul(1 << failing.failures.min(10));
        failing.failures = failing.failures.saturating_add(1);
        failing.until = now + rest.min(RESPONDER_LONGEST_REST);
    }

    /// The clock was set: rests are instants of it.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn urls(hosts: &[&str]) -> Vec<String> {
        hosts
            .iter()
            .map(|host| format!("http://{host}/ocsp"))
            .collect()
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_host_that_failed_comes_last_until_it_answers() {
        let mut detours = Detours::default();
        let urls = urls(&["a", "b", "c"]);
        assert_eq!(detours.order(&urls, at(0)), [0, 1, 2]);
        detours.note("a:80", false, at(0));
        assert_eq!(detours.order(&urls, at(0)), [1, 2, 0]);
        detours.note("c:80", false, at(0));
        assert_eq!(detours.order(&urls, at(0)), [1, 0, 2]);
        detours.note("a:80", true, at(0));
        assert_eq!(detours.order(&urls, at(0)), [0, 1, 2]);
    }

    #[test]
    fn one_question_at_a_time_finds_out_whether_a_host_is_back() {
        let mut detours = Detours::default();
        let urls = urls(&["a", "b"]);
        detours.note("a:80", false, at(0));
        assert_eq!(detours.order(&urls, at(1)), [0, 1], "its rest is over");
        assert_eq!(detours.order(&urls, at(1)), [1, 0], "somebody is there");
        for second in 0..20 {
            detours.note("a:80", false, at(second));
        }
        assert_eq!(detours.order(&urls, at(70)), [1, 0], "a minute of rest");
        assert_eq!(detours.order(&urls, at(80)), [0, 1]);
    }

    #[test]
    fn no_more_hosts_are_remembered_than_the_bound() {
        let mut detours = Detours::default();
        for host in 0..2 * DETOURS {
            detours.note(&host.to_string(), false, at(0));
        }
        assert_eq!(detours.0.len(), DETOURS);
        detours.note("late", false, at(100));
        assert_eq!(detours.0.len(), 1, "rests that are over make room");
    }
}
