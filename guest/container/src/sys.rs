//! The system calls that no safe wrapper offers. All `unsafe` code of the crate is here.

#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use tokio::io::unix::AsyncFd;

pub(crate) mod bpf;

/// Sends `signal` to the process that `pidfd` names; 0 only asks whether it can be reached.
pub(crate) fn pidfd_send_signal(pidfd: &OwnedFd, signal: u8) -> io::Result<()> {
    let no_info = ptr::null::<libc::siginfo_t>();
    // SAFETY: pidfd_send_signal(2) takes integers and an optional pointer, which is null here.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), i32::from(signal), no_info, 0)
    };
    check(result).map(drop)
}

/// Of linux/sched.h; libc's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which of the two processes one is in after [`fork_sibling`].
pub(crate) enum Fork {
    Child,
    Parent { pid: u32, pidfd: OwnedFd },
}

/// Whether this process has one thread only: the condition for [`fork_sibling`].
pub(crate) fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}

/// Forks a process whose parent is the caller's parent, in the control group (cgroup v2) `into` if given.
///
/// Only workers call it: the zygote refuses to serve unless it [`is_single_threaded`], and no worker starts a thread.
pub(crate) fn fork_sibling(into: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (libc::CLONE_PARENT | libc::CLONE_PIDFD) as u64;
    args.pidfd = ptr::from_mut(&mut pidfd) as u64;
    if let Some(cgroup) = &into {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM this is a fork: the child runs on a copy of this very stack. The process has one thread,
    // so no lock of libc or the allocator is held by anybody else. `args` and `pidfd` outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, ptr::from_mut(&mut args), size_of::<libc::clone_args>()) };
    match check(result)? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent {
            pid: u32::try_from(pid).map_err(io::Error::other)?,
            // SAFETY: CLONE_PIDFD has stored a new descriptor that nobody else owns.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

/// Ends the process without running destructors or handlers, as a forked child must.
pub(crate) fn exit_now(code: u8) -> ! {
    // SAFETY: _exit(2) takes an integer and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Takes ownership of descriptor `number`, which this process was started with.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with F_GETFD takes integers.
    check(unsafe { libc::c_long::from(libc::fcntl(number, libc::F_GETFD)) })?;
    // SAFETY: the descriptor is open, and by the caller's word nothing else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes every descriptor from `first` on.
///
/// Nothing in the process may use such a descriptor afterwards: for a process that has just begun, or will end by
/// [`exit_now`].
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: close_range(2) takes integers. The callers run before anything in the process owns such a descriptor.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Marks every descriptor from `first` on to be closed by the next execve(2).
pub(crate) fn close_from_on_exec(first: u32) -> io::Result<()> {
    // SAFETY: close_range(2) takes integers; with CLOEXEC nothing is closed now.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Replaces the program. Returns only when that failed.
pub(crate) fn execve(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with null and point to strings that end with NUL and outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Signals as a fresh program expects them: default dispositions, none blocked.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is a valid disposition; numbers that cannot be set (KILL, STOP, libc's own) are refused
        // without effect.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: sigemptyset initialises the set before it is used; the old mask is not asked for.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
    }
}

/// Holds back every signal, for [`next_signal`] to take.
pub(crate) fn hold_signals() -> io::Result<()> {
    // SAFETY: sigfillset initialises the set before it is used; the old mask is not asked for.
    let result = unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &all, ptr::null_mut())
    };
    check(result.into()).map(drop)
}

/// Waits for a signal that is held back.
pub(crate) fn next_signal() -> i32 {
    // SAFETY: sigfillset initialises the set before it is used; no details of the signal are asked for.
    unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&mut all);
        libc::sigwaitinfo(&all, ptr::null_mut())
    }
}

/// Whether capability `number` is in the bounding set; `None` when the kernel knows no such capability.
pub(crate) fn bounding_capability(number: u32) -> Option<bool> {
    // SAFETY: PR_CAPBSET_READ takes an integer.
    match unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), 0, 0, 0) } {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

pub(crate) fn drop_bounding_capability(number: u32) -> io::Result<()> {
    // SAFETY: PR_CAPBSET_DROP takes an integer.
    check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) }.into())
        .map(drop)
}

/// One instruction of a classic BPF program is eight bytes (`struct sock_filter`, seccomp(2)).
const FILTER_INSTRUCTION: usize = size_of::<libc::sock_filter>();

/// Installs a seccomp filter, as libseccomp exports it. Needs no-new-privileges.
pub(crate) fn install_filter(program: &[u8]) -> io::Result<()> {
    let instructions: Vec<libc::sock_filter> = program
        .chunks_exact(FILTER_INSTRUCTION)
        .map(|bytes| libc::sock_filter {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
        .collect();
    if instructions.is_empty() || !program.len().is_multiple_of(FILTER_INSTRUCTION) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let filter = libc::sock_fprog {
        len: u16::try_from(instructions.len()).map_err(io::Error::other)?,
        filter: instructions.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads `len` instructions from `filter` and keeps a copy; both outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, ptr::from_ref(&filter)) };
    check(result).map(drop)
}

/// A private, read-only view of one file: a detached bind mount. What is executed through it cannot be written to
/// through `/proc/PID/exe`, by anybody.
pub(crate) fn read_only_view(path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: open_tree(2) reads a string that ends with NUL and returns a new descriptor.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    // SAFETY: the descriptor is new, and nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).map_err(io::Error::other)?) };
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut attributes: libc::mount_attr = unsafe { std::mem::zeroed() };
    attributes.attr_set = libc::MOUNT_ATTR_RDONLY;
    // SAFETY: mount_setattr(2) reads an empty string and a structure of the given size; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            ptr::from_ref(&attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    check(result)?;
    Ok(fd)
}

/// Watches `fd` for readiness.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the value that watches it, and so is open for as long as it is watched.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// Makes `terminal` the controlling terminal of the caller's new session.
pub(crate) fn take_terminal(terminal: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::ffi::OsStrExt};

    use super::*;

    #[test]
    fn a_view_can_be_read_and_not_written() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        fs::write(&path, "original").unwrap();
        let view = read_only_view(&CString::new(path.as_os_str().as_bytes()).unwrap()).unwrap();
        let through = format!("/proc/self/fd/{}", view.as_raw_fd());
        assert_eq!(fs::read(&through).unwrap(), b"original");
        let refused = fs::write(&through, "broken").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
        fs::write(&path, "by its owner").unwrap();
        assert_eq!(fs::read(&through).unwrap(), b"by its owner");
    }

    #[test]
    fn filters_that_are_none_are_refused() {
        for program in [&[][..], &[0; 7], &[0; 9]] {
            assert!(install_filter(program).is_err(), "{program:?}");
        }
    }
}
