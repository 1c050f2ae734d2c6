//! An agent in the phase a test wants, and what its owner sees of it.

use std::{process::ExitStatus, time::Duration};

use anyhow::ensure;
use postern_api::{
    host,
    owner::{AuditRecord, AuditRequest, HandoverRequest, InspectPodRequest, InspectPodResponse},
};
use postern_model::Role;

use super::raw::Host;
use crate::{agent, owner::Door};

/// How long an agent may take to end once it was told to.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running agent. Ends with the value.
#[derive(Debug)]
pub struct Agent {
    agent: agent::Agent,
}

impl Agent {
    /// An agent in `Booting`.
    pub fn start() -> anyhow::Result<Self> {
        Ok(Self { agent: agent::Agent::start()? })
    }

    /// An agent in `Ready`, and the connection that made it so.
    pub async fn ready() -> anyhow::Result<(Self, Host)> {
        let agent = Self::start()?;
        let mut host = agent.host().await?;
        host.agent("CreateSandbox", &sandbox()).await??;
        Ok((agent, host))
    }

    /// An agent in `Owned`, the host's connection and the owner's.
    pub async fn owned() -> anyhow::Result<(Self, Host, Door)> {
        let (agent, host) = Self::ready().await?;
        let door = agent.door().await?;
        ensure!(door.pod().handover(HandoverRequest {}).await?.into_inner().changed);
        Ok((agent, host, door))
    }

    pub async fn host(&self) -> anyhow::Result<Host> {
        Host::connect(self.agent.host_socket()).await
    }

    /// The owner's tunnel, as admin.
    pub async fn door(&self) -> anyhow::Result<Door> {
        self.agent.owner.connect(self.agent.address).await
    }

    /// The owner's tunnel, with a certificate of this role.
    pub async fn door_as(&self, role: Role) -> anyhow::Result<Door> {
        let identity = self.agent.owner.identity(role)?;
        Ok(self.agent.owner.connect_as(&identity, self.agent.address).await?)
    }

    /// Where the host endpoint listens, as a ttRPC client writes it.
    pub fn url(&self) -> String {
        format!("unix://{}", self.agent.host_socket().display())
    }

    /// Takes what the agent has printed; all of it can be seen by the host.
    pub fn said(&self) -> String {
        self.agent.said()
    }

    pub fn pid(&self) -> u32 {
        self.agent.pid()
    }

    /// Waits for the agent to end.
    pub fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        self.agent.wait(PATIENCE)
    }
}

/// What a shim sends first.
pub fn sandbox() -> host::CreateSandboxRequest {
    host::CreateSandboxRequest {
        hostname: "honest".into(),
        dns: vec!["10.0.2.3".into()],
        sandbox_id: "5".repeat(64),
        ..Default::default()
    }
}

/// Everything in the audit at this moment.
pub async fn audit(door: &Door) -> anyhow::Result<Vec<AuditRecord>> {
    let mut stream = door.pod().audit(AuditRequest { from: 0, follow: false }).await?.into_inner();
    let mut records = Vec::new();
    while let Some(record) = stream.message().await? {
        records.push(record);
    }
    Ok(records)
}

/// How often the audit has `method` with `verdict`.
pub async fn audited(door: &Door, method: &str, verdict: &str) -> anyhow::Result<u64> {
    let records = audit(door).await?;
    let matching = records.iter().filter(|record| record.method == method && record.verdict == verdict);
    Ok(matching.map(|record| record.repeated).sum())
}

pub async fn inspect(door: &Door) -> anyhow::Result<InspectPodResponse> {
    Ok(door.pod().inspect(InspectPodRequest {}).await?.into_inner())
}
