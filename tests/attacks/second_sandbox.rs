//! The host sets the sandbox up a second time, over a workload that runs.

use crate::{
    raw::code,
    rig::{audited, inspect, sandbox},
    workload::running,
};

#[tokio::test]
async fn a_second_sandbox_leaves_the_first_as_it_is() -> anyhow::Result<()> {
    let (agent, mut host, door) = running("echo treasure > /tmp/kept; sleep 1000").await?;
    let mut other = sandbox();
    other.sandbox_id = "6".repeat(64);
    other.hostname = "evil".into();
    other.dns = vec!["6.6.6.6".into()];
    for request in [sandbox(), other] {
        assert_eq!(code(&host.agent("CreateSandbox", &request).await?), 9);
        assert_eq!(code(&agent.host().await?.agent("CreateSandbox", &request).await?), 9);
    }
    let (kept, exit) = door.exec("web", &["cat", "/tmp/kept"]).await?;
    assert_eq!((kept.as_slice(), exit.code), (&b"treasure\n"[..], 0));
    let (servers, _) = door.exec("web", &["cat", "/etc/resolv.conf"]).await?;
    let servers = String::from_utf8_lossy(&servers);
    assert!(servers.contains("10.0.2.3") && !servers.contains("6.6.6.6"), "{servers}");
    assert_eq!(inspect(&door).await?.hostname, "honest");
    assert_eq!(audited(&door, "CreateSandbox", "refused").await?, 4);
    Ok(())
}
