//! CopyFile: a symlink out of the shared directory, then a file through it; and every odd kind of file.

use prost::Message;

use crate::{
    raw::{AGENT, code},
    rig::{Agent, audited},
    workload::running,
};

/// Kata's CopyFileRequest (agent.proto).
#[derive(Clone, PartialEq, Message)]
struct CopyFile {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(int64, tag = "2")]
    file_size: i64,
    #[prost(uint32, tag = "3")]
    file_mode: u32,
    #[prost(uint32, tag = "4")]
    dir_mode: u32,
    #[prost(int32, tag = "5")]
    uid: i32,
    #[prost(int32, tag = "6")]
    gid: i32,
    #[prost(int64, tag = "7")]
    offset: i64,
    #[prost(bytes = "vec", tag = "8")]
    data: Vec<u8>,
}

const SHARED: &str = "/run/kata-containers/shared/containers";

#[tokio::test]
async fn no_file_of_the_host_gets_in_in_any_phase() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let victim = folder.path().join("victim");
    std::fs::write(&victim, "before")?;
    let link = CopyFile {
        path: format!("{SHARED}/x"),
        file_mode: 0o120_777,
        data: folder.path().display().to_string().into_bytes(),
        ..Default::default()
    };
    let through = CopyFile {
        path: format!("{SHARED}/x/victim"),
        data: b"after".to_vec(),
        file_size: 5,
        ..Default::default()
    };
    let direct = CopyFile {
        path: victim.display().to_string(),
        data: b"after".to_vec(),
        file_size: 5,
        ..Default::default()
    };
    let odd = CopyFile {
        path: "/".repeat(60_000),
        file_mode: 0o060_000,
        file_size: i64::MIN,
        offset: -1,
        uid: -1,
        ..Default::default()
    };
    let large = CopyFile { path: format!("{SHARED}/big"), data: vec![7; 3 << 20], ..Default::default() };

    let booting = Agent::start()?;
    let (_ready, ready) = Agent::ready().await?;
    let (_owned, owned, door) = running("sleep 1000").await?;
    for mut host in [booting.host().await?, ready, owned] {
        for request in [&link, &through, &direct, &odd, &large] {
            assert_eq!(code(&host.call(AGENT, "CopyFile", request.encode_to_vec()).await?), 7);
        }
    }
    assert_eq!(std::fs::read(&victim)?, b"before");
    assert!(!std::path::Path::new(SHARED).join("x").exists());
    assert_eq!(audited(&door, "CopyFile", "refused").await?, 5);
    Ok(())
}
