//! When each step of booting was done, counted from the moment at which the machine began to run.
//!
//! The kernel's clock begins late, and early on it stands still whenever interrupts are off, so it knows nothing of the
//! firmware, of the kernel's own unpacking and of half of its start. The processor's time stamp counter begins at zero
//! with the machine and never stands still: what it is ahead of the clock at the first stamp has passed before.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::sys;

/// A counter that is this far ahead of the kernel's clock counts something else than this machine's time: a processor of
/// a real host that was not told to begin at zero.
const MOST_BEFORE: Duration = Duration::from_secs(60);
/// How far apart two readings must be to tell the counter's frequency.
const APART: Duration = Duration::from_millis(5);

/// The end of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub step: &'static str,
    /// Since the machine began to run.
    pub at: Duration,
}

/// Both clocks at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    counter: u64,
    /// `CLOCK_BOOTTIME`.
    clock: Duration,
}

impl Reading {
    fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        // A clock that counts from boot is never negative and its nanoseconds are below one thousand million.
        let clock =
            Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs().try_into().unwrap_or(0));
        Self { counter: sys::time_stamp(), clock }
    }
}

/// The steps so far, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamps(Vec<(&'static str, Reading)>);

impl Stamps {
    /// The first stamp ends what was before this program: firmware and kernel.
    pub fn start() -> Self {
        let mut stamps = Self(Vec::with_capacity(12));
        stamps.mark("kernel");
        stamps
    }

    pub fn mark(&mut self, step: &'static str) {
        self.0.push((step, Reading::now()));
    }

    pub fn iter(&self) -> impl Iterator<Item = Stamp> {
        let before = self.before();
        self.0.iter().map(move |(step, reading)| Stamp { step, at: before + reading.clock })
    }

    /// What had passed when the kernel's clock began, and while it stood still.
    fn before(&self) -> Duration {
        let (Some((_, first)), Some((_, last))) = (self.0.first(), self.0.last()) else {
            return Duration::ZERO;
        };
        let apart = last.clock.saturating_sub(first.clock);
        let ticks = last.counter.saturating_sub(first.counter);
        if apart < APART || ticks == 0 {
            return Duration::ZERO;
        }
        let nanos = u128::from(first.counter) * apart.as_nanos() / u128::from(ticks);
        let since_start = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        match since_start.saturating_sub(first.clock) {
            before if before <= MOST_BEFORE => before,
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KHZ: u64 = 2_600_000;

    fn stamps(readings: &[(u64, u64)]) -> Stamps {
        let reading = |&(counter, clock): &(u64, u64)| {
            ("step", Reading { counter: counter * KHZ, clock: Duration::from_millis(clock) })
        };
        Stamps(readings.iter().map(reading).collect())
    }

    fn millis(stamps: &Stamps) -> Vec<u128> {
        stamps.iter().map(|stamp| stamp.at.as_millis()).collect()
    }

    #[test]
    fn counts_what_passed_before_the_kernels_clock() {
        assert_eq!(millis(&stamps(&[(1000, 600), (1010, 610), (1200, 800)])), [1000, 1010, 1200]);
    }

    #[test]
    fn a_counter_that_tells_nothing_leaves_the_clock_alone() {
        // The host's own counter, a counter that stands still, and readings too close to tell its frequency.
        assert_eq!(millis(&stamps(&[(9_000_000, 600), (9_000_200, 800)])), [600, 800]);
        assert_eq!(millis(&stamps(&[(1000, 600), (1000, 800)])), [600, 800]);
        assert_eq!(millis(&stamps(&[(1000, 600), (1001, 601)])), [600, 601]);
        assert_eq!(millis(&stamps(&[(100, 600), (300, 800)])), [600, 800]);
    }

    #[test]
    fn the_machines_own_clocks_agree() {
        let mut stamps = Stamps::start();
        stamps.mark("next");
        let at: Vec<_> = stamps.iter().map(|stamp| stamp.at).collect();
        assert!(at[0] <= at[1] && at[0] > Duration::ZERO);
    }
}
