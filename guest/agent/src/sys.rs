//! The system calls that no safe wrapper offers. All `unsafe` code of the crate is here.

#![allow(unsafe_code)]

use std::{os::fd::OwnedFd, sync::mpsc, thread, time::Duration};

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

/// A timer that interrupts the process, of which there is one; a thread that waits, where the kernel has no such timers.
#[derive(Debug)]
pub(crate) enum Timer {
    Interval,
    /// Whether it rang.
    Thread(mpsc::Sender<()>, thread::JoinHandle<bool>),
}

impl Timer {
    /// Calls `ring` after `within`, in the middle of whatever is done then: it may make system calls and nothing else.
    pub(crate) fn start(within: Duration, ring: extern "C" fn(libc::c_int)) -> std::io::Result<Self> {
        // SAFETY: the handler has the signature of a handler, and is a function of this program, so it stays.
        let before = unsafe { libc::signal(libc::SIGALRM, ring as *const () as libc::sighandler_t) };
        if before == libc::SIG_ERR {
            return Err(std::io::Error::last_os_error());
        }
        match Self::set(within) {
            Ok(_) => Ok(Self::Interval),
            // A specialised kernel may leave them out.
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Self::thread(within, ring),
            Err(error) => Err(error),
        }
    }

    fn thread(within: Duration, ring: extern "C" fn(libc::c_int)) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let wait = move || {
            let late = stopped.recv_timeout(within) == Err(mpsc::RecvTimeoutError::Timeout);
            if late {
                ring(libc::SIGALRM);
            }
            late
        };
        Ok(Self::Thread(stop, thread::Builder::new().name("timer".into()).spawn(wait)?))
    }

    /// Whether it came before the timer did.
    pub(crate) fn stop(self) -> bool {
        let in_time = match self {
            Self::Interval => Self::set(Duration::ZERO).is_ok_and(|left| !left.is_zero()),
            Self::Thread(stop, thread) => {
                drop(stop);
                thread.join().is_ok_and(|rang| !rang)
            }
        };
        // SAFETY: the default is always defined. It is not SIG_IGN, which containers' programs would inherit.
        unsafe { libc::signal(libc::SIGALRM, libc::SIG_DFL) };
        in_time
    }

    /// What was left.
    fn set(within: Duration) -> std::io::Result<Duration> {
        let none = libc::timeval { tv_sec: 0, tv_usec: 0 };
        let value = libc::timeval {
            tv_sec: within.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_usec: within.subsec_micros().into(),
        };
        let timer = libc::itimerval { it_interval: none, it_value: value };
        let mut before = libc::itimerval { it_interval: none, it_value: none };
        // SAFETY: both point to values of this function's, of the type that setitimer(2) takes.
        match unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, &raw mut before) } {
            0 => Ok(Duration::from_secs(before.it_value.tv_sec.unsigned_abs())
                + Duration::from_micros(before.it_value.tv_usec.unsigned_abs())),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
}

/// The processor's time stamp counter.
pub(crate) fn time_stamp() -> u64 {
    // SAFETY: RDTSC exists on every x86-64 processor and has no memory operands.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    static RUNG: AtomicU32 = AtomicU32::new(0);

    extern "C" fn ring(_: libc::c_int) {
        RUNG.fetch_add(1, Ordering::SeqCst);
    }

    /// One test, because a process has one such timer.
    #[test]
    fn a_timer_rings_unless_it_is_stopped() {
        for (times, start) in [Timer::start, Timer::thread].into_iter().enumerate() {
            let times = u32::try_from(times).unwrap();
            assert!(start(Duration::from_secs(3600), ring).unwrap().stop());
            assert_eq!(RUNG.load(Ordering::SeqCst), times);
            let timer = start(Duration::from_millis(1), ring).unwrap();
            let deadline = std::time::Instant::now() + Duration::from_secs(60);
            while RUNG.load(Ordering::SeqCst) == times && std::time::Instant::now() < deadline {
                std::thread::yield_now();
            }
            assert_eq!(RUNG.load(Ordering::SeqCst), times + 1);
            assert!(!timer.stop());
        }
    }
}
