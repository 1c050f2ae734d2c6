//! Containers in a single (v2) hierarchy, as in the guest, whatever this machine has: the runtime of this program works
//! in a mount name space of its own, in which cgroup v2 is mounted. Controllers that v1 hierarchies hold are missing
//! there, so limits are not tested here.

// A test stops at the first surprise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "container/support.rs"]
#[allow(dead_code)]
mod support;

use postern_container::{ExecError, Signal, Stdio, Target};
use postern_model::ExitStatus;
use support::{process, script, with_unified_pod};

#[test]
fn processes_are_born_in_the_control_group() {
    with_unified_pod(|pod| async move {
        let output = pod.run(script("a", "exit 7")).await;
        assert_eq!(output.status, ExitStatus::Exited(7));
        let id = pod.sleeper("b").await;
        let held = pod.runtime.exec(&id, process(&["sleep", "1000"]), Stdio::Closed).await.unwrap();
        let line = std::fs::read_to_string(format!("/proc/{}/cgroup", held.process.pid())).unwrap();
        assert!(line.lines().any(|line| line == format!("0::/{}/b", pod.cgroup)), "{line}");
        // The container sees it as its root, read-only.
        let seen = pod
            .exec(&id, &["sh", "-c", "grep ^0: /proc/self/cgroup; touch /sys/fs/cgroup/x || echo refused"])
            .await;
        assert_eq!(seen.stdout, "0::/\nrefused\n", "{seen:?}");
        assert_eq!(pod.runtime.top(&id).await.unwrap().len(), 2);
        pod.runtime.signal(&id, Signal::INTERRUPT, Target::All).unwrap();
        assert_eq!(held.process.exit().wait().await, ExitStatus::Signalled(2));
        pod.runtime.stats(&id).await.unwrap();
    });
}

#[test]
fn devices_are_filtered() {
    with_unified_pod(|pod| async move {
        let check = "mknod /tmp/disk b 254 0; mknod /tmp/kvm c 10 232; mknod /tmp/null c 1 3 && echo x >/tmp/null && echo fine";
        let init = pod.run(script("a", check)).await;
        let id = pod.sleeper("b").await;
        let exec = pod.exec(&id, &["sh", "-c", check]).await;
        for output in [init, exec] {
            assert_eq!(output.stdout, "fine\n", "{output:?}");
            assert_eq!(output.stderr.matches("not permitted").count(), 2, "{output:?}");
        }
        // A node made by somebody else cannot be opened either.
        let node = pod.path("rootfs-b/tmp/mem");
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, &node, kind, mode, rustix::fs::makedev(1, 11)).unwrap();
        let output = pod.exec(&id, &["cat", "/tmp/mem"]).await;
        assert!(output.stderr.contains("not permitted"), "{output:?}");
    });
}

#[test]
fn pause_freezes() {
    with_unified_pod(|pod| async move {
        let (id, other) = (pod.ticker("a").await, pod.ticker("b").await);
        pod.runtime.pause(&id).await.unwrap();
        assert!(matches!(
            pod.runtime.exec(&id, process(&["true"]), Stdio::Closed).await,
            Err(ExecError::Paused(_))
        ));
        let frozen = pod.ticks(&id);
        pod.await_ticks(&other, pod.ticks(&other) + 10).await;
        assert_eq!(pod.ticks(&id), frozen);
        pod.runtime.unpause(&id).await.unwrap();
        pod.await_ticks(&id, frozen + 1).await;
        pod.runtime.pause(&id).await.unwrap();
        pod.runtime.delete(&id).await.unwrap();
    });
}

#[test]
fn copies_work() {
    with_unified_pod(|pod| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let id = pod.sleeper("a").await;
        let out = pod.runtime.copy_out(&id, "/etc".as_ref(), Default::default()).await.unwrap();
        let mut out = out;
        let mut archive = Vec::new();
        out.reader.read_to_end(&mut archive).await.unwrap();
        out.finish().await.unwrap();
        let mut copy = pod.runtime.copy_in(&id, "/tmp".as_ref(), Default::default()).await.unwrap();
        copy.writer.as_mut().unwrap().write_all(&archive).await.unwrap();
        copy.finish().await.unwrap();
        assert!(pod.path("rootfs-a/tmp/etc/passwd").exists());
    });
}
