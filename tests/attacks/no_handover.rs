//! The owner never comes: the host asks again and again, and nothing of a workload ever runs.

use postern_api::owner::{CreateRequest, ListRequest};
use postern_model::Role;

use crate::{
    kata::{NAME, PAUSE, TYPE, WEB, create, start},
    raw::code,
    rig::{Agent, audited, inspect},
    workload::{push, shell},
};

#[tokio::test]
async fn without_the_owner_there_is_a_pause_container_and_no_more() -> anyhow::Result<()> {
    let (agent, mut host) = Agent::ready().await?;
    host.agent("CreateContainer", &create(PAUSE, &[(TYPE, "sandbox")])).await??;
    host.agent("StartContainer", &start(PAUSE)).await??;
    for annotations in
        [&[(NAME, "web")][..], &[(TYPE, "container"), (NAME, "web")], &[(TYPE, "pod_sandbox")], &[]]
    {
        for _ in 0..50 {
            assert_eq!(code(&host.agent("CreateContainer", &create(WEB, annotations)).await?), 7);
        }
    }
    let door = agent.door().await?;
    assert_eq!(inspect(&door).await?.phase, "ready");
    assert_eq!(audited(&door, "CreateContainer", "refused").await?, 200);
    Ok(())
}

#[tokio::test]
async fn an_owner_who_has_not_taken_over_starts_nothing_either() -> anyhow::Result<()> {
    let (agent, _host) = Agent::ready().await?;
    let door = agent.door().await?;
    let refused = push(&door).await.expect_err("pushing needs handover").to_string();
    assert!(refused.contains("hand the pod over first"), "{refused}");
    let create = CreateRequest { spec: Some(shell("web", "true")) };
    let refused = door.containers().create(create).await.expect_err("creating needs handover");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    assert!(door.containers().list(ListRequest { all: true }).await?.into_inner().containers.is_empty());
    Ok(())
}

#[tokio::test]
async fn only_an_admin_takes_over() -> anyhow::Result<()> {
    let (agent, _host) = Agent::ready().await?;
    for role in [Role::Operator, Role::Viewer, Role::Auditor] {
        let door = agent.door_as(role).await?;
        let refused =
            door.pod().handover(postern_api::owner::HandoverRequest {}).await.expect_err("handover");
        assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{role}: {refused}");
        assert!(refused.message().contains("role admin"), "{refused}");
    }
    let door = agent.door().await?;
    assert!(door.pod().handover(postern_api::owner::HandoverRequest {}).await?.into_inner().changed);
    Ok(())
}
