//! Framing and codes.

use postern_api::{
    host,
    ttrpc::{FrameKind, Header, MAX_BODY, request_frame},
};
use prost::Message;

use crate::{
    raw::{AGENT, HEALTH, Host, Outcome, code},
    rig::{Agent, sandbox},
};

async fn still_serves(host: &mut Host) -> anyhow::Result<()> {
    let answer = host.call(HEALTH, "Check", Vec::new()).await??;
    let serving = host::HealthCheckResponse::decode(&answer[..])?.status;
    anyhow::ensure!(serving == host::health_check_response::ServingStatus::Serving as i32);
    Ok(())
}

#[tokio::test]
async fn names_that_do_not_exist() -> anyhow::Result<()> {
    let agent = Agent::start()?;
    let mut host = agent.host().await?;
    for (service, method, expected) in [
        (AGENT, "ListContainers", 12),
        (AGENT, "execprocess", 12),
        (AGENT, "Check", 12),
        (AGENT, "", 12),
        (HEALTH, "CreateSandbox", 12),
        ("grpc.Nothing", "Check", 3),
        ("", "", 3),
        ("grpc.Image", "PullImage", 3),
        ("postern.v1.Pod", "Handover", 3),
    ] {
        let outcome = host.call(service, method, Vec::new()).await?;
        assert_eq!(code(&outcome), expected, "{service}/{method}");
    }
    still_serves(&mut host).await
}

#[tokio::test]
async fn a_request_above_four_mebibytes() -> anyhow::Result<()> {
    let agent = Agent::start()?;
    let mut host = agent.host().await?;
    let outcome = host.call(AGENT, "CreateContainer", vec![0; MAX_BODY]).await?;
    assert_eq!(code(&outcome), 3);
    still_serves(&mut host).await?;
    let largest = MAX_BODY - request_frame(1, AGENT, "CopyFile", Vec::new(), 0).len() - 16;
    let outcome = host.call(AGENT, "CopyFile", vec![0; largest]).await?;
    assert_eq!(code(&outcome), 7, "a large request is refused for what it is");
    still_serves(&mut host).await
}

#[tokio::test]
async fn calls_on_one_connection_run_at_once() -> anyhow::Result<()> {
    let (_agent, mut host) = Agent::ready().await?;
    let waiting = host.send(AGENT, "GetOOMEvent", Vec::new(), 0).await?;
    let quick = host.send(HEALTH, "Check", Vec::new(), 0).await?;
    assert_eq!(host.answer().await?.0, quick);
    let second = host.send(AGENT, "GetOOMEvent", Vec::new(), 0).await?;
    assert_ne!(second, waiting);
    let (answered, outcome) = host.answer().await?;
    assert_eq!((answered, code(&outcome)), (second, 8), "one waits at a time");
    Ok(())
}

#[tokio::test]
async fn a_timeout_is_honoured() -> anyhow::Result<()> {
    let (_agent, mut host) = Agent::ready().await?;
    let timed = host.send(AGENT, "GetOOMEvent", Vec::new(), 1_000_000).await?;
    let (answered, outcome) = host.answer().await?;
    assert_eq!((answered, code(&outcome)), (timed, 4));
    let again = host.send(AGENT, "GetOOMEvent", Vec::new(), 1_000_000).await?;
    let (answered, outcome) = host.answer().await?;
    assert_eq!((answered, code(&outcome)), (again, 4), "the first has made room for the second");
    still_serves(&mut host).await
}

#[tokio::test]
async fn streams_and_frame_types() -> anyhow::Result<()> {
    let agent = Agent::start()?;
    let mut host = agent.host().await?;
    for stream in [0, 2, 4_294_967_294] {
        host.write(&request_frame(stream, HEALTH, "Check", Vec::new(), 0)).await?;
        let (answered, outcome) = host.answer().await?;
        assert_eq!((answered, code(&outcome)), (stream, 3));
    }
    // Numbers need not grow: a client that numbers calls before it queues them sends some out of order.
    for stream in [101, 99, 101] {
        host.write(&request_frame(stream, HEALTH, "Check", Vec::new(), 0)).await?;
        let (answered, outcome) = host.answer().await?;
        assert_eq!((answered, code(&outcome)), (stream, 0));
    }
    for kind in [FrameKind::Response, FrameKind::Other(3), FrameKind::Other(0), FrameKind::Other(255)] {
        host.write(&Header { length: 4, stream: 201, kind, flags: 0 }.encode()).await?;
        host.write(b"data").await?;
        let (answered, outcome) = host.answer().await?;
        assert_eq!((answered, code(&outcome)), (201, 3), "{kind:?}");
    }
    still_serves(&mut host).await
}

#[tokio::test]
async fn a_body_that_is_no_protobuf() -> anyhow::Result<()> {
    let agent = Agent::start()?;
    let mut host = agent.host().await?;
    for payload in [&b"\xff"[..], b"\x0a\x05ab", b"\x0a\x01\xff", b"\x0b\x0b\x0b"] {
        let outcome = host.call(AGENT, "CreateSandbox", payload.to_vec()).await?;
        assert_eq!(code(&outcome), 3, "{payload:x?}");
    }
    host.agent("CreateSandbox", &sandbox()).await??;
    Ok(())
}

#[tokio::test]
async fn what_a_control_tool_asks_is_answered() -> anyhow::Result<()> {
    let mut agent = Agent::start()?;
    let mut health = agent.host().await?;
    let mut control = agent.host().await?;
    still_serves(&mut health).await?;
    let version = host::VersionCheckResponse::decode(&*health.call(HEALTH, "Version", Vec::new()).await??)?;
    assert!(!version.grpc_version.is_empty() && !version.agent_version.is_empty());
    let details = host::GuestDetailsRequest { mem_block_size: true, mem_hotplug_probe: true };
    let details = control.agent("GetGuestDetails", &details).await??;
    let details = host::GuestDetailsResponse::decode(&*details)?;
    assert!(details.mem_block_size_bytes > 0 && !details.support_mem_hotplug_probe);
    assert!(details.agent_details.is_some());
    control.agent("CreateSandbox", &sandbox()).await??;
    let interfaces = host::Interfaces::decode(&*control.call(AGENT, "ListInterfaces", Vec::new()).await??)?;
    assert_eq!(interfaces, host::Interfaces::default(), "nothing has been brought yet");
    host::Routes::decode(&*control.call(AGENT, "ListRoutes", Vec::new()).await??)?;
    let metrics = host::Metrics::decode(&*control.call(AGENT, "GetMetrics", Vec::new()).await??)?;
    assert!(metrics.metrics.contains("postern_pod_phase 1"));
    control.call(AGENT, "DestroySandbox", Vec::new()).await??;
    assert!(agent.ended()?.success());
    Ok(())
}

#[tokio::test]
async fn interfaces_and_routes_are_given_back_as_they_were_brought() -> anyhow::Result<()> {
    let (_agent, mut host) = Agent::ready().await?;
    let interface = host::Interface {
        device: "eth0".into(),
        name: "eth0".into(),
        ip_addresses: vec![host::IpAddress { family: 0, address: "10.0.2.15".into(), mask: "24".into() }],
        mtu: 1500,
        hw_addr: "52:54:00:12:34:56".into(),
        ..Default::default()
    };
    let route = host::Route { gateway: "10.0.2.2".into(), device: "eth0".into(), ..Default::default() };
    let early = host::UpdateRoutesRequest { routes: Some(host::Routes { routes: vec![route.clone()] }) };
    assert_eq!(code(&host.agent("UpdateRoutes", &early).await?), 3, "there is no eth0 yet");
    let request = host::UpdateInterfaceRequest { interface: Some(interface.clone()) };
    let answer = host.agent("UpdateInterface", &request).await??;
    assert_eq!(host::Interface::decode(&*answer)?, interface);
    let answer = host.agent("UpdateRoutes", &early).await??;
    assert_eq!(host::Routes::decode(&*answer)?.routes, [route]);
    let listed = host.call(AGENT, "ListInterfaces", Vec::new()).await??;
    assert_eq!(host::Interfaces::decode(&*listed)?.interfaces, [interface]);
    Ok(())
}

#[tokio::test]
async fn no_more_cpus_come_online_and_that_is_fine() -> anyhow::Result<()> {
    let (_agent, mut host) = Agent::ready().await?;
    let online = |nb_cpus| host::OnlineCpuMemRequest { wait: true, nb_cpus, cpu_only: false };
    host.agent("OnlineCPUMem", &online(2)).await??;
    let outcome: Outcome = host.agent("OnlineCPUMem", &online(65_535)).await?;
    assert_eq!(code(&outcome), 3);
    Ok(())
}
