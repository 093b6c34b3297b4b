//! Which certificates are asked about next: due ones in order of time, a bounded number at once,
//! and few at a time for each responder.
//!
//! One heap for all certificates, no task and no timer for each. A responder gets a burst of questions
//! and then a steady pace. One in trouble is asked one question at a time, at growing distances, and
//! delays nobody but the certificates that need it.
//! Time is passed in; nothing is fetched here. The caller starts what [`Queue::next`] gives and must
//! report its end to [`Queue::finished`].

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::{Duration, SystemTime};

use crate::limits::{
    FETCHES_IN_FLIGHT, FETCHES_IN_TROUBLE, RESPONDER_FIRST_REST, RESPONDER_LONGEST_REST, Turns,
};
use crate::snapshot::CertificateIndex;

/// What is to be asked, and when.
pub(super) struct Queue {
    /// In flight at once.
    most: usize,
    turns: Turns,
    due: BinaryHeap<Reverse<(SystemTime, CertificateIndex)>>,
    /// For each certificate when it is due. An entry of the heap that says otherwise is void.
    at: Vec<Option<SystemTime>>,
    /// For each certificate the responder that its turn is counted against.
    responder: Vec<Option<ResponderIndex>>,
    responders: Vec<Responder>,
    by_host: HashMap<String, ResponderIndex>,
    in_flight: usize,
}

/// Position in [`Queue::responders`]. Four bytes, for there may be a million certificates.
type ResponderIndex = u32;

/// One host that answers for any number of certificates.
#[derive(Default)]
struct Responder {
    in_flight: usize,
    /// Failures in a row that are the responder's or the network's.
    failures: u32,
    /// Not asked before.
    resting_until: Option<SystemTime>,
    /// When the questions so far would have been asked at the steady pace.
    paced_until: Option<SystemTime>,
    /// Due, and waiting for a turn.
    waiting: VecDeque<CertificateIndex>,
}

impl Default for Queue {
    fn default() -> Self {
        Self::new(FETCHES_IN_FLIGHT, Turns::default())
    }
}

impl Queue {
    /// An empty queue that lets that many be in flight at once, and asks one responder as `turns` says.
    pub(super) fn new(most: usize, turns: Turns) -> Self {
        Self {
            most,
            turns,
            due: BinaryHeap::new(),
            at: Vec::new(),
            responder: Vec::new(),
            responders: Vec::new(),
            by_host: HashMap::new(),
            in_flight: 0,
        }
    }

    /// Enters the next certificate, in the order of the table, with the host of its responder.
    pub(super) fn enter(&mut self, host: Option<&str>) {
        let responder = host.map(|host| match self.by_host.get(host) {
            Some(&known) => known,
            None => {
                let index = self.responders.len().try_into().expect("fewer than 2^32");
                self.responders.push(Responder::default());
                self.by_host.insert(host.to_owned(), index);
                index
            }
        });
        self.responder.push(responder);
        self.at.push(None);
    }

    /// Sets when a certificate is due, in place of what was set before.
    pub(super) fn schedule(&mut self, certificate: CertificateIndex, at: SystemTime) {
        self.at[certificate as usize] = Some(at);
        self.due.push(Reverse((at, certificate)));
    }

    /// When a certificate is due; `None` while it is being asked about, or never.
    pub(super) fn due_at(&self, certificate: CertificateIndex) -> Option<SystemTime> {
        self.at[certificate as usize]
    }

    /// When the next certificate is due that does not wait for its responder.
    pub(super) fn next_due(&self) -> Option<SystemTime> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes the next certificate to ask about.
    pub(super) fn next(&mut self, now: SystemTime) -> Option<CertificateIndex> {
        self.sort_due(now);
        if self.in_flight >= self.most {
            return None;
        }
        let troubled = |responder: &Responder| responder.failures > 0;
        let in_trouble = self.responders.iter().filter(|r| troubled(r));
        let full = in_trouble.map(|r| r.in_flight).sum::<usize>()
            >= (self.most / 2).min(FETCHES_IN_TROUBLE);
        loop {
            let (index, _) = self
                .responders
                .iter()
                .enumerate()
                .filter(|(_, responder)| !(full && troubled(responder)))
                .filter(|(_, responder)| responder.may_be_asked(self.turns, now))
                // The one with the fewest questions: nobody starves behind a popular one.
                .min_by_key(|(_, responder)| responder.in_flight)?;
            let certificate = self.responders[index].waiting.pop_front()?;
            // It may have been asked about out of turn, or put off, while it waited.
            if self.at[certificate as usize].is_some_and(|at| at <= now) {
                self.begin(certificate, now);
                return Some(certificate);
            }
        }
    }

    /// Takes a certificate out of its turn, whatever its responder is in; false where it is being
    /// asked about, or has nobody to ask.
    pub(super) fn take(&mut self, certificate: CertificateIndex, now: SystemTime) -> bool {
        let can = self.responder[certificate as usize].is_some();
        let taken = can && self.at[certificate as usize].is_some();
        if taken {
            self.begin(certificate, now);
        }
        taken
    }

    fn begin(&mut self, certificate: CertificateIndex, now: SystemTime) {
        self.at[certificate as usize] = None;
        self.in_flight += 1;
        if let Some(index) = self.responder[certificate as usize] {
            let responder = &mut self.responders[index as usize];
            responder.in_flight += 1;
            let paced = responder.paced_until.map_or(now, |until| until.max(now));
            responder.paced_until = Some(paced + self.turns.pace);
        }
    }

    /// Reports the end of what [`Queue::next`] gave. `reached` is false where the responder or the
    /// way to it failed.
    pub(super) fn finished(
        &mut self,
        certificate: CertificateIndex,
        reached: bool,
        now: SystemTime,
    ) {
        let Some(index) = self.responder[certificate as usize] else {
            return;
        };
        self.in_flight = self.in_flight.saturating_sub(1);
        let responder = &mut self.responders[index as usize];
        responder.in_flight = responder.in_flight.saturating_sub(1);
        if reached {
            responder.failures = 0;
            responder.resting_until = None;
        } else {
            let rest = RESPONDER_FIRST_REST.saturating_mul(1 << responder.failures.min(10));
            responder.failures = responder.failures.saturating_add(1);
            responder.resting_until = Some(now + rest.min(RESPONDER_LONGEST_REST));
        }
    }

    /// The responder of this certificate rests until then at most, because its staple is about to end.
    pub(super) fn press(&mut self, certificate: CertificateIndex, until: SystemTime) {
        if let Some(index) = self.responder[certificate as usize] {
            let rest = &mut self.responders[index as usize].resting_until;
            *rest = rest.map(|at| at.min(until));
        }
    }

    /// The wall clock was set back by this much: what was due later than it should be is due as much
    /// earlier.
    pub(super) fn clock_set_back(&mut self, by: Duration) {
        for at in self.at.iter_mut().flatten() {
            *at -= by;
        }
        for responder in &mut self.responders {
            responder.resting_until = None;
            responder.paced_until = None;
        }
        let due = std::mem::take(&mut self.due).into_iter();
        self.due = due
            .map(|Reverse((at, certificate))| Reverse((at - by, certificate)))
            .collect();
    }

    /// Hands what is due to the responders' own queues.
    fn sort_due(&mut self, now: SystemTime) {
        while let Some(&Reverse((at, certificate))) = self.due.peek() {
            if at > now {
                break;
            }
            self.due.pop();
            let current = self.at[certificate as usize] == Some(at);
            if let (true, Some(index)) = (current, self.responder[certificate as usize]) {
                self.responders[index as usize]
                    .waiting
                    .push_back(certificate);
            }
        }
    }
}

impl Responder {
    fn may_be_asked(&self, given: Turns, now: SystemTime) -> bool {
        let turns = if self.failures == 0 {
            given.concurrency
        } else {
            1
        };
        !self.waiting.is_empty()
            && self.in_flight < turns
            && self.resting_until.is_none_or(|until| until <= now)
            && self
                .paced_until
                .is_none_or(|until| until <= now + given.pace * given.burst)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TURNS: Turns = Turns {
        concurrency: 4,
        burst: 64,
        pace: Duration::from_millis(50),
    };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn queue(hosts: &[&str]) -> Queue {
        let mut queue = Queue::default();
        for (index, host) in hosts.iter().enumerate() {
            queue.enter(Some(host));
            queue.schedule(index as CertificateIndex, at(index as u64));
        }
        queue
    }

    fn all(queue: &mut Queue, now: SystemTime) -> Vec<CertificateIndex> {
        std::iter::from_fn(|| queue.next(now)).collect()
    }

    #[test]
    fn certificates_come_in_the_order_in_which_they_are_due() {
        let mut queue = queue(&["a", "b", "c"]);
        assert_eq!(all(&mut queue, at(1)), [0, 1]);
        assert_eq!(queue.next_due(), Some(at(2)));
        assert_eq!(all(&mut queue, at(2)), [2]);
        assert_eq!(queue.due_at(2), None);
    }

    #[test]
    fn one_responder_gets_few_questions_at_once_and_the_others_go_on() {
        let mut hosts = vec!["slow"; 100];
        hosts.push("quick");
        let mut queue = queue(&hosts);
        let started = all(&mut queue, at(1000));
        assert_eq!(started.len(), TURNS.concurrency + 1);
        assert!(started.contains(&100));
        queue.finished(0, true, at(1000));
        assert_eq!(all(&mut queue, at(1000)), [4]);
    }

    #[test]
    fn a_responder_in_trouble_is_asked_one_question_at_a_time_after_a_rest() {
        let mut queue = queue(&["a"; 10]);
        assert_eq!(all(&mut queue, at(10)).len(), TURNS.concurrency);
        for certificate in 0..4 {
            queue.finished(certificate, false, at(10));
        }
        assert!(all(&mut queue, at(10)).is_empty());
        assert_eq!(all(&mut queue, at(20)), [4]);
        queue.finished(4, true, at(20));
        assert_eq!(all(&mut queue, at(20)), [5, 6, 7, 8]);
    }

    #[test]
    fn a_later_date_replaces_an_earlier_one() {
        let mut queue = queue(&["a"]);
        queue.schedule(0, at(100));
        assert!(all(&mut queue, at(50)).is_empty());
        assert_eq!(all(&mut queue, at(100)), [0]);
        assert!(all(&mut queue, at(200)).is_empty());
    }

    #[test]
    fn a_staple_about_to_end_shortens_the_rest_of_its_responder() {
        let mut queue = queue(&["a"]);
        assert_eq!(all(&mut queue, at(0)), [0]);
        queue.finished(0, true, at(0));
        for round in 1..8 {
            queue.schedule(0, at(100 * round));
            assert_eq!(all(&mut queue, at(100 * round)), [0], "round {round}");
            queue.finished(0, false, at(100 * round));
        }
        queue.schedule(0, at(702));
        assert!(all(&mut queue, at(702)).is_empty(), "it rests");
        queue.press(0, at(702));
        assert_eq!(all(&mut queue, at(702)), [0]);
    }

    #[test]
    fn a_responder_gets_a_burst_and_then_a_steady_pace() {
        let mut queue = queue(&["a"; 1000]);
        let mut asked = 0;
        for tenth in 0..100 {
            let now = at(2000) + Duration::from_millis(100 * tenth);
            while let Some(certificate) = queue.next(now) {
                asked += 1;
                queue.finished(certificate, true, now);
            }
            if tenth == 0 {
                assert_eq!(asked, TURNS.burst + 1);
            }
        }
        // Ten seconds at twenty a second.
        assert!((262..=266).contains(&asked), "{asked}");
    }

    #[test]
    fn the_operator_says_how_much_one_responder_is_asked() {
        let second = Duration::from_secs(1);
        let turns = Turns {
            concurrency: 2,
            burst: 1,
            pace: second,
        };
        let mut queue = Queue::new(FETCHES_IN_FLIGHT, turns);
        for certificate in 0..10 {
            queue.enter(Some("a"));
            queue.schedule(certificate, at(0));
        }
        assert_eq!(all(&mut queue, at(1000)), [0, 1]);
        queue.finished(0, true, at(1000));
        assert!(all(&mut queue, at(1000)).is_empty(), "two in a second");
        assert_eq!(all(&mut queue, at(1001)), [2]);
    }

    #[test]
    fn responders_that_hang_leave_room_for_the_rest() {
        let names: Vec<String> = (0..100).map(|n| format!("hangs{n}")).collect();
        let mut hosts: Vec<&str> = names.iter().map(String::as_str).collect();
        hosts.push("quick");
        let mut queue = queue(&hosts[..100]);
        let first = all(&mut queue, at(1000));
        for certificate in first {
            queue.finished(certificate, false, at(1000));
            queue.schedule(certificate, at(1100));
        }
        let rest = all(&mut queue, at(1000));
        for certificate in rest {
            queue.finished(certificate, false, at(1000));
            queue.schedule(certificate, at(1100));
        }
        assert_eq!(all(&mut queue, at(1100)).len(), FETCHES_IN_TROUBLE);
        queue.enter(Some(hosts[100]));
        queue.schedule(100, at(1100));
        assert_eq!(all(&mut queue, at(1100)), [100]);
    }

    #[test]
    fn a_certificate_taken_out_of_turn_is_not_asked_about_twice() {
        let mut queue = queue(&["a", "b"]);
        queue.sort_due(at(10));
        assert!(queue.take(0, at(10)));
        assert!(!queue.take(0, at(10)), "it is being asked about");
        assert_eq!(all(&mut queue, at(10)), [1]);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_put_anything_off() {
        let mut queue = queue(&["a", "b"]);
        queue.schedule(0, at(100_000));
        queue.schedule(1, at(100_010));
        queue.clock_set_back(Duration::from_secs(90_000));
        assert_eq!(all(&mut queue, at(10_005)), [0]);
        assert_eq!(all(&mut queue, at(10_010)), [1]);
    }

    proptest! {
        #[test]
        fn every_certificate_gets_its_turn_and_no_bound_is_passed(
            hosts in proptest::collection::vec(0u8..20, 1..300),
        ) {
            let names: Vec<String> = hosts.iter().map(u8::to_string).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut queue = queue(&names);
            let mut now = at(1000);
            let mut running: VecDeque<CertificateIndex> = VecDeque::new();
            let mut seen = 0;
            loop {
                running.extend(all(&mut queue, now));
                prop_assert!(running.len() <= FETCHES_IN_FLIGHT);
                let Some(done) = running.pop_front() else { break };
                seen += 1;
                now += TURNS.pace;
                queue.finished(done, true, now);
            }
            prop_assert_eq!(seen, hosts.len());
        }
    }
}
