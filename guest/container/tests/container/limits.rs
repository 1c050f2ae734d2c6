//! Memory, processes, CPU: enforced, counted and told.

use postern_container::{ExecError, FailureKind, Stdio};
use postern_model::{ExitStatus, Resources};

use crate::support::{name, process, script, wish, with_pod};

const MIB: u64 = 1024 * 1024;

#[test]
fn memory_runs_out_and_is_told() {
    with_pod(|pod| async move {
        let mut spec = script("a", "sleep 0; x=$(yes | head -c 200000000); echo survived");
        spec.resources = Resources { memory: Some(32 * MIB), ..Resources::default() };
        let output = pod.run(spec).await;
        assert!(!output.stdout.contains("survived"), "{output:?}");
        assert_eq!(output.status, ExitStatus::Signalled(9));
        let stats = pod.runtime.stats(&name("a")).await.unwrap();
        assert!(stats.oom_kills > 0, "{stats:?}");
        assert_eq!(stats.memory_limit, Some(32 * MIB));

        let honest = pod.run(script("b", "x=$(yes | head -c 2000000); echo survived")).await;
        assert_eq!(honest.stdout, "survived\n");
        assert_eq!(pod.runtime.stats(&name("b")).await.unwrap().oom_kills, 0);
    });
}

#[test]
fn processes_run_out_and_are_told() {
    with_pod(|pod| async move {
        let mut spec = wish("a", &["sleep", "1000"]);
        spec.resources = Resources { pids: Some(8), ..Resources::default() };
        let id = pod.sleeper_of(spec).await;
        let bomb = pod
            .exec(&id, &["sh", "-c", "for i in $(seq 20); do sleep 1000 >/dev/null 2>&1 & done; echo end"])
            .await;
        assert!(!bomb.status.success() || bomb.stderr.contains("fork"), "{bomb:?}");
        let mut held = Vec::new();
        let failure = loop {
            match pod.runtime.exec(&id, process(&["sleep", "1000"]), Stdio::Closed).await {
                Ok(created) => held.push(created),
                Err(ExecError::Refused(failure)) => break failure,
                Err(other) => panic!("{other:?}"),
            }
            assert!(held.len() < 9);
        };
        assert_eq!(failure.kind, FailureKind::Limit);
        let stats = pod.runtime.stats(&id).await.unwrap();
        // In a v1 hierarchy the worker counts too, while it works.
        assert!(matches!((stats.pids, stats.pids_limit), (7 | 8, Some(8))), "{stats:?}");
    });
}

#[test]
fn cpu_is_limited_and_counted() {
    with_pod(|pod| async move {
        let mut spec = wish("a", &["sleep", "1000"]);
        spec.resources = Resources { cpu_millis: Some(250), ..Resources::default() };
        let id = pod.sleeper_of(spec).await;
        let before = pod.runtime.stats(&id).await.unwrap().cpu_usage_nanos;
        pod.script(&id, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done").await;
        assert!(pod.runtime.stats(&id).await.unwrap().cpu_usage_nanos > before);
        let directory = crate::support::cgroups_named(&pod.cgroup)
            .into_iter()
            .map(|parent| parent.join("a"))
            .find(|path| path.join("cpu.cfs_quota_us").exists() || path.join("cpu.max").exists())
            .unwrap();
        let read =
            |file: &str| std::fs::read_to_string(directory.join(file)).map(|text| text.trim().to_owned());
        let quota =
            read("cpu.max").or_else(|_| read("cpu.cfs_quota_us").map(|quota| quota + " 100000")).unwrap();
        assert_eq!(quota, "25000 100000");
    });
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    with_pod(|pod| async move {
        let rootfs = pod.rootfs("a");
        let build = |resources| {
            let spec = postern_model::ContainerSpec { resources, ..wish("a", &["true"]) };
            let image = crate::support::image(Default::default());
            postern_container::spec::build(&spec, &image, &pod.context(rootfs.clone()))
        };
        for resources in [
            Resources { memory: Some(0), ..Resources::default() },
            Resources { memory: Some(MIB), ..Resources::default() },
            Resources { memory: Some(u64::MAX), ..Resources::default() },
            Resources { cpu_millis: Some(0), ..Resources::default() },
            Resources { cpu_millis: Some(u64::MAX), ..Resources::default() },
            Resources { pids: Some(0), ..Resources::default() },
        ] {
            assert!(build(resources).is_err(), "{resources:?}");
        }
        assert!(build(Resources { memory: Some(8 * MIB), cpu_millis: Some(10), pids: Some(1) }).is_ok());
    });
}

#[test]
fn top_shows_the_containers_processes() {
    with_pod(|pod| async move {
        let id = pod.sleeper("a").await;
        let mut spec = wish("b", &["sleep", "2000"]);
        spec.user = postern_model::RunUser::Named("web".into());
        pod.sleeper_of(spec).await;
        let shell =
            pod.runtime.exec(&id, process(&["sh", "-c", "sleep 999; true"]), Stdio::Closed).await.unwrap();
        let children = format!("/proc/{0}/task/{0}/children", shell.process.pid());
        crate::support::eventually("a child of the shell", || {
            let child = std::fs::read_to_string(&children).ok()?;
            let line = std::fs::read_to_string(format!("/proc/{}/cmdline", child.trim())).ok()?;
            line.starts_with("sleep").then_some(())
        })
        .await;
        let top = pod.runtime.top(&id).await.unwrap();
        let lines: Vec<(u32, String)> =
            top.iter().map(|line| (line.parent_pid, line.command.join(" "))).collect();
        assert_eq!(top[0].pid, 1);
        let shell = top.iter().find(|line| line.command[0] == "sh").unwrap();
        assert_eq!(shell.parent_pid, 0);
        assert!(
            lines.contains(&(0, "sleep 1000".into())) && lines.contains(&(shell.pid, "sleep 999".into())),
            "{lines:?}"
        );
        assert!(top.iter().all(|line| line.resident_bytes > 0 && line.uid == 0));
        assert_eq!(pod.runtime.top(&name("b")).await.unwrap()[0].uid, 33);
    });
}
