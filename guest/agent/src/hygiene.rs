//! What the process does to itself before it has a secret: no core dumps, no debugger, little idle memory.

use std::{sync::Arc, time::Duration};

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tokio::{sync::Notify, time::sleep};

use crate::sys;

/// The agent has one busy thread, and each further arena would keep what it once needed.
const ARENAS: i32 = 1;
/// Allocations from here on are their own mappings and go back to the kernel when freed. Fixed, because glibc otherwise
/// raises it with the first large message, and every later peak stays resident.
const MMAP_THRESHOLD: i32 = 1 << 20;
/// Free memory at the top of the heap beyond this goes back to the kernel at once; the rest a moment later.
const TRIM_THRESHOLD: i32 = 8 << 20;

#[derive(Debug, thiserror::Error)]
#[error("protecting the process's memory")]
pub struct HygieneError(#[from] rustix::io::Errno);

/// How long it must have been quiet before memory is given back.
const QUIET: Duration = Duration::from_millis(100);

/// Gives memory back to the kernel some time after somebody has said that there may be some. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Housekeeper {
    wanted: Arc<Notify>,
}

impl Housekeeper {
    /// Something large has ended.
    pub fn call(&self) {
        self.wanted.notify_one();
    }

    /// Waits for calls, for as long as the agent lives. Of a program that is `rereadable`, what only starting needed goes
    /// first; of another it would stay in memory, and only be mapped anew.
    pub async fn run(self, rereadable: bool) {
        if rereadable {
            sys::forget_code();
        }
        loop {
            self.wanted.notified().await;
            // Calls that come in a row are one.
            sleep(QUIET).await;
            sys::trim_memory();
        }
    }
}

/// To be called once, before the first thread and the first secret.
pub fn harden() -> Result<(), HygieneError> {
    sys::tune_allocator(ARENAS, MMAP_THRESHOLD, TRIM_THRESHOLD);
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // Rather a container than the agent. Refused outside a guest of our own, where it does not matter.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-999");
    Ok(())
}
