//! Lines as strace 6.1 wrote them, and lines as nobody should.

use super::*;

fn call(line: &str) -> Call {
    match parse(line) {
        Line::Call(call) => call,
        other => panic!("{line:?} is {other:?}"),
    }
}

fn constant(word: &str) -> Word {
    Word::Constant(word.into())
}

fn hex(text: &str) -> String {
    text.bytes().map(|c| format!("\\x{c:02x}")).collect()
}

#[test]
fn recorded_lines() {
    let lock =
        call("fcntl(3, F_SETLK, {l_type=F_RDLCK, l_whence=SEEK_SET, l_start=1073741824, l_len=1}) = 0");
    assert_eq!(lock.name, "fcntl");
    assert_eq!(lock.words[0], constant("F_SETLK"));
    assert_eq!(lock.result, Outcome::Value(0));

    let socket = call(
        "socket(AF_INET6, SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK, IPPROTO_TCP) = -1 EAFNOSUPPORT (Address family not supported by protocol)",
    );
    assert_eq!(socket.result, Outcome::Failed("EAFNOSUPPORT".into()));
    assert!(socket.words.contains(&constant("SOCK_CLOEXEC")));

    let mapped =
        call("mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f4d5c3ab000");
    assert_eq!(mapped.result, Outcome::Value(0x7f4d_5c3a_b000));

    let forked = call(
        "clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x7f459ac42a10) = 18885",
    );
    assert_eq!(forked.result, Outcome::Value(18885));

    let opened = call(&format!("openat(AT_FDCWD, \"{}\", O_RDONLY|O_CLOEXEC) = 3", hex("/proc/sys/a b")));
    assert!(opened.words.contains(&Word::Text("/proc/sys/a b".into())));

    let ended = call("exit_group(0) = ?");
    assert_eq!(ended.result, Outcome::None);
    let killed = call("futex(0x7f, FUTEX_WAIT_PRIVATE, 2, NULL <unfinished ...>");
    assert_eq!(killed.words[0], constant("FUTEX_WAIT_PRIVATE"));
    let unknown = call("syscall_0x1d5(0x1, 0x2, 0x3) = -1 ENOSYS (Function not implemented)");
    assert_eq!(unknown.name, "syscall_0x1d5");
    let restarted = call("restart_syscall(<... resuming interrupted read ...>) = 0");
    assert_eq!(restarted.name, "restart_syscall");
    let commented =
        call("prctl(0x53564d41 /* PR_??? */, 0, 0x7f38 /* (a) = b */, 4096) = -1 EINVAL (Invalid argument)");
    assert_eq!(commented.words, [], "a comment is no argument");
}

#[test]
fn a_string_cannot_pose_as_arguments() {
    // What an image chose is inside the quotes, in hexadecimal, whatever it says.
    let line = format!("openat(AT_FDCWD, \"{}\", O_RDONLY) = 3", hex("\", F_SETLK) = 0\nshmget(1"));
    let opened = call(&line);
    assert_eq!(opened.words.len(), 3);
    assert!(!opened.words.contains(&constant("F_SETLK")));
}

#[test]
fn events_and_rubbish() {
    for line in [
        "--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED} ---",
        "+++ exited with 0 +++",
        "",
        "<... read resumed>) = 0",
    ] {
        assert_eq!(parse(line), Line::Event, "{line:?}");
    }
    for line in ["(", "read", "read(3", "read(\"\\x41", "=", "a b(c) = 0", "\u{fffd}(1) = 0"] {
        assert_eq!(parse(line), Line::Unreadable, "{line:?}");
    }
}

#[test]
fn a_trace_counts_what_the_image_did() {
    let rules = Rules::built_in().unwrap();
    let exec = |path: &str, result: &str| {
        format!("execve(\"{}\", [\"{}\"], 0x7f /* 3 vars */) = {result}\n", hex(path), hex("/proc/sys/no"))
    };
    let files = BTreeMap::from([
        // Ours: its own calls do not count.
        (2, "shmget(IPC_PRIVATE, 1, 0) = 1\nvfork() = 3\n".to_owned()),
        // A child of ours: nothing counts before it has become a program of the image.
        (
            3,
            format!(
                "timerfd_create(CLOCK_REALTIME, 0) = 3\n{}io_setup(1, [0]) = 0\n{}epoll_create1(0) = 3\n{}clone(child_stack=NULL, flags=SIGCHLD) = 4\n",
                exec("/usr/bin/none", "-1 ENOENT (No such file or directory)"),
                exec("/usr/bin/server", "0"),
                "openat(AT_FDCWD, \"\\x2f\\x70\\x72\\x6f\\x63\\x2f\\x73\\x79\\x73\\x2f\\x78\", O_RDONLY) = -1 ENOENT (No such file or directory)\n",
            ),
        ),
        (
            4,
            format!(
                "flock(3, LOCK_EX) = 0\nfrobnicate(1) = 0\nnonsense\nchdir(\"{}\") = 0\n{}",
                hex("/www"),
                exec("./cgi", "0")
            ),
        ),
    ]);
    let traced = read(&rules, 2, &files);
    assert_eq!(traced.findings.options.keys().collect::<Vec<_>>(), ["EPOLL", "FILE_LOCKING"]);
    assert!(traced.findings.options["FILE_LOCKING"].by.iter().all(|reason| reason.who == "server"));
    assert_eq!(traced.findings.unknown.len(), 1);
    assert_eq!(traced.unreadable, 1);
    assert_eq!(traced.programs.keys().collect::<Vec<_>>(), ["/usr/bin/server", "/www/./cgi"]);
}

#[test]
fn what_no_rule_looks_at_is_not_traced() {
    let rules = Rules::built_in().unwrap();
    let filter = filter(&rules);
    assert!(filter.starts_with("trace=!read,write,"));
    for call in ["fcntl", "socket", "clock_gettime", "madvise", "openat", "execve", "clone"] {
        assert!(!filter.split(['!', ',']).any(|quiet| quiet == call), "{call} is needed");
    }
}

#[test]
fn what_pods_refuse_is_refused_under_trace() {
    let refusals = refusals(&Rules::built_in().unwrap());
    assert!(refusals.contains("?io_uring_setup") && refusals.ends_with(":error=EPERM"), "{refusals}");
    // What the stage itself needs to make a container.
    for call in ["mount", "unshare", "pivot_root", "sethostname", "clone", "umount2"] {
        assert!(!refusals.split(['=', ',', ':']).any(|refused| refused == format!("?{call}")), "{call}");
    }
}
