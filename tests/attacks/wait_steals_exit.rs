//! The host waits first, or a hundred times, so that the owner's wait finds nothing left.

use std::collections::BTreeSet;

use postern_api::{host, owner::KillRequest};
use prost::Message as _;

use crate::{
    kata::{NAME, WEB, create, process, start},
    raw::{AGENT, code},
    workload::{declared, exit},
};

#[tokio::test]
async fn the_owner_gets_the_code_and_the_host_its_class() -> anyhow::Result<()> {
    let (agent, mut host, door) = declared("trap 'exit 77' TERM; sleep 1000 & wait", true).await?;
    host.agent("CreateContainer", &create(WEB, &[(NAME, "web")])).await??;
    host.agent("StartContainer", &start(WEB)).await??;

    // The owner's exec session is not there, just as one that never was.
    assert_eq!(code(&host.agent("WaitProcess", &process(WEB, "exec-0")).await?), 5);
    assert_eq!(code(&host.agent("WaitProcess", &process(WEB, "no-such")).await?), 5);
    assert_eq!(code(&host.agent("WaitProcess", &process("web", "")).await?), 3);

    let mut waiting = BTreeSet::new();
    for _ in 0..120 {
        waiting.insert(host.send(AGENT, "WaitProcess", process(WEB, "").encode_to_vec(), 0).await?);
    }
    for _ in 0..116 {
        let (stream, outcome) = host.answer().await?;
        assert_eq!(code(&outcome), 8, "four may wait");
        waiting.remove(&stream);
    }
    let mut other = agent.host().await?;
    let elsewhere = other.send(AGENT, "WaitProcess", process(WEB, WEB).encode_to_vec(), 0).await?;
    door.exec("web", &["true"]).await?;
    door.containers().kill(KillRequest { container: "web".into(), signal: 15 }).await?;
    for _ in 0..4 {
        let (stream, outcome) = host.answer().await?;
        assert!(waiting.remove(&stream));
        assert_eq!(host::WaitProcessResponse::decode(&*outcome?)?.status, 1, "one for any failure");
    }
    assert_eq!(other.answer().await?.0, elsewhere);
    for _ in 0..2 {
        assert_eq!(exit(&door, "web").await?.code, 77);
    }
    Ok(())
}
