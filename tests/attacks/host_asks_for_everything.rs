//! After handover the host calls every method that it may never call, with a body that would be valid.

use postern_api::host;
use prost::Message as _;

use crate::{
    kata::{PAUSE, process},
    raw::{AGENT, HEALTH, code},
    rig::audit,
    workload::running,
};

const NEVER: [&str; 21] = [
    "ExecProcess",
    "WriteStdin",
    "UpdateContainer",
    "PauseContainer",
    "ResumeContainer",
    "CopyFile",
    "SetPolicy",
    "GetDiagnosticData",
    "GetVolumeStats",
    "GetIPTables",
    "UpdateEphemeralMounts",
    "RemoveStaleVirtiofsShareMounts",
    "ResizeVolume",
    "SetIPTables",
    "AddSwap",
    "AddSwapPath",
    "MemHotplugByProbe",
    "MemAgentMemcgSet",
    "MemAgentCompactSet",
    "ReseedRandomDev",
    "SetGuestDateTime",
];

/// Refused in `Owned`, although some other phase allows them.
const NOT_NOW: [(&str, i32); 5] = [
    ("CreateSandbox", 9),
    ("UpdateInterface", 7),
    ("UpdateRoutes", 7),
    ("AddARPNeighbors", 7),
    ("CreateContainer", 7),
];

#[tokio::test]
async fn is_refused_each_time_with_one_text_and_the_owner_sees_it() -> anyhow::Result<()> {
    let (_agent, mut host, door) = running("trap 'exit 3' TERM; sleep 1000 & wait").await?;
    let before = audit(&door).await?.len();
    // The workload's own name, as a container id: it does not exist for the host.
    for id in ["web", PAUSE] {
        let body = process(id, "").encode_to_vec();
        for method in NEVER {
            let refused = host.call(AGENT, method, body.clone()).await?.unwrap_err();
            assert_eq!((refused.code, refused.message.as_str()), (7, "not permitted"), "{method}");
        }
    }
    for (method, expected) in NOT_NOW {
        let outcome = host.call(AGENT, method, process(PAUSE, "").encode_to_vec()).await?;
        assert_eq!(code(&outcome), expected, "{method}");
    }
    assert_eq!(
        code(&host.call(AGENT, "CreateContainer", Vec::new()).await?),
        7,
        "said before anything is asked of a body"
    );
    let after = audit(&door).await?;
    let tried: Vec<_> =
        after[before..].iter().map(|r| (r.method.as_str(), r.verdict.as_str(), r.phase.as_str())).collect();
    let expected = NEVER.iter().chain(&NEVER).copied().chain(NOT_NOW.map(|(method, _)| method));
    // The last two are one record, called twice.
    assert_eq!(after.last().map(|record| record.repeated), Some(2));
    assert_eq!(tried, expected.map(|method| (method, "refused", "owned")).collect::<Vec<_>>());

    // The honest side of it: the host may still ask how the guest is, and the owner may do all of it.
    host::HealthCheckResponse::decode(&*host.call(HEALTH, "Check", Vec::new()).await??)?;
    let (printed, exit) = door.exec("web", &["echo", "alive"]).await?;
    assert_eq!((printed.as_slice(), exit.code), (&b"alive\n"[..], 0));
    Ok(())
}

#[tokio::test]
async fn nothing_is_open_in_any_phase() -> anyhow::Result<()> {
    let agent = crate::rig::Agent::start()?;
    let mut host = agent.host().await?;
    for method in NEVER {
        assert_eq!(code(&host.call(AGENT, method, Vec::new()).await?), 7, "{method} while booting");
    }
    host.agent("CreateSandbox", &crate::rig::sandbox()).await??;
    for method in NEVER {
        assert_eq!(code(&host.call(AGENT, method, Vec::new()).await?), 7, "{method} when ready");
    }
    Ok(())
}
