//! Further processes in a running container.

use postern_container::{ExecError, ExecProcess, FailureKind, Stdio};
use postern_model::ExitStatus;

use crate::support::{name, process, with_pod};

#[test]
fn runs_in_the_container() {
    with_pod(|pod| async move {
        let id = pod.sleeper("a").await;
        let output =
            pod.exec(&id, &["sh", "-c", "hostname; cat /proc/1/cmdline; echo; echo e >&2; exit 3"]).await;
        assert_eq!(output.status, ExitStatus::Exited(3));
        assert_eq!(output.stdout.replace('\0', " "), "pod\nsleep 1000 \n");
        assert_eq!(output.stderr, "e\n");
        let killed = pod.exec(&id, &["sh", "-c", "kill -9 $$"]).await;
        assert_eq!(killed.status, ExitStatus::Signalled(9));
    });
}

#[test]
fn takes_environment_user_and_directory() {
    with_pod(|pod| async move {
        let id = pod.sleeper("a").await;
        let wanted = ExecProcess {
            env: [("X".to_owned(), "y=z".to_owned())].into(),
            cwd: Some("/etc".into()),
            user: Some("web".into()),
            ..process(&[
                "sh",
                "-c",
                "echo $X $HOME $PATH; pwd; id; grep -E '^(Cap|NoNew|Seccomp:|Groups)' /proc/self/status",
            ])
        };
        let output = pod.exec_as(&id, wanted).await.unwrap();
        let expected = [
            "y=z /srv /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "/etc",
            "uid=33(web) gid=44(web) groups=55(extra)",
            "CapEff:\t0000000000000000",
            "CapPrm:\t0000000000000000",
            "CapInh:\t0000000000000000",
            "CapAmb:\t0000000000000000",
            "CapBnd:\t00000000a80425fb",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
            "Groups:\t55",
        ];
        for line in expected {
            assert!(output.stdout.lines().any(|found| found.trim_end() == line), "{line} in {output:?}");
        }
    });
}

#[test]
fn says_what_is_wrong() {
    with_pod(|pod| async move {
        let id = pod.sleeper("a").await;
        std::fs::write(pod.path("rootfs-a/bin/script"), "#!/no/interpreter\n").unwrap();
        pod.script(&id, "chmod 755 /bin/script; touch /bin/plain; ln -s /nowhere /broken").await;
        let kind = |process: ExecProcess| {
            let (pod, id) = (pod.clone(), id.clone());
            async move {
                match pod.exec_as(&id, process).await {
                    Err(ExecError::Refused(failure)) => failure.kind,
                    other => panic!("{other:?}"),
                }
            }
        };
        for (args, expected) in [
            (["no-such"], FailureKind::CommandNotFound),
            (["/bin/no-such"], FailureKind::CommandNotFound),
            (["/bin/script"], FailureKind::CommandNotFound),
            (["plain"], FailureKind::CommandNotExecutable),
            (["/bin/plain"], FailureKind::CommandNotExecutable),
            (["/etc"], FailureKind::CommandNotExecutable),
        ] {
            assert_eq!(kind(process(&args)).await, expected, "{args:?}");
        }
        let user = ExecProcess { user: Some("nobody-here".into()), ..process(&["true"]) };
        assert_eq!(kind(user).await, FailureKind::User);
        for cwd in ["/no/such", "/etc/passwd", "/broken", "relative"] {
            let process = ExecProcess { cwd: Some(cwd.into()), ..process(&["true"]) };
            assert_eq!(kind(process).await, FailureKind::WorkingDirectory, "{cwd}");
        }
        assert!(matches!(
            pod.runtime.exec(&id, process(&[]), Stdio::Closed).await,
            Err(ExecError::NoCommand)
        ));
        assert!(matches!(
            pod.runtime.exec(&name("none"), process(&["true"]), Stdio::Closed).await,
            Err(ExecError::UnknownContainer(_))
        ));
        pod.runtime.signal(&id, postern_container::Signal::KILL, postern_container::Target::Init).unwrap();
        // Whether the end has been noticed yet or not: never a process outside of the container.
        match pod.runtime.exec(&id, process(&["true"]), Stdio::Closed).await {
            Err(ExecError::NotRunning(_)) => {}
            Err(ExecError::Refused(failure)) => assert_eq!(failure.kind, FailureKind::Ended),
            Ok(created) => assert_eq!(created.process.exit().wait().await, ExitStatus::Signalled(9)),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_directory_cannot_lead_out() {
    with_pod(|pod| async move {
        let id = pod.sleeper("a").await;
        pod.script(&id, "ln -s /proc/self/fd/0 /fd; ln -s /proc/1/root /root-link; ln -s /etc /inside").await;
        for fd in 0..12 {
            for cwd in [format!("/proc/self/fd/{fd}"), format!("/proc/self/fd/{fd}/../../.."), "/fd".into()] {
                let process = ExecProcess { cwd: Some(cwd.clone().into()), ..process(&["pwd"]) };
                match pod.exec_as(&id, process).await {
                    Err(ExecError::Refused(failure)) => {
                        assert_eq!(failure.kind, FailureKind::WorkingDirectory, "{cwd}")
                    }
                    other => panic!("{cwd}: {other:?}"),
                }
            }
        }
        let magic = ExecProcess { cwd: Some("/root-link".into()), ..process(&["pwd"]) };
        assert!(pod.exec_as(&id, magic).await.is_err());
        let honest = ExecProcess { cwd: Some("/inside".into()), ..process(&["pwd"]) };
        assert_eq!(pod.exec_as(&id, honest).await.unwrap().stdout, "/etc\n");
        let above = ExecProcess { cwd: Some("/../../etc".into()), ..process(&["pwd"]) };
        assert_eq!(pod.exec_as(&id, above).await.unwrap().stdout, "/etc\n");
    });
}

#[test]
fn a_forged_proc_gives_no_capability() {
    with_pod(|pod| async move {
        // The container shows another number of capabilities; whoever believed it would drop none, or too many.
        let mut spec = crate::support::wish("a", &["sleep", "1000"]);
        spec.mounts.clear();
        let id = pod.sleeper_of(spec).await;
        let forged = pod.path("rootfs-a/forged");
        std::fs::write(&forged, "0\n").unwrap();
        let init = std::fs::read_to_string(pod.path("state/bundles/a/config.json")).unwrap();
        assert!(init.contains("CAP_CHOWN"));
        mount_in(&pod, &id, "/forged", "/proc/sys/kernel/cap_last_cap").await;
        assert_eq!(pod.script(&id, "cat /proc/sys/kernel/cap_last_cap").await, "0\n");
        let caps = pod.script(&id, "grep -E '^Cap(Bnd|Eff|Prm)' /proc/self/status").await;
        for line in caps.lines() {
            assert!(line.ends_with("00000000a80425fb"), "{caps}");
        }
    });
}

/// Bind mounts within the container, as one with more rights could.
async fn mount_in(pod: &crate::support::Pod, id: &postern_model::ContainerName, from: &str, to: &str) {
    use std::os::fd::AsFd;
    let pid: u32 = {
        let created = pod.runtime.exec(id, process(&["sleep", "1000"]), Stdio::Closed).await.unwrap();
        created.process.pid()
    };
    let (from, to) = (from.to_owned(), to.to_owned());
    let work = std::thread::spawn(move || {
        // Of this thread only: a thread that shares its file system state may not change mount name spaces.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.unwrap();
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        rustix::thread::move_into_thread_name_spaces(
            pidfd.as_fd(),
            rustix::thread::ThreadNameSpaceType::MOUNT,
        )
        .unwrap();
        rustix::mount::mount_bind(from, to).unwrap();
    });
    tokio::task::spawn_blocking(move || work.join().unwrap()).await.unwrap();
}
