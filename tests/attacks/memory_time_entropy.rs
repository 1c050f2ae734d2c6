//! The host changes the ground under the guest: swap, memory, the clock, the random pool, CPUs.

use std::time::{SystemTime, UNIX_EPOCH};

use postern_api::host;
use prost::Message;

use crate::{
    raw::{AGENT, code},
    rig::{Agent, audited},
    workload::running,
};

/// Kata's SetGuestDateTimeRequest (agent.proto).
#[derive(Clone, PartialEq, Message)]
struct DateTime {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int64, tag = "2")]
    microseconds: i64,
}

/// Kata's ReseedRandomDevRequest (agent.proto).
#[derive(Clone, PartialEq, Message)]
struct Reseed {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
}

/// Kata's AddSwapPathRequest (agent.proto).
#[derive(Clone, PartialEq, Message)]
struct Swap {
    #[prost(string, tag = "1")]
    path: String,
}

fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let decade = DateTime { seconds: 10 * 365 * 86_400, microseconds: 0 }.encode_to_vec();
    vec![
        ("AddSwap", vec![0x0a, 0x01, 0x00]),
        ("AddSwapPath", Swap { path: "/dev/vdb".into() }.encode_to_vec()),
        ("MemAgentMemcgSet", vec![0x10, 0x01]),
        ("MemAgentCompactSet", vec![0x10, 0x01]),
        ("MemHotplugByProbe", vec![0x0a, 0x01, 0x00]),
        ("SetGuestDateTime", decade),
        ("ReseedRandomDev", Reseed { data: vec![0; 4096] }.encode_to_vec()),
    ]
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[tokio::test]
async fn none_of_it_before_or_after_handover() -> anyhow::Result<()> {
    let (swaps, started) = (std::fs::read_to_string("/proc/swaps")?, now());
    let (_agent, mut host) = Agent::ready().await?;
    for (method, body) in requests() {
        assert_eq!(code(&host.call(AGENT, method, body).await?), 7, "{method}");
    }
    let (_agent, mut host, door) = running("sleep 1000").await?;
    for (method, body) in requests() {
        assert_eq!(code(&host.call(AGENT, method, body).await?), 7, "{method}");
        assert_eq!(audited(&door, method, "refused").await?, 1);
    }
    assert_eq!(std::fs::read_to_string("/proc/swaps")?, swaps);
    let (clock, _) = door.exec("web", &["date", "+%s"]).await?;
    let clock: u64 = String::from_utf8_lossy(&clock).trim().parse()?;
    assert!((started..started + 86_400).contains(&clock), "the guest's clock says {clock}");
    Ok(())
}

#[tokio::test]
async fn cpus_are_bounded_and_nobody_waits_for_them() -> anyhow::Result<()> {
    let (_agent, mut host) = Agent::ready().await?;
    for nb_cpus in [65_535, u32::MAX] {
        let request = host::OnlineCpuMemRequest { wait: true, nb_cpus, cpu_only: false };
        assert_eq!(code(&host.agent("OnlineCPUMem", &request).await?), 3);
    }
    Ok(())
}
