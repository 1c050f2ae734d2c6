//! Workers that die or are too slow: one clean error, nothing left behind, the next operation works.

use std::fs;

use oci_spec::image::Config;
use postern_container::{CreateContainer, CreateError, Init, Stdio, spec};

use crate::support::{Pod, cgroups_named, eventually, image, name, process, wish, with_pod};

/// Process ids of children of this program whose command line starts with `postern-worker`.
fn workers(cgroup: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        if read("cgroup").contains(cgroup) && read("cmdline").starts_with("postern-worker") {
            found.push(pid);
        }
    }
    found
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

async fn create(pod: &Pod, id: &str) -> Result<(), CreateError> {
    let oci = spec::build(
        &wish(id, &["sleep", "1000"]),
        &image(Config::default()),
        &pod.context(pod.path("rootfs-a")),
    );
    let create =
        CreateContainer { id: name(id), spec: oci.unwrap(), init: Init::Command, stdio: Stdio::Closed };
    pod.runtime.create(create).await.map(drop)
}

#[test]
fn a_creation_killed_midway_leaves_nothing() {
    with_pod(|pod| async move {
        pod.rootfs("a");
        let mut failed = 0;
        for round in 0..40 {
            let id = format!("c{round}");
            let creation = tokio::spawn({
                let (pod, id) = (pod.clone(), id.clone());
                async move { create(&pod, &id).await }
            });
            // Everything that has got as far as the container's control group; each round a little later.
            let cgroup = format!("{}/{id}", pod.cgroup);
            let victims = eventually("a worker", || {
                let workers = workers(&cgroup);
                (!workers.is_empty() || creation.is_finished()).then_some(workers)
            })
            .await;
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            for pid in victims {
                kill(pid);
            }
            match creation.await.unwrap() {
                Ok(()) => pod.runtime.delete(&name(&id)).await.unwrap(),
                Err(_) => failed += 1,
            }
            for parent in cgroups_named(&pod.cgroup) {
                assert!(!parent.join(&id).exists(), "{} is left", parent.join(&id).display());
            }
            assert!(!pod.path("state/bundles").join(&id).exists());
            assert!(!pod.path("state/run").join(&id).exists());
        }
        assert!(failed > 0, "no creation was hit");
        create(&pod, "honest").await.unwrap();
    });
}

#[test]
fn a_killed_zygote_is_replaced() {
    with_pod(|pod| async move {
        let id = pod.sleeper("a").await;
        for _ in 0..3 {
            let own = std::process::id().to_string();
            for entry in fs::read_dir("/proc").unwrap().flatten() {
                let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                    continue;
                };
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                let parent =
                    stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1).map(str::to_owned));
                let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                // Other tests have zygotes too, and must not mind either.
                if parent.as_deref() == Some(&own) && line.starts_with("postern-worker\0") {
                    let in_container = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
                    if !in_container.contains("postern-test") {
                        kill(pid);
                    }
                }
            }
            assert!(pod.exec(&id, &["true"]).await.status.success());
        }
    });
}

#[test]
fn a_process_nobody_waits_for_is_ended() {
    with_pod(|pod| async move {
        let id = pod.sleeper("a").await;
        for round in 0..20 {
            let execution = tokio::spawn({
                let (pod, id) = (pod.clone(), id.clone());
                async move {
                    // One that comes through in time is the caller's to end.
                    let created =
                        pod.runtime.exec(&id, process(&["sleep", "1000"]), Stdio::Closed).await.unwrap();
                    created.process.signal(postern_container::Signal::KILL).unwrap();
                }
            });
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            execution.abort();
            let _ = execution.await;
        }
        // Only init is left, once those that were on their way have ended.
        for _ in 0..1000 {
            if pod.runtime.top(&id).await.unwrap().len() == 1 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        panic!("{:?}", pod.runtime.top(&id).await.unwrap());
    });
}

#[test]
fn shutting_down_waits_for_what_is_being_made() {
    with_pod(|pod| async move {
        pod.rootfs("a");
        let creations: Vec<_> = (0..10)
            .map(|number| {
                let pod = pod.clone();
                tokio::spawn(async move { create(&pod, &format!("c{number}")).await })
            })
            .collect();
        tokio::task::yield_now().await;
        pod.runtime.shut_down().await;
        for creation in creations {
            assert!(matches!(creation.await.unwrap(), Ok(()) | Err(CreateError::ShuttingDown)));
        }
        assert_eq!(cgroups_named(&pod.cgroup), Vec::<std::path::PathBuf>::new());
        assert!(!pod.path("state").exists());
        assert!(matches!(create(&pod, "late").await, Err(CreateError::ShuttingDown)));
    });
}

#[test]
fn a_caller_that_goes_away_leaves_nothing_behind() {
    with_pod(|pod| async move {
        pod.rootfs("a");
        for round in 0..10 {
            let creation = tokio::spawn({
                let pod = pod.clone();
                async move { create(&pod, "a").await }
            });
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            creation.abort();
            let _ = creation.await;
            // What was begun is carried through; then it can be deleted like any other.
            while let Err(error) = pod.runtime.delete(&name("a")).await {
                if cgroups_named(&pod.cgroup).iter().all(|parent| !parent.join("a").exists())
                    && !pod.path("state/bundles/a").exists()
                {
                    break;
                }
                assert!(matches!(error, postern_container::DeleteError::UnknownContainer(_)), "{error:?}");
                tokio::task::yield_now().await;
            }
        }
    });
}
