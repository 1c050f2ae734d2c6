//! Two hundred processes and twenty containers later, as many descriptors are open as before. Alone in its program, so
//! that the count is its own.

// A test stops at the first surprise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "container/support.rs"]
#[allow(dead_code)]
mod support;

use postern_container::{Stdio, WindowSize};
use support::{collect, name, process, script, with_pod};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn nothing_is_left_open() {
    with_pod(|pod| async move {
        let id = pod.sleeper("a").await;
        assert!(pod.exec(&id, &["true"]).await.status.success());
        let before = descriptors();
        for round in 0..200 {
            let stdio = match round % 3 {
                0 => Stdio::Pipes,
                1 => Stdio::Terminal(WindowSize::default()),
                _ => Stdio::OutputOnly,
            };
            let created = pod.runtime.exec(&id, process(&["echo", "x"]), stdio).await.unwrap();
            assert!(collect(created).await.status.success());
        }
        for round in 0..20 {
            let output = pod.run(script(&format!("c{round}"), "true")).await;
            assert!(output.status.success());
            pod.runtime.delete(&name(&format!("c{round}"))).await.unwrap();
        }
        assert!(pod.runtime.exec(&id, process(&["no-such"]), Stdio::Pipes).await.is_err());
        assert_eq!(descriptors(), before);
        assert_eq!(std::fs::read_dir(pod.path("state/bundles")).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(pod.path("state/run")).unwrap().count(), 1);
    });
}
