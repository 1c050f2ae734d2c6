//! The host calls what only owners have, under every name it could have on the host's endpoint.

use crate::{
    raw::{AGENT, code},
    rig::{Agent, audited, inspect},
};

#[tokio::test]
async fn the_owners_methods_do_not_exist_for_the_host() -> anyhow::Result<()> {
    let (agent, mut host) = Agent::ready().await?;
    for method in [
        "ListContainers",
        "Handover",
        "Release",
        "Apply",
        "Attest",
        "Audit",
        "RegisterSpec",
        "RotateCredentials",
    ] {
        assert_eq!(code(&host.call(AGENT, method, Vec::new()).await?), 12, "{method}");
    }
    for service in ["postern.v1.Pod", "postern.v1.Containers", "postern.v1.Images", "grpc.SecAgentService"] {
        assert_eq!(code(&host.call(service, "Handover", Vec::new()).await?), 3, "{service}");
    }
    let door = agent.door().await?;
    assert_eq!(inspect(&door).await?.phase, "ready", "nobody has taken over");
    assert_eq!(audited(&door, "grpc.AgentService/Handover", "unknown").await?, 1);
    assert_eq!(audited(&door, "postern.v1.Pod/Handover", "unknown").await?, 1);
    Ok(())
}

#[tokio::test]
async fn names_cannot_forge_the_audit() -> anyhow::Result<()> {
    let (agent, mut host) = Agent::ready().await?;
    let hostile = "x\n\u{1b}[2KCheck allowed\r\u{202e}";
    assert_eq!(code(&host.call(AGENT, hostile, Vec::new()).await?), 12);
    assert_eq!(code(&host.call(AGENT, &"n".repeat(60_000), Vec::new()).await?), 12);
    let door = agent.door().await?;
    for record in crate::rig::audit(&door).await? {
        assert!(
            record.method.len() <= 96 && record.method.bytes().all(|c| (b' '..=b'~').contains(&c)),
            "{record:?}"
        );
    }
    Ok(())
}
