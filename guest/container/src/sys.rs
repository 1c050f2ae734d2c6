//! The system calls that no safe wrapper offers. All `unsafe` code of the crate is here.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

/// Sends `signal` to the process that `pidfd` names; 0 only asks whether it can be reached.
pub(crate) fn pidfd_send_signal(pidfd: &OwnedFd, signal: u8) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: pidfd_send_signal(2) takes integers and an optional pointer, which is null here.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), i32::from(signal), no_info, 0) };
    check(result).map(drop)
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}
