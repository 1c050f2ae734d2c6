//! The host takes the pod back while owners stream: the agent must end, and keep nothing open for them.

use postern_api::owner::{AuditRequest, EventsRequest, LogsRequest};

use crate::{
    raw::AGENT,
    workload::{running, until_printed},
};

#[tokio::test]
async fn the_agent_ends_whatever_the_owner_has_open() -> anyhow::Result<()> {
    let (mut agent, mut host, door) = running("trap '' TERM; echo up; sleep 1000").await?;
    until_printed(&door, "web", "up").await?;
    let follow = LogsRequest { container: "web".into(), follow: true, ..Default::default() };
    let mut logs = door.containers().logs(follow).await?.into_inner();
    let _events = door.pod().events(EventsRequest { history: true }).await?;
    let _audit = door.pod().audit(AuditRequest { from: 0, follow: true }).await?;
    let waiting = tokio::spawn({
        let door = door.clone();
        async move { crate::workload::exit(&door, "web").await }
    });
    host.send(AGENT, "GetOOMEvent", Vec::new(), 0).await?;
    agent.host().await?.call(AGENT, "DestroySandbox", Vec::new()).await??;
    assert!(agent.ended()?.success(), "{}", agent.said());
    host.closed().await?;
    while let Ok(Some(_)) = logs.message().await {}
    let _ = waiting.await?;
    assert!(agent.door().await.is_err(), "nobody answers any more");
    Ok(())
}
