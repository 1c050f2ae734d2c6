//! What this host can offer a pod: measured or looked up, never assumed.

use std::{path::Path, time::Instant};

use crate::sys;

/// How long the time stamp counter is watched, and how often.
const WINDOW_MILLIS: u64 = 30;
const ATTEMPTS: usize = 3;

/// The frequency of this machine's time stamp counter in kHz, against the system's monotonic clock.
pub fn tsc_khz() -> u32 {
    // Being descheduled between the two readings at either end makes a sample wrong; the one with the narrowest ends
    // is the one to believe.
    let sample = || {
        let (first, first_width) = bracket();
        std::thread::sleep(std::time::Duration::from_millis(WINDOW_MILLIS));
        let (last, last_width) = bracket();
        let nanos = last.1.duration_since(first.1).as_nanos().max(1);
        let khz = u128::from(last.0.wrapping_sub(first.0)) * 1_000_000 / nanos;
        (first_width + last_width, u32::try_from(khz).unwrap_or(u32::MAX))
    };
    (0..ATTEMPTS).map(|_| sample()).min_by_key(|(width, _)| *width).map_or(0, |(_, khz)| khz)
}

/// Counter and clock read at the same time, and by how many ticks "the same time" is wide.
fn bracket() -> ((u64, Instant), u64) {
    let reading = || {
        let before = sys::time_stamp();
        let now = Instant::now();
        let after = sys::time_stamp();
        let width = after.wrapping_sub(before);
        ((before.wrapping_add(width / 2), now), width)
    };
    let readings = [reading(), reading(), reading(), reading()];
    readings.into_iter().min_by_key(|(_, width)| *width).unwrap_or_else(reading)
}

/// Whether the kernel of this host has vhost-vsock, and this user may use it.
pub fn has_kernel_vsock() -> bool {
    let device = Path::new("/dev/vhost-vsock");
    std::fs::OpenOptions::new().read(true).write(true).open(device).is_ok()
}

/// The release of this host's kernel, as `uname -r` says.
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_runs_at_a_processors_frequency() {
        let khz = tsc_khz();
        assert!((500_000..10_000_000).contains(&khz), "{khz}");
    }
}
