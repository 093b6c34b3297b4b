//! When a responder is asked again: pure functions of instants, a policy and dice.
//!
//! `dice` is a number in `[0, 1)` that the caller draws: it spreads certificates that were fetched
//! together. Nothing is measured or remembered here.

use std::time::{Duration, SystemTime};

use crate::config::Ocsp;
use crate::limits::{LONGEST_RETRY, LONGEST_UNSTAPLED_RETRY};

/// The validity of a staple, as far as the schedule cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    /// From the response.
    pub(super) this_update: SystemTime,
    /// From the response.
    pub(super) next_update: Option<SystemTime>,
    /// From then on it is not sent: nextUpdate, or the end of the responder's certificate before it.
    pub(super) not_after: SystemTime,
    /// From then on the HTTP server expects to have something newer, if it says so.
    pub(super) fresh_until: Option<SystemTime>,
}

/// What went wrong, as far as the pace of the next attempts cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The network, or an answer that cannot be used.
    Ordinary,
    /// The responder does not know the certificate, which passes by itself soon after issuance.
    NotKnownYet,
    /// The responder asked for patience.
    TryLater,
    /// Time alone will not mend it: the URL, the certificates, or what the responder wants.
    Lasting,
    /// The egress process went away, which says nothing about the responder.
    Egress,
}

/// How far ahead refreshes are planned, as configured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    /// Share of the validity that is left at a refresh.
    pub(super) margin: f64,
    /// Longest time between two fetches.
    pub(super) interval: Option<Duration>,
    /// Most that a refresh comes earlier by chance.
    pub(super) jitter: Duration,
}

impl Pace {
    /// As configured for a site.
    pub(super) fn of(settings: &Ocsp) -> Self {
        Self {
            margin: settings.margin,
            interval: settings.interval,
            jitter: settings.jitter,
        }
    }
}

/// When to replace a staple that was taken into use at `taken`: at `margin` (a share of its
/// validity) before its end, earlier by up to five minutes of jitter, and where it names no end
/// after twelve hours. Where the margin is less than twelve hours, twelve hours after thisUpdate at
/// the latest, so that a responder may be down for long. When HTTP promises something newer before
/// all that, then; but not so often that it would be for nothing. One that came in late is replaced
/// at a pace that quickens towards its end.
pub(super) fn refresh_at(
    validity: Validity,
    taken: SystemTime,
    pace: Pace,
    dice: f64,
) -> SystemTime {
    let period = pace.interval.unwrap_or(TWELVE_HOURS);
    let (begin, end) = match validity.next_update {
        Some(next) => (validity.this_update, next.min(validity.not_after)),
        None => (taken, validity.not_after.min(taken + period)),
    };
    let length = end.duration_since(begin).unwrap_or_default();
    let lead = match validity.next_update {
        Some(_) => length.mul_f64(pace.margin),
        // The period itself is the margin, unless the age bound comes first.
        None if validity.not_after > taken + period => Duration::ZERO,
        None => length.mul_f64(pace.margin),
    };
    let jitter = pace.jitter.min(length.mul_f64(JITTER_SHARE)).mul_f64(dice);
    let mut latest = end - lead.min(length);
    if validity.next_update.is_some() && lead < TWELVE_HOURS {
        latest = latest.min(begin + TWELVE_HOURS);
    }
    let planned = latest - jitter.min(latest.duration_since(begin).unwrap_or_default());
    let left = end.duration_since(taken).unwrap_or_default();
    let late = (left / 4).max((length / 100).clamp(SHORTEST_PAUSE, LONGEST_FLOOR));
    // Never so late that no time is left: half of what remains is for the answer.
    let mut next = planned.max(taken + late.min((left / 2).max(SHORTEST_PAUSE)));
    if let Some(most) = pace.interval {
        next = next.min(taken + most - jitter.min(most.mul_f64(JITTER_SHARE)));
    }
    if let Some(fresh) = validity.fresh_until {
        let pause = (length / 10).clamp(SHORTEST_PAUSE, LONGEST_HTTP_PACE);
        next = next.min(fresh.max(taken + pause) + jitter.min(pause / 10));
    }
    next
}

/// Whether the responder is asked only for something newer than the staple in use: as long as the
/// margin is not half gone. One that says "not modified" to the end would have no word of its own.
pub(super) fn asks_for_newer_only(validity: Validity, margin: f64, now: SystemTime) -> bool {
    let length = validity.not_after.duration_since(validity.this_update);
    let left = validity.not_after.duration_since(now).unwrap_or_default();
    left > length.unwrap_or_default().mul_f64(margin / 2.0)
}

/// How long to wait after the `failures`-th failure in a row (counted from 1). `left` is how long
/// the present staple still holds; `None` where there is none.
pub(super) fn retry_after(
    trouble: Trouble,
    failures: u32,
    left: Option<Duration>,
    dice: f64,
) -> Duration {
    let doublings = |first: Duration, from: u32| {
        let exponent = failures.saturating_sub(from).min(20);
        first.saturating_mul(1 << exponent)
    };
    let wait = match trouble {
        Trouble::Ordinary => doublings(FIRST_RETRY, 1),
        Trouble::NotKnownYet => doublings(UNKNOWN_RETRY, UNKNOWN_RETRIES),
        Trouble::TryLater => doublings(BUSY_RETRY, 1),
        Trouble::Lasting => return LONGEST_RETRY.mul_f64(0.75 + 0.25 * dice),
        Trouble::Egress => doublings(EGRESS_RETRY, 1).min(LONGEST_EGRESS_RETRY),
    };
    let longest = match left {
        // An eighth of what is left: ever more urgent, and still several attempts in the last second.
        Some(left) => (left / 8).clamp(LAST_PAUSE, LONGEST_RETRY),
        None if failures < PATIENCE => LONGEST_UNSTAPLED_RETRY,
        None => 5 * LONGEST_UNSTAPLED_RETRY,
    };
    wait.min(longest).mul_f64(0.75 + 0.5 * dice)
}

/// How long to wait for an answer where the present staple still holds for `left`: a responder that
/// hangs must not be waited for until the end, when it may answer the next attempt.
pub(super) fn patience(left: Option<Duration>, longest: Duration) -> Duration {
    left.map_or(longest, |left| {
        (left / 2).max(SHORTEST_PATIENCE).min(longest)
    })
}

/// Between two fetches where the responder names no nextUpdate, and in any case from thisUpdate where
/// the margin is shorter.
const TWELVE_HOURS: Duration = Duration::from_secs(12 * 3600);

/// No server is asked more often than this on the word of its HTTP headers, for a long validity.
const LONGEST_HTTP_PACE: Duration = Duration::from_secs(3600);

/// Of the validity, where that makes less than the jitter configured.
const JITTER_SHARE: f64 = 0.05;

/// Between two fetches that succeed, and before the first attempt after a failure.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// Between two attempts in the last moments of a staple: a responder that is back a second before
/// the end is asked in time.
const LAST_PAUSE: Duration = Duration::from_millis(200);

/// For an answer: several round trips.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(500);

/// Pause that is never gone below for a long validity.
const LONGEST_FLOOR: Duration = Duration::from_secs(60);

/// Soon, because at boot the network is often only seconds away.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Responders learn of a new certificate within minutes.
const UNKNOWN_RETRY: Duration = Duration::from_secs(30);

/// Attempts at that pace before it slows down.
const UNKNOWN_RETRIES: u32 = 10;

/// Failures in a row after which a certificate without a staple is no longer worth a minute's pace.
const PATIENCE: u32 = 30;

const BUSY_RETRY: Duration = Duration::from_secs(60);

const EGRESS_RETRY: Duration = Duration::from_secs(1);

const LONGEST_EGRESS_RETRY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::FETCH_DEADLINE;

    const DAY: u64 = 86400;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    fn pace(margin: f64) -> Pace {
        Pace {
            margin,
            interval: None,
            jitter: Duration::from_secs(300),
        }
    }

    fn validity(seconds: u64) -> Validity {
        Validity {
            this_update: at(0),
            next_update: Some(at(seconds)),
            not_after: at(seconds),
            fresh_until: None,
        }
    }

    #[test]
    fn a_margin_under_twelve_hours_means_twelve_hours_after_this_update_at_the_latest() {
        assert_eq!(
            refresh_at(validity(DAY), at(60), pace(0.25), 0.0),
            at(DAY / 2)
        );
        let ten_hours = 36_000;
        assert_eq!(
            refresh_at(validity(ten_hours), at(60), pace(0.25), 0.0),
            at(27_000)
        );
        assert_eq!(
            refresh_at(validity(2 * DAY), at(60), pace(0.25), 0.0),
            at(3 * DAY / 2)
        );
    }

    #[test]
    fn http_brings_a_refresh_forward_and_never_puts_it_off() {
        let mut fresh = validity(4 * DAY);
        fresh.fresh_until = Some(at(7200));
        assert_eq!(refresh_at(fresh, at(0), pace(0.25), 0.0), at(7200));
        fresh.fresh_until = Some(at(10 * DAY));
        assert_eq!(refresh_at(fresh, at(0), pace(0.25), 0.0), at(3 * DAY));
        // max-age=0: an hour all the same.
        fresh.fresh_until = Some(at(0));
        assert_eq!(refresh_at(fresh, at(0), pace(0.25), 0.0), at(3600));
    }

    #[test]
    fn not_modified_is_taken_for_an_answer_only_while_there_is_time() {
        let four_days = validity(4 * DAY);
        assert!(asks_for_newer_only(four_days, 0.25, at(3 * DAY)));
        assert!(!asks_for_newer_only(four_days, 0.25, at(3 * DAY + DAY / 2)));
        assert!(!asks_for_newer_only(four_days, 0.25, at(5 * DAY)));
    }

    #[test]
    fn a_fresh_staple_is_replaced_a_quarter_of_its_validity_before_its_end() {
        let refresh = refresh_at(validity(4 * DAY), at(60), pace(0.25), 0.0);
        assert_eq!(refresh, at(3 * DAY));
        let earliest = refresh_at(validity(4 * DAY), at(60), pace(0.25), 0.999_999);
        assert!(earliest > at(3 * DAY - 301) && earliest < at(3 * DAY - 299));
    }

    #[test]
    fn jitter_shrinks_with_the_validity() {
        let refresh = refresh_at(validity(40), at(0), pace(0.25), 0.999_999);
        assert!(refresh > at(27) && refresh < at(30), "{refresh:?}");
    }

    #[test]
    fn without_next_update_twelve_hours_pass_unless_the_age_bound_comes_first() {
        let mut open = validity(7 * DAY);
        open.next_update = None;
        assert_eq!(refresh_at(open, at(60), pace(0.25), 0.0), at(60 + DAY / 2));
        open.not_after = at(4000);
        assert_eq!(refresh_at(open, at(0), pace(0.25), 0.0), at(3000));
    }

    #[test]
    fn no_refresh_comes_later_than_the_interval() {
        let hourly = Pace {
            interval: Some(Duration::from_secs(3600)),
            ..pace(0.25)
        };
        assert_eq!(refresh_at(validity(4 * DAY), at(60), hourly, 0.0), at(3660));
        let mut open = validity(7 * DAY);
        open.next_update = None;
        assert_eq!(refresh_at(open, at(60), hourly, 0.0), at(3660));
        assert_eq!(refresh_at(validity(600), at(0), hourly, 0.0), at(450));
    }

    #[test]
    fn a_responder_certificate_that_ends_first_counts_as_the_end() {
        let mut short = validity(4 * DAY);
        short.not_after = at(2 * DAY);
        assert!(refresh_at(short, at(0), pace(0.25), 0.0) < at(2 * DAY));
    }

    #[test]
    fn in_the_last_second_of_a_staple_there_are_several_attempts() {
        for dice in [0.0, 0.999_999] {
            let wait = retry_after(Trouble::Ordinary, 20, Some(Duration::from_secs(1)), dice);
            assert!(wait < Duration::from_millis(300), "{wait:?}");
        }
    }

    #[test]
    fn waiting_for_an_answer_leaves_time_for_another_attempt() {
        assert_eq!(patience(None, FETCH_DEADLINE), FETCH_DEADLINE);
        assert_eq!(
            patience(Some(Duration::from_secs(DAY)), FETCH_DEADLINE),
            FETCH_DEADLINE
        );
        assert_eq!(
            patience(Some(Duration::from_secs(3)), FETCH_DEADLINE),
            Duration::from_millis(1500)
        );
        assert_eq!(
            patience(Some(Duration::ZERO), FETCH_DEADLINE),
            SHORTEST_PATIENCE
        );
    }

    #[test]
    fn an_unknown_certificate_is_asked_about_at_a_steady_pace_at_first() {
        let waits: Vec<Duration> = (1..=10)
            .map(|n| retry_after(Trouble::NotKnownYet, n, None, 0.5))
            .collect();
        assert!(waits.iter().all(|wait| *wait == UNKNOWN_RETRY));
        assert!(retry_after(Trouble::NotKnownYet, 14, None, 0.5) > UNKNOWN_RETRY);
    }

    #[test]
    fn a_responder_that_asks_for_patience_gets_it_until_the_staple_is_about_to_end() {
        let week = Some(Duration::from_secs(7 * DAY));
        let wait = |failures, left| retry_after(Trouble::TryLater, failures, left, 0.5);
        let minutes: Vec<u64> = (1..=7).map(|n| wait(n, week).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 60]);
        let seconds = Some(Duration::from_secs(40));
        assert_eq!(wait(7, seconds), Duration::from_secs(5));
    }

    proptest! {
        #[test]
        fn a_refresh_lies_between_the_taking_and_the_end(
            length in 2u64..60 * DAY,
            taken in 0.0f64..0.99,
            margin in 0.05f64..0.95,
            dice in 0.0f64..1.0,
        ) {
            let taken = at(0) + Duration::from_secs(length).mul_f64(taken);
            let refresh = refresh_at(validity(length), taken, pace(margin), dice);
            prop_assert!(refresh > taken);
            prop_assert!(refresh <= at(length).max(taken + SHORTEST_PAUSE));
        }

        #[test]
        fn a_staple_taken_fresh_leaves_its_margin_for_retries(
            length in 1000u64..60 * DAY,
            margin in 0.05f64..0.5,
            dice in 0.0f64..1.0,
        ) {
            let refresh = refresh_at(validity(length), at(0), pace(margin), dice);
            let left = at(length).duration_since(refresh).expect("before the end");
            prop_assert!(left >= Duration::from_secs(length).mul_f64(margin * 0.999));
        }

        #[test]
        fn a_retry_comes_before_the_end_and_never_at_once(
            failures in 1u32..200,
            left in proptest::option::of(10u64..60 * DAY),
            dice in 0.0f64..1.0,
        ) {
            for trouble in [Trouble::Ordinary, Trouble::NotKnownYet, Trouble::TryLater, Trouble::Egress] {
                let left = left.map(Duration::from_secs);
                let wait = retry_after(trouble, failures, left, dice);
                prop_assert!(wait >= SHORTEST_PAUSE.mul_f64(0.75));
                prop_assert!(wait <= LONGEST_RETRY.mul_f64(1.25));
                if let Some(left) = left {
                    prop_assert!(wait < left);
                }
            }
        }

        #[test]
        fn retries_slow_down_with_failures(failures in 1u32..100, dice in 0.0f64..1.0) {
            let wait = |n| retry_after(Trouble::Ordinary, n, Some(Duration::from_secs(7 * DAY)), dice);
            prop_assert!(wait(failures + 1) >= wait(failures));
        }
    }
}
