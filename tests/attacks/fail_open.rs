//! Nothing is configured, or what is configured is broken: the gate must not fail open.

use std::{fs, os::unix::net::UnixListener, process::Command};

use postern_simtee::{Launch, Platform};
use postern_tests::process::Guarded;

use crate::{
    raw::{AGENT, HEALTH, code},
    rig::{Agent, PATIENCE, sandbox},
};

/// What the host may ask before there is a sandbox: the rest of the table is refused.
const WHILE_BOOTING: [&str; 7] = [
    "DestroySandbox",
    "OnlineCPUMem",
    "GetGuestDetails",
    "GetMetrics",
    "UpdateRoutes",
    "ListInterfaces",
    "ListRoutes",
];

#[tokio::test]
async fn a_guest_without_a_sandbox_grants_little_and_no_workload() -> anyhow::Result<()> {
    let agent = Agent::start()?;
    let mut host = agent.host().await?;
    for method in [
        "CreateContainer",
        "StartContainer",
        "RemoveContainer",
        "SignalProcess",
        "WaitProcess",
        "StatsContainer",
        "ReadStdout",
        "ReadStderr",
        "CloseStdin",
        "TtyWinResize",
        "GetOOMEvent",
        "ExecProcess",
        "SetPolicy",
    ] {
        let outcome = host.call(AGENT, method, Vec::new()).await?;
        assert_eq!(code(&outcome), 7, "{method}");
    }
    for method in &WHILE_BOOTING[1..] {
        let outcome = host.call(AGENT, method, Vec::new()).await?;
        assert_eq!(code(&outcome), 0, "{method}");
    }
    assert_eq!(code(&host.call(HEALTH, "Check", Vec::new()).await?), 0);
    host.agent("CreateSandbox", &sandbox()).await??;
    Ok(())
}

/// Starts an agent with this init data and tells whether it ended by itself, unsuccessfully.
fn refuses(init_data: &[u8]) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    fs::write(path("init-data"), init_data)?;
    let guest = Platform::ephemeral()?.launch(Launch::new(
        postern_model::Measurement::new([1; 48]),
        postern_model::HostData::new([2; 32]),
    ))?;
    let _platform = postern_simtee::serve(UnixListener::bind(path("tee.sock"))?, guest)?;
    let mut command = Command::new(postern_tests::programs::program("postern-agent")?);
    command
        .args(["--standalone", "--owner-listen", "tcp://127.0.0.1:0"])
        .args(["--host-listen", &format!("unix://{}", path("host.sock").display())])
        .args(["--tee-device", &format!("unix://{}", path("tee.sock").display())])
        .arg("--init-data")
        .arg(path("init-data"))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let status = Guarded::spawn(&mut command)?.wait(PATIENCE)?;
    anyhow::ensure!(!status.success(), "the agent served");
    Ok(())
}

#[test]
fn broken_init_data_is_no_init_data() -> anyhow::Result<()> {
    refuses(b"")?;
    refuses(b"initdata")?;
    refuses(&[0; 4096])?;
    refuses(&vec![b'x'; 5 << 20])
}

#[test]
fn init_data_that_the_platform_does_not_vouch_for() -> anyhow::Result<()> {
    let owner = postern_tunnel::OwnerCa::create(postern_tunnel::Validity::starting(
        postern_tests::owner::now() - 60,
        std::time::Duration::from_secs(3600),
    ))?;
    // The host's own owner CA in otherwise good init data: its digest is not the one in the report.
    let planted = postern_launch::init_data::encode(&postern_launch::init_data::InitData {
        pod: "test".parse()?,
        owner_ca_der: owner.certificate_der().to_vec(),
        instance: [0; 32],
        mode: postern_launch::init_data::Mode::Direct,
    });
    refuses(&planted.device())
}
