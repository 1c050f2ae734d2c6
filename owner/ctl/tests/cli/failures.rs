//! What goes wrong is told once, precisely, with its code, and leaves nothing half done.

use std::{fs, process::Stdio};

use postern_tests::process::{Guarded, Lines};

use crate::rig::{Pod, SOON, Wire};

#[test]
fn a_tunnel_cut_in_the_middle_of_exec() -> anyhow::Result<()> {
    let pod = Pod::with_container()?;
    let wire = Wire::to(&pod)?;
    pod.add("wired", &format!("tcp://{}", wire.address));
    let mut command = pod.command(&["exec", "wired/web", "sh", "-c", "echo ready; sleep 1000"]);
    let mut process = Guarded::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let out = Lines::of(process.child().stdout.take().expect("piped"));
    let err = Lines::of(process.child().stderr.take().expect("piped"));
    out.find(SOON, |line| (line == "ready").then_some(()))?;
    wire.cut();
    err.find(SOON, |line| line.contains("the tunnel to pod wired was cut").then_some(()))?;
    assert_eq!(process.wait(SOON)?.code(), Some(125));
    pod.ok(&["exec", "wired/web", "true"]);
    Ok(())
}

#[test]
fn a_tunnel_cut_in_the_middle_of_cp_leaves_no_half_file() -> anyhow::Result<()> {
    let pod = Pod::with_container()?;
    let wire = Wire::to(&pod)?;
    pod.add("wired", &format!("tcp://{}", wire.address));
    fs::write(pod.path("target"), "old")?;
    pod.ok(&["exec", "demo/web", "sh", "-c", "dd if=/dev/zero of=/tmp/big bs=1M count=200 2>/dev/null"]);
    let mut copy =
        Guarded::spawn(pod.command(&["cp", "wired/web:/tmp/big", "target"]).stderr(Stdio::piped()))?;
    let err = Lines::of(copy.child().stderr.take().expect("piped"));
    // It has begun when its temporary file is there.
    let end = std::time::Instant::now() + SOON;
    while !temporary(&pod)? {
        assert!(std::time::Instant::now() < end, "the copy never began");
        std::thread::yield_now();
    }
    wire.cut();
    err.find(SOON, |line| line.contains("the tunnel to pod wired was cut").then_some(()))?;
    assert_eq!(copy.wait(SOON)?.code(), Some(4));
    assert_eq!(fs::read_to_string(pod.path("target"))?, "old");
    assert!(!temporary(&pod)?, "a temporary file is left");
    Ok(())
}

fn temporary(pod: &Pod) -> anyhow::Result<bool> {
    let names = fs::read_dir(pod.path(""))?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.into_iter().any(|name| name.starts_with(".postern-")))
}

#[test]
fn an_interrupted_copy_leaves_no_half_file() -> anyhow::Result<()> {
    let pod = Pod::with_container()?;
    pod.ok(&["exec", "demo/web", "sh", "-c", "dd if=/dev/zero of=/tmp/big bs=1M count=200 2>/dev/null"]);
    let mut copy = Guarded::spawn(pod.command(&["cp", "demo/web:/tmp/big", "target"]).stderr(Stdio::null()))?;
    let end = std::time::Instant::now() + SOON;
    while !temporary(&pod)? {
        assert!(std::time::Instant::now() < end, "the copy never began");
        std::thread::yield_now();
    }
    copy.signal(rustix::process::Signal::INT)?;
    assert_eq!(copy.wait(SOON)?.code(), Some(130));
    assert!(!pod.path("target").exists() && !temporary(&pod)?);
    Ok(())
}

#[test]
fn a_pod_that_is_gone_is_unreachable() -> anyhow::Result<()> {
    let mut pod = Pod::start()?;
    pod.ok(&["ps", "demo"]);
    pod.kill()?;
    let said = pod.fails_with(4, &["ps", "demo"]);
    assert!(said.stderr.contains("cannot reach pod demo at tcp://"), "{}", said.stderr);
    pod.fails_with(4, &["pod", "verify", "demo"]);
    pod.fails_with(125, &["exec", "demo/web", "true"]);
    assert!(pod.ok(&["pod", "ls"]).text().contains("unreachable"));
    pod.ok(&["pod", "rm", "demo"]);
    pod.fails_with(6, &["ps", "demo"]);
    Ok(())
}

#[test]
fn mistakes_are_told_with_what_to_do() -> anyhow::Result<()> {
    let pod = Pod::start()?;
    for (code, args) in [
        (6, &["ps", "nowhere"][..]),
        (125, &["exec", "nowhere/web", "true"]),
        (2, &["ps", "Not-A-Name"]),
        (2, &["ps"]),
        (2, &["no-such-verb"]),
        (2, &["run", "demo", "busybox", "--no-such-flag"]),
        (2, &["pod", "add", "x", "--endpoint", "http://x", "--init-data", "y"]),
        (6, &["pod", "add", "x", "--endpoint", "tcp://127.0.0.1:1", "--init-data", "no-such-file"]),
        (1, &["pod", "add", "demo", "--endpoint", "tcp://127.0.0.1:1", "--init-data", "/proc/self/status"]),
    ] {
        let said = pod.fails_with(code, args);
        assert!(!said.stderr.is_empty() && said.stdout.is_empty(), "{args:?}");
    }
    fs::write(pod.path("config/postern/config.toml"), "\n[pod]\nmemory = 7\n")?;
    let said = pod.fails_with(1, &["ps", "demo"]);
    assert!(said.stderr.contains("config.toml:3:10"), "{}", said.stderr);
    Ok(())
}

#[test]
fn completion_scripts_are_scripts() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = crate::rig::Owner::new(dir.path().to_owned())?;
    assert_eq!(owner.shell("postern completion bash | bash -n").code, 0);
    for shell in ["zsh", "fish"] {
        assert!(owner.ok(&["completion", shell]).text().contains("port-forward"));
    }
    owner.fails_with(2, &["completion", "tcsh"]);
    Ok(())
}
