//! Devices that the host would hand to a container: the attestation device, memory, disks.

use crate::{
    host_specification::hostile,
    kata::{NAME, WEB, start},
    workload::{declared, exit, printed},
};

/// Lists what is below /dev, and tries to make and open a disk.
const SCRIPT: &str = "
    cd /dev && for file in *; do [ -c $file ] && echo $file; [ -b $file ] && echo block $file; done
    mknod /tmp/mem c 1 1 2>/dev/null; cat /tmp/mem >/dev/null 2>&1 && echo memory opened
    mknod /tmp/disk b 259 1 2>/dev/null; cat /tmp/disk >/dev/null 2>&1 && echo disk opened
    true";

#[tokio::test]
async fn the_container_has_the_usual_devices_and_no_other() -> anyhow::Result<()> {
    let (_agent, mut host, door) = declared(SCRIPT, true).await?;
    host.agent("CreateContainer", &hostile(WEB, &[(NAME, "web")], "/nowhere")).await??;
    host.agent("StartContainer", &start(WEB)).await??;
    assert_eq!(exit(&door, "web").await?.code, 0);
    let printed = printed(&door, "web").await?;
    assert!(printed.lines().any(|line| line == "null"), "{printed}");
    let usual = ["full", "null", "random", "tty", "urandom", "zero", "ptmx", "console"];
    for line in printed.lines() {
        assert!(usual.contains(&line), "{line}: {printed}");
    }
    Ok(())
}
