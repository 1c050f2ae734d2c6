//! The calls, made without any wrapper that could refuse them first.

#![allow(unsafe_code)]

use std::io;

pub(super) fn probe() {
    // SAFETY, of all calls below: none is given memory of this program but zeros and a pair of integers that outlive it.
    let ignored = 1i64 << 40;
    let socket = |family: i64| unsafe { libc::syscall(libc::SYS_socket, family, libc::SOCK_STREAM, 0) };
    tell("socket AF_UNIX", socket(1));
    tell("socket AF_INET", socket(2));
    tell("socket AF_NETLINK", unsafe { libc::syscall(libc::SYS_socket, 16, libc::SOCK_RAW, 0) });
    tell("socket AF_VSOCK", socket(40));
    tell("socket AF_VSOCK with an ignored bit", socket(40 | ignored));
    tell("socket AF_ALG", unsafe { libc::syscall(libc::SYS_socket, 38, libc::SOCK_SEQPACKET, 0) });
    let mut pair = [0i32; 2];
    tell("socketpair AF_UNIX", unsafe {
        libc::syscall(libc::SYS_socketpair, 1, libc::SOCK_STREAM, 0, &raw mut pair)
    });
    let zeros = [0u64; 32];
    let zeros = zeros.as_ptr();
    tell("io_uring_setup", unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, zeros) });
    tell("bpf", unsafe { libc::syscall(libc::SYS_bpf, 0, zeros, 16) });
    tell("perf_event_open", unsafe { libc::syscall(libc::SYS_perf_event_open, zeros, 0, -1, -1, 0) });
    tell("userfaultfd", unsafe { libc::syscall(libc::SYS_userfaultfd, 0) });
    tell("keyctl", unsafe { libc::syscall(libc::SYS_keyctl, 0, 0, 0, 0, 0) });
    tell("kexec_load", unsafe { libc::syscall(libc::SYS_kexec_load, 0, 0, 0, 0) });
    tell("open_by_handle_at", unsafe { libc::syscall(libc::SYS_open_by_handle_at, 0, zeros, 0) });
    tell("clone3", unsafe { libc::syscall(libc::SYS_clone3, zeros, 64) });
    let clone = |flags: i64| unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    tell("clone NEWUSER", clone(i64::from(libc::CLONE_NEWUSER | libc::SIGCHLD)));
    tell(
        "clone NEWUSER with an ignored bit",
        clone(i64::from(libc::CLONE_NEWUSER | libc::SIGCHLD) | ignored),
    );
    tell("setns", unsafe { libc::syscall(libc::SYS_setns, 0, 0) });
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
    let ioctl = |request: i64| unsafe { libc::syscall(libc::SYS_ioctl, null, request, zeros) };
    tell("TIOCSTI", ioctl(0x5412));
    tell("TIOCSTI with an ignored bit", ioctl(0x5412 | ignored));
    tell("TIOCGWINSZ", ioctl(0x5413));
    tell("personality", unsafe { libc::syscall(libc::SYS_personality, 0xffff_ffffi64) });
    tell("unknown call", unsafe { libc::syscall(9999) });
    tell_child("x32 getpid", || unsafe { libc::syscall(libc::SYS_getpid | 0x4000_0000) });
    tell_child("i386 getpid", || {
        let result: i64;
        // SAFETY: the 32-bit entry with getpid(2), which touches no memory.
        unsafe { std::arch::asm!("int 0x80", inlateout("rax") 20i64 => result) };
        result
    });
}

fn tell(call: &str, result: i64) {
    match result {
        -1 => println!("{call}: {}", io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        0 if call.starts_with("clone") => unsafe { libc::_exit(0) },
        _ => println!("{call}: ok"),
    }
}

/// In a child, for a call that may end the process.
fn tell_child(call: &str, attempt: impl Fn() -> i64) {
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        attempt();
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    match libc::WIFSIGNALED(status) {
        true => println!("{call}: killed"),
        false => println!("{call}: ok"),
    }
}
