//! The host sends signals to the owner's container: to kill it, to stop and step it, to steer it.

use crate::{
    kata::{NAME, WEB, create, signal, start},
    raw::{AGENT, code},
    rig::audited,
    workload::{declared, until_printed},
};

/// Counts what it is sent; whoever sends 12 from inside ends it.
const COUNTING: &str = "
    for signal in 1 2 3 10 15 18; do trap \"echo got $signal\" $signal; done
    trap 'echo ended by the owner; exit 7' 12
    echo ready
    while :; do sleep 1000 & wait $!; done";

#[tokio::test]
async fn no_signal_of_the_host_arrives() -> anyhow::Result<()> {
    let (_agent, mut host, door) = declared(COUNTING, true).await?;
    host.agent("CreateContainer", &create(WEB, &[(NAME, "web")])).await??;
    host.agent("StartContainer", &start(WEB)).await??;
    until_printed(&door, "web", "ready").await?;
    for number in [0, 65, 0xffff_ffff] {
        assert_eq!(code(&host.agent("SignalProcess", &signal(WEB, "", number)).await?), 3, "{number}");
    }
    for number in [1, 2, 10, 12, 18, 19, 64] {
        assert_eq!(code(&host.agent("SignalProcess", &signal(WEB, WEB, number)).await?), 7, "{number}");
    }
    for number in [9, 15] {
        // A wish: the shim is told yes, the owner is told, the container is not.
        assert_eq!(code(&host.agent("SignalProcess", &signal(WEB, "", number)).await?), 0, "{number}");
        assert_eq!(
            code(&host.agent("SignalProcess", &signal(WEB, "exec-1", number)).await?),
            5,
            "an exec session"
        );
        assert_eq!(code(&host.agent("SignalProcess", &signal("unknown", "", number)).await?), 3);
        assert_eq!(
            code(&host.agent("SignalProcess", &signal("web", "", number)).await?),
            3,
            "the owner's name"
        );
    }
    for method in ["PauseContainer", "ResumeContainer"] {
        assert_eq!(code(&host.call(AGENT, method, Vec::new()).await?), 7);
    }
    // The owner's signal arrives, and it is the only one that did.
    let kill = postern_api::owner::KillRequest { container: "web".into(), signal: 12 };
    door.containers().kill(kill).await?;
    assert_eq!(crate::workload::exit(&door, "web").await?.code, 7);
    assert_eq!(crate::workload::printed(&door, "web").await?, "ready\nended by the owner\n");
    assert_eq!(audited(&door, "SignalProcess", "sanitised").await?, 2);
    Ok(())
}
