//! The host's own specification: hooks, mounts, storages, another program. None of it may be carried out.

use std::collections::HashMap;

use prost::Message;

use crate::{
    kata::{NAME, PAUSE, TYPE, WEB, start},
    raw::{AGENT, code},
    rig::{Agent, sandbox},
    workload::{declared, exit, printed},
};

/// Kata's CreateContainerRequest with what a hostile host would fill in (agent.proto, oci.proto).
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Create {
    #[prost(string, tag = "1")]
    pub(crate) container_id: String,
    #[prost(message, repeated, tag = "4")]
    pub(crate) devices: Vec<Device>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) storages: Vec<Storage>,
    #[prost(message, optional, tag = "6")]
    pub(crate) oci: Option<Spec>,
    #[prost(bool, tag = "7")]
    pub(crate) sandbox_pidns: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Device {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) kind: String,
    #[prost(string, tag = "3")]
    pub(crate) vm_path: String,
    #[prost(string, tag = "4")]
    pub(crate) container_path: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Storage {
    #[prost(string, tag = "1")]
    pub(crate) driver: String,
    #[prost(string, tag = "3")]
    pub(crate) source: String,
    #[prost(string, tag = "4")]
    pub(crate) fstype: String,
    #[prost(string, tag = "6")]
    pub(crate) mount_point: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Spec {
    #[prost(message, optional, tag = "2")]
    pub(crate) process: Option<Process>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) mounts: Vec<Mount>,
    #[prost(message, optional, tag = "6")]
    pub(crate) hooks: Option<Hooks>,
    #[prost(map = "string, string", tag = "7")]
    pub(crate) annotations: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Process {
    #[prost(string, repeated, tag = "4")]
    pub(crate) args: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    pub(crate) env: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Mount {
    #[prost(string, tag = "1")]
    pub(crate) destination: String,
    #[prost(string, tag = "2")]
    pub(crate) source: String,
    #[prost(string, tag = "3")]
    pub(crate) kind: String,
    #[prost(string, repeated, tag = "4")]
    pub(crate) options: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Hooks {
    #[prost(message, repeated, tag = "1")]
    pub(crate) prestart: Vec<Hook>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) poststart: Vec<Hook>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) poststop: Vec<Hook>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) create_runtime: Vec<Hook>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) create_container: Vec<Hook>,
    #[prost(message, repeated, tag = "6")]
    pub(crate) start_container: Vec<Hook>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Hook {
    #[prost(string, tag = "1")]
    pub(crate) path: String,
    #[prost(string, repeated, tag = "2")]
    pub(crate) args: Vec<String>,
}

/// Everything at once, with `evidence` as the file that would show that a hook ran.
pub(crate) fn hostile(id: &str, annotations: &[(&str, &str)], evidence: &str) -> Create {
    let hook = || vec![Hook { path: "/bin/touch".into(), args: vec!["touch".into(), evidence.into()] }];
    Create {
        container_id: id.into(),
        devices: ["/dev/sev-guest", "/dev/mem", "/dev/vda", "/dev/vsock"]
            .map(|path| Device {
                id: path.into(),
                kind: "blk".into(),
                vm_path: path.into(),
                container_path: path.into(),
            })
            .to_vec(),
        storages: ["/etc", "/proc", "/run", "/"]
            .map(|path| Storage {
                driver: "local".into(),
                source: "x".into(),
                fstype: "tmpfs".into(),
                mount_point: path.into(),
            })
            .to_vec(),
        oci: Some(Spec {
            process: Some(Process {
                args: ["sh", "-c", "echo the host was here"].map(String::from).to_vec(),
                env: vec!["LD_PRELOAD=/host.so".into()],
            }),
            mounts: vec![Mount {
                destination: "/mnt".into(),
                source: "/".into(),
                kind: "tmpfs".into(),
                options: vec!["rbind".into()],
            }],
            hooks: Some(Hooks {
                prestart: hook(),
                poststart: hook(),
                poststop: hook(),
                create_runtime: hook(),
                create_container: hook(),
                start_container: hook(),
            }),
            annotations: annotations.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect(),
        }),
        sandbox_pidns: true,
    }
}

#[tokio::test]
async fn a_trigger_carries_out_the_owners_words_only() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let evidence = folder.path().join("hook").display().to_string();
    let script = "echo the owner; ls /mnt 2>/dev/null; ls -d /dev/sev-guest /dev/mem /dev/vda /dev/vsock 2>/dev/null; env";
    let (_agent, mut host, door) = declared(script, true).await?;
    let hostile = hostile(WEB, &[(NAME, "web"), (TYPE, "container")], &evidence);
    host.agent("CreateContainer", &hostile).await??;
    host.agent("StartContainer", &start(WEB)).await??;
    assert_eq!(exit(&door, "web").await?.code, 0);
    let printed = printed(&door, "web").await?;
    assert!(printed.starts_with("the owner\n"), "{printed}");
    for trace in ["the host", "LD_PRELOAD", "/dev/", "proc"] {
        assert!(!printed.contains(trace), "{trace}: {printed}");
    }
    assert!(!std::path::Path::new(&evidence).exists());
    Ok(())
}

#[tokio::test]
async fn the_pause_container_is_the_guests_own() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let evidence = folder.path().join("hook").display().to_string();
    let (agent, mut host) = Agent::ready().await?;
    host.agent("CreateContainer", &hostile(PAUSE, &[(TYPE, "sandbox")], &evidence)).await??;
    host.agent("StartContainer", &start(PAUSE)).await??;
    assert!(!std::path::Path::new(&evidence).exists());
    assert!(!agent.said().contains("the host was here"));
    Ok(())
}

#[tokio::test]
async fn storages_mount_nothing_anywhere() -> anyhow::Result<()> {
    let agent = Agent::start()?;
    let mut host = agent.host().await?;
    let mounts = || std::fs::read_to_string(format!("/proc/{}/mounts", agent.pid()));
    let before = mounts()?;
    for mount_point in ["/etc", "/proc", "/sys", "/dev", "/usr/bin", "/run", "/", "/run/tls-keys"] {
        for driver in ["local", "ephemeral", "blk", "virtio-fs", "overlayfs", "watchable-bind", "nvdimm"] {
            let mut request = sandbox();
            request.storages.push(postern_api::host::Storage {
                driver: driver.into(),
                source: "tmpfs".into(),
                fstype: "tmpfs".into(),
                mount_point: mount_point.into(),
            });
            assert_eq!(code(&host.agent("CreateSandbox", &request).await?), 3, "{driver} {mount_point}");
        }
    }
    assert_eq!(mounts()?, before);
    host.agent("CreateSandbox", &sandbox()).await??;
    let update = host.call(AGENT, "UpdateEphemeralMounts", Vec::new()).await?;
    assert_eq!(code(&update), 7);
    Ok(())
}
