//! The few things that need `unsafe`: a child that dies with its parent, and the time stamp counter.
#![allow(unsafe_code)]

use std::io;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// Makes the child that `command` starts die when the thread that starts it does.
pub(crate) fn die_with_parent(command: &mut tokio::process::Command) {
    let parent = rustix::process::getpid();
    let arm = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // A parent that died before the line above is never heard of.
        match getppid() == Some(parent) {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: `arm` makes two system calls
    // (prctl, getppid), allocates nothing and takes no lock.
    unsafe { command.pre_exec(arm) };
}

/// The processor's time stamp counter.
pub(crate) fn time_stamp() -> u64 {
    // SAFETY: RDTSC exists on every x86-64 processor and has no memory operands.
    unsafe { core::arch::x86_64::_rdtsc() }
}
