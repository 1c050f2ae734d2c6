//! The host reads with absurd lengths, polls counters, and writes to a process that does not read.

use postern_api::host;
use prost::Message as _;

use crate::{
    kata::{NAME, WEB, create, process, read, start},
    raw::{AGENT, code},
    workload::{declared, exit},
};

#[tokio::test]
async fn streams_are_idle_and_nothing_is_held() -> anyhow::Result<()> {
    let (agent, mut host, door) =
        declared("trap 'exit 0' TERM; yes canary | head -c 1000000; sleep 1000 & wait", true).await?;
    host.agent("CreateContainer", &create(WEB, &[(NAME, "web")])).await??;
    host.agent("StartContainer", &start(WEB)).await??;
    let mut reading = Vec::new();
    for method in ["ReadStdout", "ReadStderr"] {
        reading.push(host.send(AGENT, method, read(WEB, u32::MAX).encode_to_vec(), 0).await?);
    }
    let mut other = agent.host().await?;
    let write = other.call(AGENT, "WriteStdin", vec![0; 4_000_000]).await?;
    assert_eq!(code(&write), 7);
    for _ in 0..200 {
        other.agent("StatsContainer", &process(WEB, "")).await??;
    }
    // All output is the owner's, from its first byte.
    let (count, _) = door.exec("web", &["echo", "alive"]).await?;
    assert_eq!(count, b"alive\n");
    let logs = postern_api::owner::LogsRequest { container: "web".into(), ..Default::default() };
    let first = door.containers().logs(logs).await?.into_inner().message().await?.expect("output");
    assert!(first.data.starts_with(b"canary\n"));

    door.containers().kill(postern_api::owner::KillRequest { container: "web".into(), signal: 15 }).await?;
    exit(&door, "web").await?;
    for _ in 0..2 {
        let (stream, outcome) = host.answer().await?;
        assert!(reading.contains(&stream));
        assert_eq!(
            host::ReadStreamResponse::decode(&*outcome?)?.data,
            b"",
            "end of file, and not a byte before it"
        );
    }
    Ok(())
}
