//! The sandbox from first call to last.

use std::time::Duration;

use prost::Message as _;

use crate::{
    raw::{AGENT, code},
    rig::{Agent, audited, inspect, sandbox},
};

#[tokio::test]
async fn a_second_sandbox_is_refused_and_changes_nothing() -> anyhow::Result<()> {
    let (agent, mut host) = Agent::ready().await?;
    let mut other = sandbox();
    other.hostname = "evil".into();
    for _ in 0..2 {
        assert_eq!(code(&host.agent("CreateSandbox", &other).await?), 9);
    }
    let door = agent.door().await?;
    let pod = inspect(&door).await?;
    assert_eq!((pod.hostname.as_str(), pod.phase.as_str()), ("honest", "ready"));
    assert_eq!(audited(&door, "CreateSandbox", "allowed").await?, 1);
    assert_eq!(audited(&door, "CreateSandbox", "refused").await?, 2);
    Ok(())
}

#[tokio::test]
async fn two_at_once_make_one_sandbox() -> anyhow::Result<()> {
    let agent = Agent::start()?;
    let (mut one, mut two) = (agent.host().await?, agent.host().await?);
    let request = sandbox();
    let (first, second) = futures_util::future::join(
        one.agent("CreateSandbox", &request),
        two.agent("CreateSandbox", &request),
    )
    .await;
    let mut codes = [code(&first?), code(&second?)];
    codes.sort_unstable();
    assert_eq!(codes, [0, 9], "one is made, the other is told that there is one");
    Ok(())
}

#[tokio::test]
async fn destroying_the_sandbox_ends_the_agent_whatever_is_open() -> anyhow::Result<()> {
    let (mut agent, mut host, door) = Agent::owned().await?;
    host.send(AGENT, "GetOOMEvent", Vec::new(), 0).await?;
    let mut events =
        door.pod().events(postern_api::owner::EventsRequest { history: false }).await?.into_inner();
    let mut audit =
        door.pod().audit(postern_api::owner::AuditRequest { from: 0, follow: true }).await?.into_inner();
    audit.message().await?;
    agent.host().await?.call(AGENT, "DestroySandbox", Vec::new()).await??;
    let status = agent.ended()?;
    assert!(status.success(), "{status}: {}", agent.said());
    // Both streams end; what they say last does not matter.
    let end = async { while let Ok(Some(_)) = events.message().await {} };
    tokio::time::timeout(Duration::from_secs(10), end).await?;
    Ok(())
}

#[tokio::test]
async fn a_sandbox_that_was_never_made_can_be_destroyed() -> anyhow::Result<()> {
    let mut agent = Agent::start()?;
    let empty = postern_api::host::Empty {}.encode_to_vec();
    agent.host().await?.call(AGENT, "DestroySandbox", empty).await??;
    assert!(agent.ended()?.success());
    Ok(())
}
