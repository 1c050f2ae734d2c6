//! Many connections ask for what is refused, as fast as they can, while the owner works.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::{
    raw::{AGENT, code},
    rig::audited,
    workload::running,
};

/// Below the endpoint's own bound on connections.
const CONNECTIONS: usize = 16;
const OWNER_CALLS: usize = 20;

#[tokio::test]
async fn the_owner_works_on_and_every_call_is_counted() -> anyhow::Result<()> {
    let (agent, _host, door) = running("sleep 1000").await?;
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut flood = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut host = agent.host().await?;
        let (stop, asked) = (stop.clone(), asked.clone());
        flood.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let outcome = host.call(AGENT, "ExecProcess", vec![0; 512]).await?;
                anyhow::ensure!(code(&outcome) == 7);
                asked.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }));
    }
    for _ in 0..OWNER_CALLS {
        let (printed, exit) = door.exec("web", &["echo", "alive"]).await?;
        assert_eq!((printed.as_slice(), exit.code), (&b"alive\n"[..], 0));
    }
    stop.store(true, Ordering::Relaxed);
    for connection in flood {
        connection.await??;
    }
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked > 0);
    assert_eq!(audited(&door, "ExecProcess", "refused").await?, asked);
    Ok(())
}

#[tokio::test]
async fn more_connections_than_there_may_be_are_turned_away() -> anyhow::Result<()> {
    let (agent, mut host, door) = running("sleep 1000").await?;
    let mut parked = Vec::new();
    for _ in 0..200 {
        parked.push(agent.host().await?);
    }
    let mut last = parked.pop().expect("200 connections");
    last.closed().await?;
    // Those that were there first are served, and the owner is not concerned.
    host.call(crate::raw::HEALTH, "Check", Vec::new()).await??;
    assert_eq!(door.exec("web", &["true"]).await?.1.code, 0);
    drop(parked);
    Ok(())
}
