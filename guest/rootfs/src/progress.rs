//! How far a pull or an import has come, for whoever shows it.

use tokio::sync::watch;

/// One snapshot. Totals are 0 until they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    pub received_bytes: u64,
    pub total_bytes: u64,
    pub layers_done: u32,
    pub layers_total: u32,
}

/// Where snapshots go: the newest replaces the one before, so a slow reader never holds up an image.
pub type ProgressSender = watch::Sender<Progress>;

/// A sender nobody listens to.
pub fn unwatched() -> ProgressSender {
    watch::Sender::new(Progress::default())
}
