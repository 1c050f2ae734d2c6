//! When each step of booting was done, counted from the start of the kernel's clock.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The end of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub step: &'static str,
    /// `CLOCK_BOOTTIME` at its end.
    pub at: Duration,
}

/// The steps so far, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamps(Vec<Stamp>);

impl Stamps {
    /// The first stamp ends the kernel's own part.
    pub fn start() -> Self {
        let mut stamps = Self(Vec::with_capacity(8));
        stamps.mark("kernel");
        stamps
    }

    pub fn mark(&mut self, step: &'static str) {
        self.0.push(Stamp { step, at: since_boot() });
    }

    pub fn iter(&self) -> impl Iterator<Item = &Stamp> {
        self.0.iter()
    }
}

fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    // A clock that counts from boot is never negative and its nanoseconds are below one thousand million.
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs().try_into().unwrap_or(0))
}
