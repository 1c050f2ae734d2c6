//! The host uses one id twice, so that a container drops out of the books and runs on unseen.

use postern_api::owner::{ListRequest, RemoveRequest};

use crate::{
    kata::{NAME, PAUSE, TYPE, WEB, create, process, start},
    raw::code,
    rig::Agent,
    workload::declared,
};

#[tokio::test]
async fn an_id_in_use_is_refused_before_handover() -> anyhow::Result<()> {
    let (_agent, mut host) = Agent::ready().await?;
    let pause = create(PAUSE, &[(TYPE, "sandbox")]);
    host.agent("CreateContainer", &pause).await??;
    host.agent("StartContainer", &start(PAUSE)).await??;
    assert_eq!(code(&host.agent("CreateContainer", &pause).await?), 6);
    assert_ne!(
        code(&host.agent("CreateContainer", &create(WEB, &[(TYPE, "sandbox")])).await?),
        0,
        "one is enough"
    );
    assert_eq!(
        code(&host.agent("CreateContainer", &create(WEB, &[(NAME, "web")])).await?),
        7,
        "not a pause container"
    );
    Ok(())
}

#[tokio::test]
async fn nothing_runs_that_the_owner_does_not_see() -> anyhow::Result<()> {
    let (_agent, mut host, door) = declared("sleep 1000", true).await?;
    let wish = create(WEB, &[(NAME, "web")]);
    host.agent("CreateContainer", &wish).await??;
    host.agent("StartContainer", &start(WEB)).await??;
    assert_eq!(code(&host.agent("CreateContainer", &wish).await?), 6, "the id is in use");
    // Another id for the same declared container is another name for it, not another container.
    let _ = host.agent("CreateContainer", &create(PAUSE, &[(NAME, "web")])).await?;
    let _ = host.agent("StartContainer", &start(PAUSE)).await?;
    let listed = door.containers().list(ListRequest { all: true }).await?.into_inner().containers;
    assert_eq!(listed.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["web"]);
    let processes = door.containers().top(postern_api::owner::TopRequest { container: "web".into() }).await?;
    assert_eq!(
        processes.into_inner().processes.iter().filter(|p| p.parent_pid == 0 || p.pid == 1).count().max(1),
        1
    );

    door.containers().remove(RemoveRequest { container: "web".into(), force: true }).await?;
    let listed = door.containers().list(ListRequest { all: true }).await?.into_inner().containers;
    assert!(listed.is_empty());
    assert_ne!(code(&host.agent("StartContainer", &start(PAUSE)).await?), 0, "gone under every id");
    assert_ne!(code(&host.agent("WaitProcess", &process(PAUSE, "")).await?), 0);
    Ok(())
}
