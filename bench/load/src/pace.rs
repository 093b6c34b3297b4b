//! When connections are due, and waiting for that instant more finely than tokio's milliseconds.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::Arrivals;

/// The arrivals of one thread.
pub(crate) struct Schedule {
    next: Instant,
    mean: Duration,
    arrivals: Arrivals,
    random: SmallRng,
}

impl Schedule {
    /// `rate` a second over all `threads`, of which this is number `index`: evenly spaced arrivals
    /// of several threads interleave.
    pub(crate) fn new(
        start: Instant,
        rate: f64,
        arrivals: Arrivals,
        index: usize,
        threads: usize,
    ) -> Self {
        let mean = Duration::from_secs_f64(threads as f64 / rate);
        let offset = mean.mul_f64(index as f64 / threads as f64);
        Self {
            next: start + offset,
            mean,
            arrivals,
            random: SmallRng::seed_from_u64(index as u64),
        }
    }
}

impl Iterator for Schedule {
    type Item = Instant;

    fn next(&mut self) -> Option<Instant> {
        let due = self.next;
        let distance = match self.arrivals {
            Arrivals::Even => self.mean,
            // The inverse of the exponential distribution's function; 1 - u is never 0.
            Arrivals::Poisson => {
                let u: f64 = self.random.random();
                self.mean.mul_f64(-(1.0 - u).ln())
            }
        };
        self.next += distance;
        Some(due)
    }
}

/// A timer of the kernel: wakes within tens of microseconds.
pub(crate) struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// Must be made within a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for the sake of types whose descriptor may change; an OwnedFd keeps its own"
        )]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        Ok(Self(fd))
    }

    /// Waits until `due`; returns at once where that is past.
    pub(crate) async fn until(&self, due: Instant) -> io::Result<()> {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: left.subsec_nanos().into(),
            },
        };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &value)?;
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut [0; 8])?));
            if let Ok(read) = read {
                return read.map(drop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_arrivals_keep_the_rate_and_do_not_keep_the_distance() {
        let start = Instant::now();
        let due: Vec<Instant> = Schedule::new(start, 1000.0, Arrivals::Poisson, 0, 1)
            .take(10_001)
            .collect();
        let seconds = (due[10_000] - due[0]).as_secs_f64();
        assert!((9.5..10.5).contains(&seconds), "{seconds}");
        assert_ne!(due[1] - due[0], due[2] - due[1]);
    }

    #[test]
    fn even_arrivals_of_two_threads_interleave() {
        let start = Instant::now();
        let of = |index| Schedule::new(start, 100.0, Arrivals::Even, index, 2);
        let (mut first, mut second) = (of(0), of(1));
        let ms = |due: Option<Instant>| (due.expect("no end") - start).as_millis();
        assert_eq!((ms(first.next()), ms(second.next())), (0, 10));
        assert_eq!((ms(first.next()), ms(second.next())), (20, 30));
    }
}
