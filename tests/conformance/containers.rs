//! Containers as a shim drives them: the pause container before handover, triggers after it.

use std::{collections::HashMap, time::Duration};

use postern_api::host;
use prost::Message;

use crate::{
    kata::{NAME, PAUSE, TYPE, WEB, create, process, read, remove, signal, start},
    raw::{AGENT, code},
    rig::{Agent, audited},
    workload::{declared, exit},
};

/// Long enough for an answer that should not come.
const PAUSE_FOR_SILENCE: Duration = Duration::from_millis(200);

#[tokio::test]
async fn unknown_containers_have_the_codes_that_shims_know() -> anyhow::Result<()> {
    let (_agent, mut host) = Agent::ready().await?;
    for (method, expected) in [
        ("WaitProcess", 3),
        ("ReadStdout", 3),
        ("ReadStderr", 3),
        ("CloseStdin", 3),
        ("TtyWinResize", 3),
        ("SignalProcess", 3),
        ("StatsContainer", 3),
        ("StartContainer", 13),
        ("RemoveContainer", 13),
    ] {
        let outcome = host.agent(method, &process(PAUSE, "")).await?;
        assert_eq!(code(&outcome), expected, "{method}");
    }
    Ok(())
}

#[tokio::test]
async fn the_pause_container_lives_as_a_shim_expects() -> anyhow::Result<()> {
    let (agent, mut host) = Agent::ready().await?;
    host.agent("CreateContainer", &create(PAUSE, &[(TYPE, "sandbox")])).await??;
    assert_eq!(code(&host.agent("CreateContainer", &create(PAUSE, &[(TYPE, "sandbox")])).await?), 6);
    host.agent("StartContainer", &start(PAUSE)).await??;
    assert_ne!(code(&host.agent("StartContainer", &start(PAUSE)).await?), 0, "it runs already");

    let stdout = host.send(AGENT, "ReadStdout", read(PAUSE, 4096).encode_to_vec(), 0).await?;
    let stderr = host.send(AGENT, "ReadStderr", read(PAUSE, 4096).encode_to_vec(), 0).await?;
    let waiting = host.send(AGENT, "WaitProcess", process(PAUSE, PAUSE).encode_to_vec(), 0).await?;
    assert!(host.is_silent(PAUSE_FOR_SILENCE).await, "streams are idle and nothing has ended");

    let mut other = agent.host().await?;
    let nothing = other.agent("ReadStdout", &read(PAUSE, 0)).await??;
    assert_eq!(host::ReadStreamResponse::decode(&*nothing)?.data, b"");
    assert_eq!(code(&other.agent("WriteStdin", &process(PAUSE, "")).await?), 7);
    other.agent("CloseStdin", &process(PAUSE, "")).await??;
    other.agent("TtyWinResize", &process(PAUSE, "")).await??;
    assert_eq!(code(&other.agent("WaitProcess", &process(PAUSE, "exec-1")).await?), 5);
    let stats = other.agent("StatsContainer", &process(PAUSE, "")).await??;
    let stats = host::StatsContainerResponse::decode(&*stats)?.cgroup_stats.unwrap();
    assert_eq!(stats.cpu_stats.unwrap().cpu_usage.unwrap().total_usage % 1_000_000_000, 0);
    assert_eq!(stats.memory_stats.unwrap().usage.unwrap().usage % (16 << 20), 0);
    assert_eq!(code(&other.agent("SignalProcess", &signal(PAUSE, "", 0)).await?), 3);
    assert_eq!(code(&other.agent("SignalProcess", &signal(PAUSE, "", 19)).await?), 7);

    other.agent("SignalProcess", &signal(PAUSE, "", 9)).await??;
    let mut ended = HashMap::from([host.answer().await?, host.answer().await?, host.answer().await?]);
    let status = ended.remove(&waiting).unwrap()?;
    assert_eq!(host::WaitProcessResponse::decode(&*status)?.status, 137);
    for stream in [stdout, stderr] {
        let end = ended.remove(&stream).unwrap()?;
        assert_eq!(host::ReadStreamResponse::decode(&*end)?.data, b"", "end of file");
    }
    let again = host.agent("WaitProcess", &process(PAUSE, "")).await??;
    assert_eq!(host::WaitProcessResponse::decode(&*again)?.status, 137, "waiting does not reap");
    for _ in 0..2 {
        host.agent("RemoveContainer", &remove(PAUSE)).await??;
    }
    Ok(())
}

#[tokio::test]
async fn waiters_of_one_container_are_few() -> anyhow::Result<()> {
    let (_agent, mut host) = Agent::ready().await?;
    host.agent("CreateContainer", &create(PAUSE, &[(TYPE, "sandbox")])).await??;
    for _ in 0..4 {
        host.send(AGENT, "WaitProcess", process(PAUSE, "").encode_to_vec(), 0).await?;
    }
    let fifth = host.send(AGENT, "WaitProcess", process(PAUSE, "").encode_to_vec(), 0).await?;
    let (answered, outcome) = host.answer().await?;
    assert_eq!((answered, code(&outcome)), (fifth, 8));
    Ok(())
}

#[tokio::test]
async fn a_trigger_runs_the_owners_specification() -> anyhow::Result<()> {
    let (_agent, mut host, door) = declared("exit 42", true).await?;
    let request = create(WEB, &[(TYPE, "container"), (NAME, "web")]);
    host.agent("CreateContainer", &request).await??;
    host.agent("StartContainer", &start(WEB)).await??;
    let status = host.agent("WaitProcess", &process(WEB, WEB)).await??;
    assert_eq!(
        host::WaitProcessResponse::decode(&*status)?.status,
        1,
        "the host learns the class of the exit"
    );
    assert_eq!(exit(&door, "web").await?.code, 42, "the owner learns the code");
    host.agent("RemoveContainer", &remove(WEB)).await??;
    Ok(())
}

#[tokio::test]
async fn what_is_not_declared_is_refused() -> anyhow::Result<()> {
    let (_agent, mut host, door) = declared("exit 0", false).await?;
    for annotations in
        [&[(NAME, "web")][..], &[(NAME, "other")], &[(NAME, "../web")], &[(TYPE, "sandbox")], &[]]
    {
        let outcome = host.agent("CreateContainer", &create(WEB, annotations)).await?;
        assert_eq!(code(&outcome), 7, "{annotations:?}");
    }
    assert_eq!(audited(&door, "CreateContainer", "refused").await?, 5);
    Ok(())
}

#[tokio::test]
async fn a_wish_to_stop_reaches_the_owner_and_nothing_else() -> anyhow::Result<()> {
    let (_agent, mut host, door) = declared("trap 'exit 3' TERM; sleep 1000 & wait", true).await?;
    let mut events =
        door.pod().events(postern_api::owner::EventsRequest { history: false }).await?.into_inner();
    host.agent("CreateContainer", &create(WEB, &[(NAME, "web")])).await??;
    host.agent("StartContainer", &start(WEB)).await??;
    host.agent("SignalProcess", &signal(WEB, "", 15)).await??;
    loop {
        let event = events.message().await?.expect("the pod lives");
        if event.kind == "host-stop-request" {
            assert_eq!(event.subject, "web");
            break;
        }
    }
    assert_eq!(code(&host.agent("RemoveContainer", &remove(WEB)).await?), 7, "it runs");
    let (_, exit) = door.exec("web", &["true"]).await?;
    assert_eq!(exit.code, 0, "it still runs, untouched");
    Ok(())
}
