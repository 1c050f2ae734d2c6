//! Something of the owner's to protect: an image made on the spot, and containers of it.

use postern_api::owner::{
    ApplyRequest, ContainerSpec, CreateRequest, Exit, LogsRequest, StartRequest, WaitRequest,
};

use super::{raw::Host, rig::Agent};
use crate::{archive::ImageRecipe, owner::Door};

pub const IMAGE: &str = "busybox:test";

/// A container of the test image that runs `script`.
pub fn shell(name: &str, script: &str) -> ContainerSpec {
    ContainerSpec {
        name: name.into(),
        image: IMAGE.into(),
        args: ["sh", "-c", script].map(String::from).to_vec(),
        ..Default::default()
    }
}

/// Pushes the test image.
pub async fn push(door: &Door) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("image.tar");
    ImageRecipe::busybox(IMAGE).write_oci_archive(&path)?;
    Ok(door.push(std::fs::read(path)?, IMAGE).await?)
}

/// Creates and starts a container.
pub async fn run(door: &Door, spec: ContainerSpec) -> anyhow::Result<()> {
    let container = spec.name.clone();
    door.containers().create(CreateRequest { spec: Some(spec) }).await?;
    door.containers().start(StartRequest { container }).await?;
    Ok(())
}

/// An owned pod in which `web` runs `script`.
pub async fn running(script: &str) -> anyhow::Result<(Agent, Host, Door)> {
    let (agent, host, door) = Agent::owned().await?;
    push(&door).await?;
    run(&door, shell("web", script)).await?;
    Ok((agent, host, door))
}

/// An owned pod with `web` declared, and possibly the host's to start.
pub async fn declared(script: &str, host_may_start: bool) -> anyhow::Result<(Agent, Host, Door)> {
    let (agent, host, door) = Agent::owned().await?;
    push(&door).await?;
    let spec = ContainerSpec { host_may_start, ..shell("web", script) };
    door.pod().apply(ApplyRequest { containers: vec![spec] }).await?;
    Ok((agent, host, door))
}

/// How a container ends.
pub async fn exit(door: &Door, container: &str) -> anyhow::Result<Exit> {
    let wait = WaitRequest { container: container.into() };
    Ok(door.containers().wait(wait).await?.into_inner().exit.unwrap_or_default())
}

/// What a container has printed until it ended.
pub async fn printed(door: &Door, container: &str) -> anyhow::Result<String> {
    let logs = LogsRequest { container: container.into(), follow: true, ..Default::default() };
    let mut logs = door.containers().logs(logs).await?.into_inner();
    let mut printed = Vec::new();
    while let Some(piece) = logs.message().await? {
        printed.extend_from_slice(&piece.data);
    }
    Ok(String::from_utf8_lossy(&printed).into_owned())
}

/// Waits until a line of a running container's output is `line`.
pub async fn until_printed(door: &Door, container: &str, line: &str) -> anyhow::Result<()> {
    let logs = LogsRequest { container: container.into(), follow: true, ..Default::default() };
    let mut logs = door.containers().logs(logs).await?.into_inner();
    let mut printed = Vec::new();
    while let Some(piece) = logs.message().await? {
        printed.extend_from_slice(&piece.data);
        if String::from_utf8_lossy(&printed).lines().any(|printed| printed == line) {
            return Ok(());
        }
    }
    anyhow::bail!("{container} ended without printing {line:?}")
}
