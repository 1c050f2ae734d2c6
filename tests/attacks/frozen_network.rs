//! The host rewires the network after handover.

use postern_api::host;
use prost::Message as _;

use crate::{
    kata::{eth0, routes, update},
    raw::{AGENT, code},
    rig::{Agent, audited},
};

#[tokio::test]
async fn handover_freezes_the_network() -> anyhow::Result<()> {
    let (agent, mut host) = Agent::ready().await?;
    let route = host::Route { gateway: "10.0.2.2".into(), device: "eth0".into(), ..Default::default() };
    host.agent("UpdateInterface", &update(eth0())).await??;
    host.agent("UpdateRoutes", &routes(vec![route.clone()])).await??;
    let door = agent.door().await?;
    door.pod().handover(postern_api::owner::HandoverRequest {}).await?;
    let hijack = host::Route { gateway: "10.0.2.66".into(), ..route.clone() };
    assert_eq!(code(&host.agent("UpdateRoutes", &routes(vec![hijack])).await?), 7);
    assert_eq!(code(&host.agent("UpdateInterface", &update(eth0())).await?), 7);
    assert_eq!(code(&host.call(AGENT, "AddARPNeighbors", Vec::new()).await?), 7);
    let listed = host::Routes::decode(&*host.call(AGENT, "ListRoutes", Vec::new()).await??)?;
    assert_eq!(listed.routes, [route], "as it was before");
    assert_eq!(audited(&door, "UpdateRoutes", "allowed").await?, 1);
    assert_eq!(audited(&door, "UpdateRoutes", "refused").await?, 1);
    Ok(())
}
