//! The one async runtime. One thread does everything that waits; what blocks goes to a few short-lived others.

use std::{io, time::Duration};

use tokio::runtime::{Builder, Runtime};

/// Threads for evidence, file systems and name look-ups.
const BLOCKING_THREADS: usize = 8;
/// An idle one goes soon: its stack and its caches are memory.
const BLOCKING_IDLE: Duration = Duration::from_secs(2);
const STACK: usize = 512 << 10;

pub fn build() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_IDLE)
        .thread_stack_size(STACK)
        .build()
}
