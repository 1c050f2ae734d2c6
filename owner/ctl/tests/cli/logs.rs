//! `logs`: apart, bounded, followed, safe.

use std::process::Stdio;

use postern_tests::process::{Guarded, Lines};

use crate::rig::{Pod, SOON};

#[test]
fn both_streams_the_last_lines_and_the_times() -> anyhow::Result<()> {
    let pod = Pod::with_image()?;
    pod.ok(&["run", "--name", "talk", "demo", "busybox", "sh", "-c", "echo 1; echo 2; echo 3; echo e >&2"]);
    let said = pod.ok(&["logs", "demo/talk"]);
    assert_eq!((said.text().as_str(), said.stderr.as_str()), ("1\n2\n3\n", "e\n"));
    // Two pipes have no common order; one line of both is the last.
    let last = pod.ok(&["logs", "--tail", "1", "demo/talk"]);
    assert_eq!((last.text() + &last.stderr).lines().count(), 1);
    let stamped = pod.ok(&["logs", "-t", "demo/talk"]).text();
    assert!(stamped.lines().all(|line| line.starts_with("20") && line.contains("Z ")), "{stamped}");
    assert_eq!(pod.ok(&["logs", "--since", "2099-01-01T00:00:00Z", "demo/talk"]).text(), "");
    let json = pod.ok(&["logs", "--output", "json", "demo/talk"]).text();
    for line in json.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line)?["stream"].is_string());
    }
    pod.fails_with(6, &["logs", "demo/none"]);
    pod.fails_with(2, &["logs", "--since", "yesterday", "demo/talk"]);
    Ok(())
}

#[test]
fn following_ends_with_the_container() -> anyhow::Result<()> {
    let pod = Pod::with_image()?;
    let script = "echo one; read go; echo two; echo three >&2";
    pod.ok(&["run", "-d", "-i", "--name", "talk", "demo", "busybox", "sh", "-c", script]);
    let mut command = pod.command(&["logs", "-f", "demo/talk"]);
    let mut follower = Guarded::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let out = Lines::of(follower.child().stdout.take().expect("piped"));
    let err = Lines::of(follower.child().stderr.take().expect("piped"));
    out.find(SOON, |line| (line == "one").then_some(()))?;
    let attached = pod.postern_with_input(&["attach", "demo/talk"], b"go\n");
    assert_eq!(attached.code, 0, "{}", attached.stderr);
    out.find(SOON, |line| (line == "two").then_some(()))?;
    err.find(SOON, |line| (line == "three").then_some(()))?;
    assert!(follower.wait(SOON)?.success());
    Ok(())
}
