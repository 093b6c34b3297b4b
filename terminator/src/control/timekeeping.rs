//! Whether the wall clock can be believed: steps of it, and what the world says about it. Pure: the
//! clocks are arguments.
//!
//! Validities are instants of the wall clock, so a wrong one makes right responses look wrong. Three
//! things are noticed: a step against the steady clock that nobody sets; answers dated otherwise than
//! now; an instant at which this program did not exist. The caller plans anew after a step, names a
//! [`Suspicion`] to people, and withdraws what [`Ends`] says has ended.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::fmt;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::clock::rfc3339;
use crate::snapshot::CertificateIndex;

/// The wall clock, watched.
pub(super) struct Timekeeping {
    /// The wall clock and one that nobody sets, read together.
    clocks: (SystemTime, Instant),
    /// The last thing that each of the last hosts said.
    sightings: VecDeque<Sighting>,
}

/// What one host said about the time.
struct Sighting {
    host: String,
    /// Seconds that our clock is ahead of its.
    ahead: i64,
}

/// The wall clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// By this much into the past.
    Back(Duration),
    /// By this much into the future.
    Forward(Duration),
}

/// Why the wall clock is probably wrong. `Display` names it for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// It shows an instant at which this program did not exist.
    TooEarly(SystemTime),
    /// Those asked last mostly say something else.
    Differs {
        /// Seconds that our clock is ahead; negative: behind.
        ahead: i64,
        /// How many say so.
        hosts: usize,
    },
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooEarly(at) => write!(
                f,
                "the clock of this machine says {}, which cannot be: set it, and keep it right with NTP",
                rfc3339(*at)
            ),
            Self::Differs { ahead, hosts } => {
                let by = humantime::format_duration(Duration::from_secs(ahead.unsigned_abs()));
                let side = if *ahead > 0 { "ahead" } else { "behind" };
                let who = match hosts {
                    1 => "the one server asked, unless that server's clock is wrong".to_owned(),
                    n => format!("{n} servers"),
                };
                write!(
                    f,
                    "the clock of this machine is {by} {side} of {who}: responses look expired or not yet valid; compare `date -u` with another machine, and keep the clock right with NTP"
                )
            }
        }
    }
}

impl Timekeeping {
    /// Begins with both clocks as they are.
    pub(super) fn new(wall: SystemTime, steady: Instant) -> Self {
        Self {
            clocks: (wall, steady),
            sightings: VecDeque::new(),
        }
    }

    /// Compares the clocks with what they were; a small difference is their drift.
    pub(super) fn look(&mut self, wall: SystemTime, steady: Instant) -> Option<Step> {
        let (then, since) = std::mem::replace(&mut self.clocks, (wall, steady));
        let expected = then + steady.duration_since(since);
        let step = match expected.duration_since(wall) {
            Ok(back) => Step::Back(back),
            Err(forward) => Step::Forward(forward.duration()),
        };
        let (Step::Back(by) | Step::Forward(by)) = step;
        if by <= SMALLEST_STEP {
            return None;
        }
        // What was said is about the clock before.
        self.sightings.clear();
        Some(step)
    }

    /// Takes note of how a host dated an answer that arrived now.
    pub(super) fn hear(&mut self, host: &str, dated: SystemTime, now: SystemTime) {
        let ahead = match now.duration_since(dated) {
            Ok(ahead) => i64::try_from(ahead.as_secs()).unwrap_or(i64::MAX),
            Err(behind) => -i64::try_from(behind.duration().as_secs()).unwrap_or(i64::MAX),
        };
        self.sightings.retain(|sighting| sighting.host != host);
        if self.sightings.len() >= HOSTS {
            self.sightings.pop_front();
        }
        let host = host.to_owned();
        self.sightings.push_back(Sighting { host, ahead });
    }

    /// Why the clock cannot be believed, if so: more than half of those heard differ to one side.
    pub(super) fn suspicion(&self, now: SystemTime) -> Option<Suspicion> {
        if now < SystemTime::UNIX_EPOCH + EARLIEST {
            return Some(Suspicion::TooEarly(now));
        }
        for side in [1, -1] {
            let differs = |s: &&Sighting| s.ahead.saturating_mul(side) > TOLERANCE;
            let mut far: Vec<i64> = self
                .sightings
                .iter()
                .filter(differs)
                .map(|s| s.ahead)
                .collect();
            if 2 * far.len() > self.sightings.len() {
                far.sort_unstable();
                return Some(Suspicion::Differs {
                    ahead: far[far.len() / 2],
                    hosts: far.len(),
                });
            }
        }
        None
    }
}

/// Ends of staples on the steady clock. A wall clock that was set back would let a staple be sent
/// past its true end: where it was right before, that end comes as it would have come. The first end
/// that is entered for a staple counts: it is by the clock under which the staple was verified, and a
/// clock that is set wrong and then right again neither lengthens nor shortens it.
#[derive(Default)]
pub(super) struct Ends {
    due: BinaryHeap<Reverse<(Instant, CertificateIndex, u64)>>,
    entered: HashSet<(CertificateIndex, u64)>,
}

impl Ends {
    /// Enters a staple with its end by the clock before the step, and the generation in which its
    /// slot was set.
    pub(super) fn enter(&mut self, certificate: CertificateIndex, since: u64, end: Instant) {
        if self.entered.insert((certificate, since)) {
            self.due.push(Reverse((end, certificate, since)));
        }
    }

    /// Takes the next staple that has ended.
    pub(super) fn over(&mut self, now: Instant) -> Option<(CertificateIndex, u64)> {
        let Reverse((end, certificate, since)) = *self.due.peek()?;
        if end > now {
            return None;
        }
        self.due.pop();
        self.entered.remove(&(certificate, since));
        Some((certificate, since))
    }

    /// Forgets all: the table is another one, whose staples are entered anew.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (Instant, CertificateIndex, u64)> + '_ {
        self.entered.clear();
        self.due.drain().map(|Reverse(end)| end)
    }
}

/// A step that matters.
const SMALLEST_STEP: Duration = Duration::from_secs(30);

/// Seconds that clocks may differ without a word: the skew that responses are granted by default.
const TOLERANCE: i64 = 300;

/// Hosts whose word is kept.
const HOSTS: usize = 16;

/// 2026-01-01: this program is younger.
const EARLIEST: Duration = Duration::from_secs(1_767_225_600);

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn wall() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn a_step_is_told_from_time_that_passes() {
        let (wall, steady) = (wall(), Instant::now());
        let mut time = Timekeeping::new(wall, steady);
        assert_eq!(time.look(wall + HOUR, steady + HOUR), None);
        assert_eq!(time.look(wall, steady + HOUR), Some(Step::Back(HOUR)));
        let second = Duration::from_secs(1);
        assert_eq!(
            time.look(wall + 5 * HOUR + second, steady + HOUR + second),
            Some(Step::Forward(5 * HOUR))
        );
        let drift = Duration::from_secs(20);
        assert_eq!(
            time.look(wall + 5 * HOUR + second + drift, steady + HOUR + second),
            None
        );
    }

    #[test]
    fn a_clock_that_most_servers_contradict_is_named_with_the_difference() {
        let now = wall();
        let mut time = Timekeeping::new(now, Instant::now());
        assert_eq!(time.suspicion(now), None);
        time.hear("a", now - 26 * HOUR, now);
        let words = time.suspicion(now).expect("one of one").to_string();
        assert!(
            words.contains("1day 2h ahead") && words.contains("NTP"),
            "{words}"
        );
        time.hear("b", now - Duration::from_secs(5), now);
        assert_eq!(time.suspicion(now), None, "one of two");
        time.hear("c", now - 25 * HOUR, now);
        let suspicion = time.suspicion(now).expect("two of three");
        assert!(matches!(suspicion, Suspicion::Differs { hosts: 2, .. }));
        // The clock is set right, and everybody is asked again.
        let right = now - 26 * HOUR;
        time.look(right, Instant::now());
        time.hear("a", right, right);
        assert_eq!(time.suspicion(right), None);
    }

    #[test]
    fn a_clock_before_this_program_is_named_without_asking_anybody() {
        let boot = SystemTime::UNIX_EPOCH + HOUR;
        let time = Timekeeping::new(boot, Instant::now());
        let words = time.suspicion(boot).expect("1970").to_string();
        assert!(words.contains("1970-01-01T01:00:00Z"), "{words}");
    }

    #[test]
    fn a_staple_ends_when_it_would_have_ended_without_the_step() {
        let now = Instant::now();
        let mut ends = Ends::default();
        ends.enter(3, 7, now + HOUR);
        ends.enter(4, 7, now + 2 * HOUR);
        ends.enter(4, 7, now);
        assert_eq!(ends.over(now), None);
        assert_eq!(ends.over(now + HOUR), Some((3, 7)));
        assert_eq!(ends.over(now + HOUR), None);
        assert_eq!(ends.drain().count(), 1);
    }
}
