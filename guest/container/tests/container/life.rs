//! Create, start, end, delete; what is refused in between.

use oci_spec::image::Config;
use postern_container::{
    CreateContainer, CreateError, DeleteError, ExecError, FailureKind, Init, PauseError, Signal, SignalError,
    StartError, Stdio, Target, spec,
};
use postern_model::{ExitStatus, RunUser};

use crate::support::{chain, config, image, name, process, script, wish, with_pod};

#[test]
fn runs_to_its_exit_code() {
    with_pod(|pod| async move {
        let output = pod.run(script("a", "echo out; echo err >&2; exit 7")).await;
        assert_eq!(output.status, ExitStatus::Exited(7));
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    });
}

#[test]
fn waits_for_its_start() {
    with_pod(|pod| async move {
        let created = pod.create(script("a", "touch /ran; exit 0"), Stdio::Closed).await;
        let ran = pod.path("rootfs-a/ran");
        assert!(created.process.exit().now().is_none());
        assert!(!ran.exists());
        assert!(matches!(
            pod.runtime.exec(&name("a"), process(&["true"]), Stdio::Closed).await,
            Err(ExecError::NotRunning(_))
        ));
        pod.runtime.start(&name("a")).await.unwrap();
        assert_eq!(created.process.exit().wait().await, ExitStatus::Exited(0));
        assert!(ran.exists());
        assert!(matches!(pod.runtime.start(&name("a")).await, Err(StartError::AlreadyStarted(_))));
    });
}

#[test]
fn a_name_is_free_again_after_delete() {
    with_pod(|pod| async move {
        let id = pod.sleeper("a").await;
        let again = wish("a", &["true"]);
        let oci = spec::build(&again, &image(Config::default()), &pod.context(pod.path("rootfs-a"))).unwrap();
        let create = || CreateContainer {
            id: id.clone(),
            spec: oci.clone(),
            init: Init::Command,
            stdio: Stdio::Closed,
        };
        assert!(matches!(pod.runtime.create(create()).await, Err(CreateError::Exists(_))));
        // The one that was there has not noticed.
        assert!(pod.exec(&id, &["true"]).await.status.success());
        pod.runtime.delete(&id).await.unwrap();
        assert!(matches!(pod.runtime.delete(&id).await, Err(DeleteError::UnknownContainer(_))));
        let created = pod.runtime.create(create()).await.unwrap();
        pod.runtime.start(&id).await.unwrap();
        assert_eq!(created.process.exit().wait().await, ExitStatus::Exited(0));
    });
}

#[test]
fn delete_ends_what_was_never_started() {
    with_pod(|pod| async move {
        let created = pod.create(wish("a", &["true"]), Stdio::Closed).await;
        pod.runtime.delete(&name("a")).await.unwrap();
        assert_eq!(created.process.exit().wait().await, ExitStatus::Signalled(9));
    });
}

#[test]
fn signals_reach_init_or_all() {
    with_pod(|pod| async move {
        let trap = "trap 'exit 42' TERM; while true; do sleep 0.01; done";
        let created = pod.create(script("a", trap), Stdio::Closed).await;
        pod.runtime.start(&name("a")).await.unwrap();
        // The trap is set when init ignores nothing and handles TERM.
        let status = format!("/proc/{}/status", created.process.pid());
        crate::support::eventually("the trap", || {
            let text = std::fs::read_to_string(&status).ok()?;
            let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
            (u64::from_str_radix(caught.trim(), 16).ok()? & (1 << 14) != 0).then_some(())
        })
        .await;
        pod.runtime.signal(&name("a"), Signal::TERMINATE, Target::Init).unwrap();
        assert_eq!(created.process.exit().wait().await, ExitStatus::Exited(42));
        assert!(matches!(created.process.signal(Signal::TERMINATE), Err(SignalError::Ended)));

        let id = pod.sleeper("b").await;
        let other = pod.runtime.exec(&id, process(&["sleep", "1000"]), Stdio::Closed).await.unwrap();
        pod.runtime.signal(&id, Signal::INTERRUPT, Target::All).unwrap();
        assert_eq!(other.process.exit().wait().await, ExitStatus::Signalled(2));
        // Init has no handler, and the kernel keeps such a signal from the first process of a name space.
        assert!(pod.exec(&id, &["true"]).await.status.success());
        pod.runtime.signal(&id, Signal::KILL, Target::All).unwrap();
        assert!(matches!(
            pod.runtime.signal(&name("none"), Signal::KILL, Target::All),
            Err(SignalError::UnknownContainer(_))
        ));
    });
}

#[test]
fn pause_stops_and_unpause_continues() {
    with_pod(|pod| async move {
        let (id, other) = (pod.ticker("a").await, pod.ticker("b").await);
        pod.runtime.pause(&id).await.unwrap();
        let frozen = pod.ticks(&id);
        assert!(matches!(
            pod.runtime.exec(&id, process(&["true"]), Stdio::Closed).await,
            Err(ExecError::Paused(_))
        ));
        assert!(matches!(pod.runtime.pause(&id).await, Err(PauseError::NotRunning(_))));
        pod.await_ticks(&other, pod.ticks(&other) + 10).await;
        assert_eq!(pod.ticks(&id), frozen);
        pod.runtime.unpause(&id).await.unwrap();
        pod.await_ticks(&id, frozen + 1).await;
        assert!(matches!(pod.runtime.unpause(&id).await, Err(PauseError::NotPaused(_))));
        pod.runtime.pause(&id).await.unwrap();
        // A paused container can be deleted.
        pod.runtime.delete(&id).await.unwrap();
    });
}

#[test]
fn a_missing_command_is_named() {
    with_pod(|pod| async move {
        let refused = |spec: postern_model::ContainerSpec| {
            let pod = pod.clone();
            async move {
                let rootfs = pod.rootfs(spec.name.as_str());
                std::fs::write(rootfs.join("bin/noexec"), "x").unwrap();
                let oci = spec::build(&spec, &image(Config::default()), &pod.context(rootfs)).unwrap();
                let create =
                    CreateContainer { id: spec.name, spec: oci, init: Init::Command, stdio: Stdio::Closed };
                match pod.runtime.create(create).await {
                    Err(CreateError::Refused(failure)) => failure,
                    other => panic!("{other:?}"),
                }
            }
        };
        assert_eq!(refused(wish("a", &["no-such-program"])).await.kind, FailureKind::CommandNotFound);
        assert_eq!(refused(wish("c", &["noexec"])).await.kind, FailureKind::CommandNotExecutable);

        // What only execve can tell is told by start.
        pod.create(wish("b", &["/no/such/path"]), Stdio::Closed).await;
        match pod.runtime.start(&name("b")).await {
            Err(StartError::Refused(failure)) => assert_eq!(failure.kind, FailureKind::CommandNotFound),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn command_and_environment_come_from_image_and_owner() {
    with_pod(|pod| async move {
        let image = image(
            config()
                .entrypoint(vec!["sh".to_owned(), "-c".to_owned(), "echo $0 $*; env; pwd; id".to_owned()])
                .cmd(vec!["default".to_owned()])
                .env(vec!["A=image".to_owned(), "B=image".to_owned()])
                .working_dir("/made/here")
                .user("web")
                .build()
                .unwrap(),
        );
        let mut spec = wish("a", &["own"]);
        spec.env = [("B".to_owned(), "owner".to_owned())].into();
        spec.hostname = Some("named".into());
        let created = pod.create_from(spec, &image, Stdio::OutputOnly).await;
        pod.runtime.start(&name("a")).await.unwrap();
        let output = crate::support::collect(created).await;
        for line in [
            "own",
            "A=image",
            "B=owner",
            "HOME=/srv",
            "HOSTNAME=named",
            "/made/here",
            "uid=33(web) gid=44(web) groups=55(extra)",
        ] {
            let found = output.stdout.lines().any(|found| found.trim_end() == line);
            assert!(found || output.stdout.contains(line), "{line} in {output:?}");
        }
        assert!(!output.stdout.contains("default"));

        let mut root = wish("b", &[]);
        root.entrypoint = Some(vec!["id".into(), "-u".into()]);
        root.user = RunUser::Named("0".into());
        let created = pod.create_from(root, &image, Stdio::OutputOnly).await;
        pod.runtime.start(&name("b")).await.unwrap();
        assert_eq!(crate::support::collect(created).await.stdout, "0\n");
    });
}

#[test]
fn the_pause_container_needs_no_image() {
    with_pod(|pod| async move {
        let rootfs = pod.path("empty");
        std::fs::create_dir(&rootfs).unwrap();
        let oci = spec::pause(&pod.context(rootfs)).unwrap();
        let id = name("pause");
        let create = CreateContainer { id: id.clone(), spec: oci, init: Init::Pause, stdio: Stdio::Closed };
        let created = pod.runtime.create(create).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
        pod.runtime.start(&id).await.unwrap();
        let pid = created.process.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        for line in
            ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "Seccomp:\t2", "NoNewPrivs:\t1"]
        {
            assert!(status.contains(line), "{line} in {status}");
        }
        // Nothing of the worker is open in it but its streams.
        assert_eq!(std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(), 3);
        created.process.signal(Signal::TERMINATE).unwrap();
        assert_eq!(created.process.exit().wait().await, ExitStatus::Exited(0));
    });
}

#[test]
fn a_rehearsal_steps_back_never_runs_and_leaves_nothing() {
    with_pod(|pod| async move {
        let rootfs = pod.path("empty");
        std::fs::create_dir(&rootfs).unwrap();
        let oci = spec::pause(&pod.context(rootfs)).unwrap();
        let id = name("rehearsal");
        let create = || CreateContainer {
            id: id.clone(),
            spec: oci.clone(),
            init: Init::Rehearsal,
            stdio: Stdio::Closed,
        };
        for start in [false, true] {
            let created =
                pod.runtime.create(create()).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
            let pid = created.process.pid();
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            // The 19th field is the nice value (proc_pid_stat(5)); the second may hold blanks.
            let nice = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(16));
            assert_eq!(nice, Some("19"), "{stat}");
            if start {
                let refused = pod.runtime.start(&id).await.unwrap_err();
                assert!(chain(&refused).contains("not to be started"), "{}", chain(&refused));
            }
            pod.runtime.delete(&id).await.unwrap();
            assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
        }
    });
}
