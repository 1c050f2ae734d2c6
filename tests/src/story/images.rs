//! Images: one pushed through the tunnel, one pulled by the guest from a registry.

use super::{CANARY, POD, Stage, contains};
use crate::{archive::ImageRecipe, registry::Registry};

pub(super) fn push_and_run(stage: &mut Stage) -> anyhow::Result<String> {
    ImageRecipe::busybox("busybox:latest").write_oci_archive(&stage.archive)?;
    let archive = stage.archive.display().to_string();
    stage.ok(&["image", "push", POD, &archive])?;
    let script = "trap 'exit 0' TERM; echo up; while :; do sleep 1 & wait $!; done";
    stage.ok(&[
        "run",
        POD,
        "busybox:latest",
        "-d",
        "--name",
        "web",
        "-e",
        &format!("SECRET={CANARY}"),
        "--",
        "sh",
        "-c",
        script,
    ])?;
    let ran = stage.ok(&["run", POD, "busybox:latest", "--rm", "--", "echo", "hello from the pod"])?;
    anyhow::ensure!(ran.stdout == b"hello from the pod\n", "run printed {:?}", ran.text());
    let size = std::fs::metadata(&stage.archive)?.len() as f64 / 1e6;
    Ok(format!("busybox:latest, {size:.1} MB through the tunnel"))
}

pub(super) fn pull_and_run(stage: &mut Stage) -> anyhow::Result<String> {
    let registry = Registry::start()?;
    let mut recipe = ImageRecipe::busybox("pulled:1");
    recipe.files.push(("etc/motd".into(), b"pulled inside the guest\n".to_vec(), 0o644));
    registry.push(&recipe, "pulled:1")?;
    // 10.0.2.2 is this machine's loopback as QEMU's user network shows it to the guest.
    let reference = format!("10.0.2.2:{}/pulled:1", registry.port());
    stage.registry = Some(registry);
    stage.ok(&["image", "pull", POD, &reference, "--plain-http"])?;
    let ran = stage.ok(&["run", POD, &reference, "--rm", "--", "cat", "/etc/motd"])?;
    anyhow::ensure!(ran.stdout == b"pulled inside the guest\n", "run printed {:?}", ran.text());
    contains("image ls", &stage.ok(&["image", "ls", POD])?.text(), "pulled")?;
    Ok(format!("{reference}, digests checked while streaming"))
}
