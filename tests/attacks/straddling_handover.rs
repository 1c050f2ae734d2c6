//! The host fires CreateContainer and StartContainer around the moment of handover, to have something in by then.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use postern_api::owner::{HandoverRequest, ListRequest};

use crate::{
    kata::{NAME, TYPE, create, start},
    raw::code,
    rig::{Agent, PATIENCE, audit},
};

#[tokio::test]
async fn nothing_slips_through_the_moment_of_handover() -> anyhow::Result<()> {
    let (agent, _host) = Agent::ready().await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut storm = Vec::new();
    for connection in 0..4 {
        let mut host = agent.host().await?;
        let stop = stop.clone();
        storm.push(tokio::spawn(async move {
            let mut tried = 0;
            while !stop.load(Ordering::Relaxed) {
                let id = format!("{connection}-{tried}");
                let wish = create(&id, &[(NAME, "web"), (TYPE, "container")]);
                let refused = [
                    code(&host.agent("CreateContainer", &wish).await?),
                    code(&host.agent("StartContainer", &start(&id)).await?),
                ];
                anyhow::ensure!(refused == [7, 13], "{refused:?}");
                tried += 1;
            }
            anyhow::Ok(tried)
        }));
    }
    let door = agent.door().await?;
    let seen = audit(&door).await?.len();
    assert!(door.pod().handover(HandoverRequest {}).await?.into_inner().changed);
    // The storm goes on in the new phase before it ends.
    let owned = async {
        while !audit(&door)
            .await?
            .iter()
            .any(|record| record.phase == "owned" && record.method == "CreateContainer")
        {}
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, owned).await??;
    stop.store(true, Ordering::Relaxed);
    for connection in storm {
        assert!(connection.await?? > 0);
    }
    let listed = door.containers().list(ListRequest { all: true }).await?.into_inner().containers;
    assert!(listed.is_empty());
    let records = audit(&door).await?;
    assert!(records.len() >= seen);
    assert!(records.iter().filter(|r| r.method == "CreateContainer").all(|r| r.verdict == "refused"));
    Ok(())
}
