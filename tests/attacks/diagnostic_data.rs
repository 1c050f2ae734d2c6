//! GetDiagnosticData: in Kata, an arbitrary file of the guest, named by two annotations of the host's.

use prost::Message;

use crate::{
    kata::{NAME, WEB, create, start},
    raw::AGENT,
    workload::declared,
};

/// Kata's GetDiagnosticDataRequest (agent.proto).
#[derive(Clone, PartialEq, Message)]
struct Diagnostic {
    #[prost(string, tag = "1")]
    log_type: String,
    #[prost(string, tag = "2")]
    container_id: String,
}

#[tokio::test]
async fn no_file_of_the_guest_is_read_for_the_host() -> anyhow::Result<()> {
    let (_agent, mut host, door) =
        declared("echo canary-in-a-file > /dev/termination-log; sleep 1000", true).await?;
    let path = ("io.kubernetes.container.terminationMessagePath", "/proc/1/environ");
    host.agent("CreateContainer", &create(WEB, &[(NAME, "web"), path])).await??;
    host.agent("StartContainer", &start(WEB)).await??;
    let request = Diagnostic { log_type: "termination_log".into(), container_id: WEB.into() };
    let refused = host.call(AGENT, "GetDiagnosticData", request.encode_to_vec()).await?.unwrap_err();
    assert_eq!((refused.code, refused.message.as_str()), (7, "not permitted"));
    // The owner reads it with the owner's means.
    let (printed, _) =
        door.exec("web", &["sh", "-c", "until cat /dev/termination-log; do :; done 2>/dev/null"]).await?;
    assert_eq!(printed, b"canary-in-a-file\n");
    Ok(())
}
