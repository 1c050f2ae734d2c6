//! The system calls that no safe wrapper offers. All `unsafe` code of the crate is here.

#![allow(unsafe_code)]

use std::os::fd::OwnedFd;

use rustix::{
    io,
    thread::{UnshareFlags, unshare_unsafe},
};
use tokio::io::unix::AsyncFd;

/// Sets glibc's allocator; see `hygiene`. To be called before there is a second thread.
pub(crate) fn tune_allocator(arenas: i32, mmap_threshold: i32, trim_threshold: i32) {
    // SAFETY: mallopt(3) takes two integers, and the caller is the only thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, arenas);
        libc::mallopt(libc::M_MMAP_THRESHOLD, mmap_threshold);
        libc::mallopt(libc::M_TRIM_THRESHOLD, trim_threshold);
    }
}

/// Gives free memory back to the kernel.
pub(crate) fn trim_memory() {
    // SAFETY: malloc_trim(3) takes the heap's locks itself and moves no live allocation.
    unsafe { libc::malloc_trim(0) };
}

/// Lets go of this program's code and constants as far as they have been read in: what is needed again comes back from
/// the file, page by page.
pub(crate) fn forget_code() {
    unsafe extern "C" {
        // The linker's own names for where the read-only part of the program begins and ends (ld, default script).
        static __executable_start: u8;
        static etext: u8;
    }
    let page = rustix::param::page_size();
    let start = (&raw const __executable_start).addr().next_multiple_of(page);
    let end = (&raw const etext).addr() / page * page;
    let Some(length) = end.checked_sub(start) else { return };
    // SAFETY: from the first byte of the program to the end of its code every mapping is private, read-only and of the
    // program's file, and nothing was written to it (there are no text relocations): dropping pages loses nothing.
    let _ = unsafe {
        let start = std::ptr::with_exposed_provenance_mut(start);
        rustix::mm::madvise(start, length, rustix::mm::Advice::LinuxDontNeed)
    };
}

/// Mounts, host name and IPC of this process's own from here on. To be called before there is a second thread.
pub(crate) fn leave_namespaces() -> io::Result<()> {
    let flags = UnshareFlags::NEWNS | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC;
    // SAFETY: only CLONE_FILES could change what other code's descriptors mean, and it is not among the flags.
    unsafe { unshare_unsafe(flags) }
}

/// Watches `fd` for readiness; call it within the runtime.
pub(crate) fn watch(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the value that watches it, and so is open for as long as it is watched.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// The processor's time stamp counter.
pub(crate) fn time_stamp() -> u64 {
    // SAFETY: RDTSC exists on every x86-64 processor and has no memory operands.
    unsafe { core::arch::x86_64::_rdtsc() }
}
