//! How fast the host may make the guest work, over all its connections.
//!
//! One thread serves the host and the owner. An honest shim makes a few calls a second; a host that floods is slowed
//! down at its own end, by being read later, and the owner's calls find the thread free.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// Bytes that cost as much as a call.
pub(super) const UNIT: usize = 16 << 10;

/// Grants units of work: one second's worth at once, then evenly.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// When everything granted so far is worked off.
    busy_until: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(units_per_second: u32) -> Self {
        let interval = Duration::from_secs(1) / units_per_second.max(1);
        Self { interval, busy_until: Mutex::new(Instant::now()) }
    }

    /// Waits until `units` of work may be done.
    pub(super) async fn turn(&self, units: u32) {
        let wait = self.book(units);
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }

    fn book(&self, units: u32) -> Duration {
        const AT_ONCE: Duration = Duration::from_secs(1);
        // A moment in time is whole after any panic.
        let mut busy_until = self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        *busy_until = (*busy_until).max(now) + self.interval * units;
        busy_until.saturating_duration_since(now).saturating_sub(AT_ONCE)
    }
}

/// What a body of `length` bytes costs on top of its call.
pub(super) fn units(length: usize) -> u32 {
    u32::try_from(length / UNIT).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_is_free_and_a_flood_is_not() {
        let pace = Pace::new(100);
        for _ in 0..100 {
            assert_eq!(pace.book(1), Duration::ZERO);
        }
        pace.book(100);
        assert!(pace.book(1) > Duration::from_millis(500), "a second's worth too much has to wait for it");
    }

    #[test]
    fn size_costs() {
        assert_eq!([0, UNIT - 1, UNIT, 4 << 20].map(units), [0, 0, 1, 256]);
    }
}
