//! `run`: from an image to an exit code.

use crate::rig::{Pod, text};

#[test]
fn in_the_foreground_it_is_the_container() -> anyhow::Result<()> {
    let pod = Pod::with_image()?;
    let said =
        pod.fails_with(3, &["run", "--rm", "demo", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(said.text(), "out\n");
    assert!(said.stderr.ends_with("err\n"), "{}", said.stderr);
    // Options may also stand between the image and the command.
    let said = pod.ok(&["run", "demo", "busybox", "--rm", "-e", "A=1", "--", "sh", "-c", "echo $A"]);
    assert_eq!(said.text(), "1\n");
    let said = pod.postern_with_input(&["run", "-i", "--rm", "demo", "busybox", "cat"], b"through");
    assert_eq!(said.text(), "through");
    assert_eq!(pod.ok(&["ps", "-a", "-q", "demo"]).text(), "", "--rm leaves nothing");
    pod.fails_with(127, &["run", "--rm", "demo", "busybox", "no-such-command"]);
    pod.fails_with(126, &["run", "--rm", "demo", "busybox", "/etc/passwd"]);
    assert_eq!(pod.ok(&["ps", "-a", "-q", "demo"]).text(), "", "what never started is removed too");
    Ok(())
}

#[test]
fn options_reach_the_container() -> anyhow::Result<()> {
    let pod = Pod::with_image()?;
    let env_file = pod.path("env");
    std::fs::write(&env_file, "FROM_FILE=1\n")?;
    let script = "echo $FROM_FILE-$SET-$(hostname)-$(id -u):$(id -g)-$PWD; touch /x 2>/dev/null || echo ro; \
                  touch /tmp/x && echo tmp; echo kept > /data/x; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max";
    let args = [
        "run",
        "--rm",
        "--name",
        "all",
        "-e",
        "SET=2",
        "--env-file",
        text(&env_file),
        "--hostname",
        "inside",
        "-u",
        "1000:1000",
        "-w",
        "/var",
        "--read-only",
        "--tmpfs",
        "/tmp:size=1M",
        "-v",
        "data:/data",
        "--memory",
        "32M",
        "--cpus",
        "0.5",
        "--pids-limit",
        "20",
        "--cap-drop",
        "ALL",
        "-l",
        "k=v",
        "demo",
        "busybox",
        "sh",
        "-c",
        script,
    ];
    let said = pod.postern(&args);
    assert!(
        said.text().starts_with("1-2-inside-1000:1000-/var\nro\ntmp\n"),
        "{} {}",
        said.text(),
        said.stderr
    );
    let entry = pod.ok(&["run", "--rm", "--entrypoint", "echo", "demo", "busybox", "from", "entrypoint"]);
    assert_eq!(entry.text(), "from entrypoint\n");
    let refused = pod.fails_with(2, &["run", "-v", "/etc:/etc", "demo", "busybox"]);
    assert!(refused.stderr.contains("postern cp"), "{}", refused.stderr);
    Ok(())
}

#[test]
fn a_local_image_is_pushed_first() -> anyhow::Result<()> {
    let pod = Pod::start()?;
    let archive = pod.archive()?;
    let said =
        pod.ok(&["run", "--rm", "demo", &format!("oci-archive:{}", archive.display()), "echo", "pushed"]);
    assert_eq!(said.text(), "pushed\n");
    assert!(said.stderr.contains("yours now"), "the handover is said: {}", said.stderr);
    let layout = pod.path("layout");
    std::fs::create_dir_all(&layout)?;
    tar::Archive::new(std::fs::File::open(&archive)?).unpack(&layout)?;
    let source = format!("oci:{}", layout.display());
    assert_eq!(pod.ok(&["run", "--rm", "demo", &source, "echo", "again"]).text(), "again\n");
    pod.ok(&["image", "verify", "demo", "busybox", "--source", &source]);
    pod.ok(&["image", "verify", "demo", "busybox", "--source", text(&archive)]);
    let other = format!("sha256:{}", "0".repeat(64));
    pod.fails_with(3, &["image", "verify", "demo", "busybox", "--digest", &other]);
    pod.ok(&["image", "rm", "demo", "busybox"]);
    pod.fails_with(125, &["run", "--pull", "never", "demo", "busybox"]);
    pod.fails_with(2, &["run", "demo", "NOT-A-REFERENCE"]);
    let missing = pod.fails_with(125, &["run", "demo", "oci-archive:/no/such.tar"]);
    assert!(missing.stderr.contains("does not exist"), "{}", missing.stderr);
    Ok(())
}

#[test]
fn a_broken_archive_is_refused_and_changes_nothing() -> anyhow::Result<()> {
    let pod = Pod::start()?;
    let archive = pod.archive()?;
    let whole = std::fs::read(&archive)?;
    let broken = pod.path("broken.tar");
    for bytes in [&whole[..whole.len() / 2], b"not an archive at all", &[]] {
        std::fs::write(&broken, bytes)?;
        let said = pod.fails_with(1, &["image", "push", "demo", text(&broken)]);
        assert!(said.stderr.contains("cannot push the image"), "{}", said.stderr);
    }
    assert_eq!(pod.ok(&["image", "ls", "demo", "--output", "json"]).json()?, serde_json::json!([]));
    Ok(())
}

#[test]
fn a_docker_archive_comes_in_by_a_pipe_compressed_or_not() -> anyhow::Result<()> {
    use std::io::Write;

    let pod = Pod::start()?;
    let path = pod.path("docker.tar");
    postern_tests::archive::ImageRecipe::busybox("dock:1").write_docker_archive(&path)?;
    let plain = std::fs::read(&path)?;
    let said = pod.postern_with_input(&["image", "push", "demo", "-"], &plain);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.text().contains("dock:1@sha256:"), "{}", said.text());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain)?;
    let said = pod.postern_with_input(&["image", "push", "demo", "-", "other.name/dock:2"], &gzip.finish()?);
    assert_eq!(said.code, 0, "{}", said.stderr);
    pod.ok(&["image", "verify", "demo", "dock:1", "--source", &format!("docker-archive:{}", path.display())]);
    assert_eq!(pod.ok(&["run", "--rm", "demo", "other.name/dock:2", "echo", "up"]).text(), "up\n");
    pod.fails_with(2, &["run", "demo", "-"]);
    Ok(())
}
