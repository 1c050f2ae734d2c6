//! Many at once, and many after another.

use postern_container::Stdio;
use postern_model::ExitStatus;

use crate::support::{collect, name, process, script, with_pod};

#[test]
fn fifty_at_once() {
    with_pod(|pod| async move {
        let creations: Vec<_> = (0..50)
            .map(|number| {
                let pod = pod.clone();
                tokio::spawn(async move {
                    pod.run(script(&format!("c{number}"), &format!("exit {number}"))).await
                })
            })
            .collect();
        for (number, creation) in (0..).zip(creations) {
            assert_eq!(creation.await.unwrap().status, ExitStatus::Exited(number));
        }
        let id = pod.sleeper("e").await;
        let executions: Vec<_> = (0..50u8)
            .map(|number| {
                let (pod, id) = (pod.clone(), id.clone());
                let what = format!("echo {number}; exit {number}");
                tokio::spawn(async move { pod.exec(&id, &["sh", "-c", &what]).await })
            })
            .collect();
        for (number, execution) in (0..).zip(executions) {
            let output = execution.await.unwrap();
            assert_eq!((output.status, output.stdout), (ExitStatus::Exited(number), format!("{number}\n")));
        }
        let deletions: Vec<_> = (0..50)
            .map(|number| {
                let runtime = pod.runtime.clone();
                tokio::spawn(async move { runtime.delete(&name(&format!("c{number}"))).await })
            })
            .collect();
        for deletion in deletions {
            deletion.await.unwrap().unwrap();
        }
    });
}

#[test]
fn output_of_short_lived_processes_is_whole() {
    with_pod(|pod| async move {
        let id = pod.sleeper("a").await;
        for _ in 0..50 {
            let output = pod.exec(&id, &["seq", "1", "2000"]).await;
            assert_eq!(output.stdout.lines().count(), 2000);
        }
        let mut big = pod
            .runtime
            .exec(&id, process(&["head", "-c", "50000000", "/dev/zero"]), Stdio::OutputOnly)
            .await
            .unwrap();
        let mut stdout = big.io.stdout.take().unwrap();
        let count = tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await.unwrap();
        assert_eq!(count, 50_000_000);
        assert!(collect(big).await.status.success());
    });
}
