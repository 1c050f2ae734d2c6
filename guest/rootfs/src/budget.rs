//! Bytes that images may take: a share of the store's limit, and never the reserve of its file system.
//!
//! Who writes takes a [`Charge`] first; dropping it gives the bytes back, keeping it hands them to what was written.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{fs::fstatfs, io::Errno};

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` (linux/magic.h).
const TMPFS: rustix::fs::FsWord = 0x0102_1994;
const RAMFS: rustix::fs::FsWord = 0x8584_58f6;
/// The file system is asked again after so many bytes.
const CHECK_EVERY: u64 = 1 << 20;

/// Why nothing more may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoSpace {
    #[error("images would take more than the {limit} bytes they may; remove images that are not needed")]
    Limit { limit: u64 },
    #[error(
        "the pod's storage is full: {available} bytes are free and {reserve} stay reserved; \
         remove images or containers that are not needed, or give the pod more memory"
    )]
    Full { available: u64, reserve: u64 },
    #[error("the pod's storage does not answer ({0})")]
    Unknown(Errno),
}

#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: OwnedFd,
    limit: u64,
    reserve: u64,
    used: AtomicU64,
}

impl Budget {
    pub(crate) fn new(directory: OwnedFd, limit: u64, reserve: u64) -> Self {
        Self(Arc::new(Inner { directory, limit, reserve, used: AtomicU64::new(0) }))
    }

    pub(crate) fn charge(&self) -> Charge {
        Charge { budget: self.clone(), taken: 0, unchecked: CHECK_EVERY }
    }

    /// Counts what is there already.
    pub(crate) fn add_kept(&self, bytes: u64) {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back what a [`Charge::keep`] kept.
    pub(crate) fn release(&self, bytes: u64) {
        // Saturating, so that a miscount shows as a wrong figure and not as an endless budget.
        let _ = self
            .0
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| Some(used.saturating_sub(bytes)));
    }

    #[cfg(test)]
    pub(crate) fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// What there is when there is no room: for writes that failed on their own.
    pub(crate) fn full(&self) -> NoSpace {
        match available(self.0.directory.as_fd()) {
            Ok(available) => NoSpace::Full { available, reserve: self.0.reserve },
            Err(errno) => NoSpace::Unknown(errno),
        }
    }

    fn check(&self, wanted: u64) -> Result<(), NoSpace> {
        match self.full() {
            NoSpace::Full { available, reserve } if available >= reserve.saturating_add(wanted) => Ok(()),
            full => Err(full),
        }
    }
}

/// Bytes that can still be written. A file system in memory has no more than memory has, whatever its size says; a
/// ramfs says nothing at all.
fn available(directory: BorrowedFd<'_>) -> Result<u64, Errno> {
    let fs = fstatfs(directory)?;
    let free = match fs.f_blocks {
        0 => u64::MAX,
        _ => fs.f_bavail.saturating_mul(u64::try_from(fs.f_frsize).unwrap_or_default()),
    };
    if ![TMPFS, RAMFS].contains(&fs.f_type) {
        return Ok(free);
    }
    Ok(available_memory().map_or(free, |memory| free.min(memory)))
}

/// `MemAvailable` of proc(5), meminfo.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Bytes taken and not yet kept.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Budget,
    taken: u64,
    unchecked: u64,
}

impl Charge {
    pub(crate) fn take(&mut self, bytes: u64) -> Result<(), NoSpace> {
        let inner = &self.budget.0;
        let add = |used: u64| used.checked_add(bytes).filter(|&used| used <= inner.limit);
        if inner.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_err() {
            return Err(NoSpace::Limit { limit: inner.limit });
        }
        self.taken += bytes;
        self.unchecked += bytes;
        if self.unchecked >= CHECK_EVERY {
            self.budget.check(bytes)?;
            self.unchecked = 0;
        }
        Ok(())
    }

    /// Gives part of it back, for bytes that were deleted again.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        let bytes = bytes.min(self.taken);
        self.taken -= bytes;
        self.budget.release(bytes);
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The bytes now belong to what was written; its remover releases them.
    pub(crate) fn keep(mut self) -> u64 {
        std::mem::take(&mut self.taken)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.release(self.taken);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn budget(limit: u64, reserve: u64) -> Budget {
        Budget::new(File::open("/").unwrap().into(), limit, reserve)
    }

    #[test]
    fn a_dropped_charge_is_given_back_and_a_kept_one_is_not() {
        let budget = budget(100, 0);
        let mut dropped = budget.charge();
        dropped.take(60).unwrap();
        let mut kept = budget.charge();
        kept.take(40).unwrap();
        assert_eq!(kept.take(1), Err(NoSpace::Limit { limit: 100 }));
        drop(dropped);
        let kept = kept.keep();
        assert_eq!(budget.used(), 40);
        budget.release(kept);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn memory_is_known() {
        assert!(available_memory().unwrap() > 1 << 20);
    }

    #[test]
    fn the_reserve_stays_free() {
        let budget = budget(u64::MAX, u64::MAX);
        assert!(matches!(budget.charge().take(1), Err(NoSpace::Full { reserve: u64::MAX, .. })));
        assert_eq!(budget.used(), 0);
    }
}
