//! Frames that lie about their length, type and stream; connections that say little or nothing; noise.

use postern_api::ttrpc::{FrameKind, Header, request_frame};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::{
    raw::{AGENT, HEALTH, code},
    rig::Agent,
    workload::running,
};

fn header(length: u32, stream: u32, kind: u8) -> [u8; 10] {
    Header { length, stream, kind: FrameKind::Other(kind), flags: 0xff }.encode()
}

fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    Ok(line.split_whitespace().next().unwrap_or("0").parse::<u64>()? * 1024)
}

#[tokio::test]
async fn lies_in_headers_are_answered_or_cut_off() -> anyhow::Result<()> {
    let (agent, mut honest, door) = running("sleep 1000").await?;
    for length in [u32::MAX, (4 << 20) + 1, 0] {
        for kind in [0, 1, 2, 3, 255] {
            for stream in [0, 1, 2] {
                let mut host = agent.host().await?;
                host.write(&header(length, stream, kind)).await?;
                assert_ne!(code(&host.answer().await?.1), 0, "{length} {kind} {stream}");
            }
        }
    }
    honest.call(HEALTH, "Check", Vec::new()).await??;
    assert_eq!(door.exec("web", &["true"]).await?.1.code, 0);
    Ok(())
}

#[tokio::test]
async fn stalled_frames_cost_little_memory() -> anyhow::Result<()> {
    let agent = Agent::start()?;
    let before = resident(agent.pid())?;
    let mut stalled = Vec::new();
    for _ in 0..30 {
        let mut host = agent.host().await?;
        // As much as may be announced, nearly all of it sent.
        let frame = request_frame(1, AGENT, "CreateContainer", vec![0; (1 << 20) - 100], 0);
        host.write(&frame[..100_000]).await?;
        stalled.push(host);
    }
    let mut host = agent.host().await?;
    host.call(HEALTH, "Check", Vec::new()).await??;
    let grown = resident(agent.pid())?.saturating_sub(before);
    assert!(grown < 16 << 20, "grown by {grown} bytes");
    drop(stalled);
    Ok(())
}

#[tokio::test]
async fn noise_is_survived() -> anyhow::Result<()> {
    let agent = Agent::start()?;
    let mut honest = agent.host().await?;
    let random = SystemRandom::new();
    for length in [1, 9, 10, 11, 64, 4096, 100_000] {
        for _ in 0..5 {
            let mut noise = vec![0; length];
            random.fill(&mut noise).expect("randomness");
            let mut host = agent.host().await?;
            // The agent may close before all of it is sent.
            let _ = host.write(&noise).await;
        }
    }
    honest.call(HEALTH, "Check", Vec::new()).await??;
    Ok(())
}
