//! The default seccomp profile: what programs need is allowed, everything else refused.
//!
//! A call that is not named here is answered as if the kernel did not have it (ENOSYS), which is how programs expect to
//! learn of calls that are newer than the kernel; what has long existed and is refused says so (EPERM).
//! Arguments are compared on their low 32 bits where the kernel looks at no more: a full comparison could be passed by
//! setting a bit that the kernel then ignores.

use oci_spec::{
    OciSpecError,
    runtime::{
        Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
        LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
    },
};

/// Socket families that a container may use. Everything else is not: AF_VSOCK (40) above all, which leads past the
/// network to the host's devices, the platform's among them; AF_ALG, AF_BLUETOOTH, AF_RDS and the like are attack
/// surface.
const FAMILIES: [u64; 5] = [
    1,  // AF_UNIX
    2,  // AF_INET
    10, // AF_INET6
    16, // AF_NETLINK
    17, // AF_PACKET, which takes CAP_NET_RAW
];

/// AF_MCTP, the last that there is (linux/socket.h). Beyond it the kernel itself refuses.
const LAST_FAMILY: u64 = 45;

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET (clone(2)).
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
/// TIOCSTI and TIOCLINUX put input into a terminal that somebody else reads (ioctl_tty(2)).
const TERMINAL_INJECTION: [u64; 2] = [0x5412, 0x541c];
/// Execution domains that are allowed: Linux, and the same with ADDR_NO_RANDOMIZE or UNAME26; asking (personality(2)).
const PERSONALITIES: [u64; 5] = [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

const LOW_32_BITS: u64 = 0xffff_ffff;

const ALLOWED: &[&str] = &[
    // files
    "access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 \
     fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr \
     flistxattr flock fremovexattr fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd getdents \
     getdents64 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch lchown \
     lgetxattr link linkat listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat \
     memfd_create mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pipe pipe2 \
     pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv \
     removexattr removexattrat rename renameat renameat2 rmdir sendfile setxattr setxattrat splice stat \
     statfs statx symlink symlinkat sync sync_file_range syncfs tee truncate umask unlink unlinkat utime \
     utimensat utimes vmsplice write writev",
    // waiting for files
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
     epoll_wait_old eventfd eventfd2 io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit \
     poll ppoll pselect6 select signalfd signalfd4 timerfd_create timerfd_gettime timerfd_settime",
    // memory
    "brk cachestat get_mempolicy madvise map_shadow_stack mbind membarrier mincore mlock mlock2 mlockall \
     mmap mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect \
     process_madvise process_mrelease remap_file_pages set_mempolicy set_mempolicy_home_node shmat shmctl \
     shmdt shmget",
    // processes and threads
    "arch_prctl capget capset execve execveat exit exit_group fork futex futex_requeue futex_wait \
     futex_waitv futex_wake get_robust_list get_thread_area getcpu getegid geteuid getgid getgroups \
     getpgid getpgrp getpid getppid getpriority getresgid getresuid getrlimit getrusage getsid gettid \
     getuid ioprio_get ioprio_set kill pidfd_getfd pidfd_open pidfd_send_signal prctl prlimit64 \
     process_vm_readv process_vm_writev ptrace rseq sched_get_priority_max sched_get_priority_min \
     sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
     sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp \
     set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setpgid \
     setpriority setregid setresgid setresuid setreuid setrlimit setsid setuid tgkill tkill vfork wait4 \
     waitid chroot landlock_add_rule landlock_create_ruleset landlock_restrict_self",
    // signals and time
    "alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep pause \
     restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
     rt_sigtimedwait rt_tgsigqueueinfo setitimer sigaltstack time timer_create timer_delete \
     timer_getoverrun timer_gettime timer_settime times",
    // messages
    "accept accept4 bind connect getpeername getsockname getsockopt listen mq_getsetattr mq_notify \
     mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd recvfrom recvmmsg recvmsg \
     semctl semget semop semtimedop sendmmsg sendmsg sendto setsockopt shutdown",
    // the system
    "getrandom sysinfo uname",
];

/// Refused with EPERM: power over the guest, its kernel, or name spaces; and io_uring, whose requests no filter sees
/// (it could make the very sockets that are refused here).
const REFUSED: &[&str] =
    &["acct adjtimex bpf clock_adjtime clock_settime create_module delete_module fanotify_init \
     fanotify_mark finit_module fsconfig fsmount fsopen fspick get_kernel_syms init_module io_uring_enter \
     io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl add_key \
     request_key lookup_dcookie migrate_pages mount mount_setattr move_mount move_pages nfsservctl \
     open_by_handle_at open_tree perf_event_open pivot_root query_module quotactl quotactl_fd reboot \
     setdomainname sethostname setns settimeofday swapoff swapon _sysctl syslog umount2 unshare \
     userfaultfd uselib ustat sysfs vhangup modify_ldt"];

/// The names in lists of names.
fn calls<'a>(lists: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    lists.iter().flat_map(|list| list.split_whitespace())
}

/// The profile.
pub(super) fn profile() -> Result<LinuxSeccomp, OciSpecError> {
    let errno = |errno: i32| errno.unsigned_abs();
    let mut rules = vec![
        rule(ALLOWED, LinuxSeccompAction::ScmpActAllow, None, None)?,
        rule(REFUSED, LinuxSeccompAction::ScmpActErrno, Some(errno(libc::EPERM)), None)?,
        // Its flags are in memory, where no filter can look: say that it does not exist, and clone(2) is used instead.
        rule(&["clone3"], LinuxSeccompAction::ScmpActErrno, Some(errno(libc::ENOSYS)), None)?,
        allow_if(&["clone"], masked(0, CLONE_NAMESPACES, 0)?)?,
    ];
    for flag in (0..u64::BITS).map(|bit| 1 << bit).filter(|flag| flag & CLONE_NAMESPACES != 0) {
        rules.push(refuse_if(&["clone"], libc::EPERM, masked(0, flag, flag)?)?);
    }
    for family in 0..=LAST_FAMILY {
        let this = masked(0, LOW_32_BITS, family)?;
        rules.push(match FAMILIES.contains(&family) {
            true => allow_if(&["socket", "socketpair"], this)?,
            false => refuse_if(&["socket", "socketpair"], libc::EAFNOSUPPORT, this)?,
        });
    }
    for personality in PERSONALITIES {
        rules.push(allow_if(&["personality"], masked(0, LOW_32_BITS, personality)?)?);
    }
    rules.extend(ioctl_rules()?);
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(errno(libc::ENOSYS))
        .architectures(vec![Arch::ScmpArchX86_64])
        .syscalls(rules)
        .build()
}

/// Every request but the injections. A rule can only say which low 32 bits are allowed, so "not equal" is said bit by
/// bit: a request is allowed if it differs from both in a bit where both are alike, or lies between them. Two numbers
/// that differ in few bits make that a short list.
fn ioctl_rules() -> Result<Vec<LinuxSyscall>, OciSpecError> {
    let [first, second] = TERMINAL_INJECTION;
    let differing = first ^ second;
    let mut rules = vec![
        refuse_if(&["ioctl"], libc::EPERM, masked(1, LOW_32_BITS, first)?)?,
        refuse_if(&["ioctl"], libc::EPERM, masked(1, LOW_32_BITS, second)?)?,
    ];
    for bit in (0..32).map(|bit| 1u64 << bit).filter(|bit| bit & differing == 0) {
        rules.push(allow_if(&["ioctl"], masked(1, bit, !first & bit)?)?);
    }
    // What is left agrees with both in all common bits: one of the few combinations of the differing ones.
    let mut combination = differing;
    loop {
        let request = first & !differing | combination;
        if !TERMINAL_INJECTION.contains(&request) {
            rules.push(allow_if(&["ioctl"], masked(1, LOW_32_BITS, request)?)?);
        }
        if combination == 0 {
            return Ok(rules);
        }
        combination = (combination - 1) & differing;
    }
}

fn allow_if(names: &[&str], condition: LinuxSeccompArg) -> Result<LinuxSyscall, OciSpecError> {
    rule(names, LinuxSeccompAction::ScmpActAllow, None, Some(condition))
}

fn refuse_if(names: &[&str], errno: i32, condition: LinuxSeccompArg) -> Result<LinuxSyscall, OciSpecError> {
    rule(names, LinuxSeccompAction::ScmpActErrno, Some(errno.unsigned_abs()), Some(condition))
}

fn rule(
    names: &[&str],
    action: LinuxSeccompAction,
    errno: Option<u32>,
    condition: Option<LinuxSeccompArg>,
) -> Result<LinuxSyscall, OciSpecError> {
    let names: Vec<String> = calls(names).map(str::to_owned).collect();
    let mut builder = LinuxSyscallBuilder::default().names(names).action(action);
    if let Some(errno) = errno {
        builder = builder.errno_ret(errno);
    }
    if let Some(condition) = condition {
        builder = builder.args(vec![condition]);
    }
    builder.build()
}

/// Argument `index`, masked, equals `value`.
fn masked(index: usize, mask: u64, value: u64) -> Result<LinuxSeccompArg, OciSpecError> {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
        .value(mask)
        .value_two(value)
        .build()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_call_is_both_allowed_and_refused() {
        let mut seen = HashSet::new();
        let conditional = ["clone", "clone3", "socket", "socketpair", "ioctl"];
        for name in calls(ALLOWED).chain(calls(REFUSED)).chain(conditional) {
            assert!(seen.insert(name), "{name}");
        }
    }

    #[test]
    fn ioctl_allows_all_but_the_injections() {
        let rules = ioctl_rules().unwrap();
        let allowed = |request: u64| {
            rules
                .iter()
                .filter(|rule| rule.action() == LinuxSeccompAction::ScmpActAllow)
                .flat_map(|rule| rule.args().iter().flatten())
                .any(|argument| request & argument.value() == argument.value_two().unwrap())
        };
        for request in TERMINAL_INJECTION {
            assert!(!allowed(request), "{request:#x}");
            assert!(!allowed(request | 1 << 40), "{request:#x} with a bit that the kernel ignores");
        }
        for request in [0x5401, 0x5413, 0x5414, 0x5410, 0x541b, 0x5421, 0x8004_5430, 0, 0xffff_ffff, 0x5c12] {
            assert!(allowed(request), "{request:#x}");
        }
    }

    #[test]
    fn the_dangerous_are_not_allowed() {
        for name in [
            "bpf",
            "mount",
            "kexec_load",
            "keyctl",
            "perf_event_open",
            "userfaultfd",
            "unshare",
            "setns",
            "io_uring_setup",
            "open_by_handle_at",
            "init_module",
            "reboot",
            "clone3",
            "add_key",
            "ptrace_not_a_call",
        ] {
            assert!(calls(ALLOWED).all(|allowed| allowed != name), "{name}");
        }
    }
}
