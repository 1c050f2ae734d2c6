//! What the host endpoint may ask of the pod. Host ids are aliases: the pod knows containers by the owner's names only.

use std::net::IpAddr;

use postern_model::{ContainerName, ExitStatus, OperationKind};
use postern_policy::Permit;
use tokio::sync::broadcast;

use super::{PodError, PodHandle, command::Command};

/// A container id as the host's runtime makes it (64 hexadecimal digits, mostly): 1 to 128 of `A-Za-z0-9_.-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("host container id is not 1 to 128 characters of A-Z a-z 0-9 _ . -")]
pub struct BadHostId;

impl HostId {
    pub fn new(id: &str) -> Result<Self, BadHostId> {
        let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
        match (1..=128).contains(&id.len()) && id.bytes().all(legal) {
            true => Ok(Self(id.to_owned())),
            false => Err(BadHostId),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What one of the host's ids stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostTarget {
    /// The measured pause container.
    Pause,
    /// A container that the owner has declared.
    Declared(ContainerName),
}

/// The host's part in the sandbox, already checked field by field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SandboxConfig {
    pub hostname: Option<String>,
    pub dns: Vec<IpAddr>,
}

/// What the host learns of an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitClass {
    Success,
    Failure,
    /// Ended by a signal.
    Killed,
}

/// Counters over the whole pod. Whoever shows them to the host quantises them first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PodUsage {
    pub cpu_usage_nanos: u64,
    pub memory_bytes: u64,
}

/// Out-of-memory events from the moment of the call; every subscriber gets each.
#[derive(Debug)]
pub struct OomEvents {
    receiver: broadcast::Receiver<HostId>,
}

impl OomEvents {
    /// The next event of a container that the host knows; `None` when the pod has ended.
    pub async fn next(&mut self) -> Option<HostId> {
        loop {
            match self.receiver.recv().await {
                Ok(id) => return Some(id),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl From<ExitStatus> for ExitClass {
    fn from(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Exited(0) => Self::Success,
            ExitStatus::Exited(_) => Self::Failure,
            ExitStatus::Signalled(_) => Self::Killed,
        }
    }
}

impl PodHandle {
    /// Once: host name and DNS servers; moves the pod from booting to ready. Operation `CreateSandbox`.
    pub async fn configure_sandbox(&self, permit: Permit, config: SandboxConfig) -> Result<(), PodError> {
        self.ask(|reply| Command::ConfigureSandbox { permit, config, reply }).await
    }

    /// The measured pause container under the host's id. Operation `Pause`.
    pub async fn create_pause(&self, permit: Permit, id: HostId) -> Result<(), PodError> {
        self.ask(|reply| Command::CreatePause { permit, id, reply }).await
    }

    /// Creates what the owner has declared as `name`, by the owner's spec, known to the host as `id`. Operation `Trigger`.
    pub async fn trigger_create(
        &self,
        permit: Permit,
        id: HostId,
        name: ContainerName,
    ) -> Result<(), PodError> {
        self.ask(|reply| Command::TriggerCreate { permit, id, name, reply }).await
    }

    /// Starts what `id` stands for. Operation `Pause` or `Trigger`, as [`PodHandle::host_target`] says.
    pub async fn trigger_start(&self, permit: Permit, id: &HostId) -> Result<(), PodError> {
        self.ask(|reply| Command::TriggerStart { permit, id: id.clone(), reply }).await
    }

    /// The host would like it stopped: the pause container stops; for the owner's it becomes an event. Operation `RequestStop`.
    pub async fn request_stop(&self, permit: Permit, id: &HostId) -> Result<(), PodError> {
        self.ask(|reply| Command::RequestStop { permit, id: id.clone(), reply }).await
    }

    /// Forgets the host's id of something that has ended; what still runs is left alone. Operation `RequestStop`.
    pub async fn forget(&self, permit: Permit, id: &HostId) -> Result<(), PodError> {
        self.ask(|reply| Command::Forget { permit, id: id.clone(), reply }).await
    }

    /// Waits for the end of what `id` stands for, without reaping. Cancel by dropping. Operation `WaitSanitised`.
    pub async fn wait_sanitised(&self, permit: Permit, id: &HostId) -> Result<ExitClass, PodError> {
        self.check(&permit, OperationKind::WaitSanitised)?;
        let unknown = || PodError::NoSuchHostId(id.clone());
        match self.host_target(id).ok_or_else(unknown)? {
            HostTarget::Pause => {
                let exit = self.ask(|reply| Command::PauseExit { permit, reply }).await?;
                Ok(exit.wait().await.into())
            }
            HostTarget::Declared(name) => {
                let container = self.view().containers.get(&name).cloned().ok_or_else(unknown)?;
                Ok(container.live.ended().await.status.into())
            }
        }
    }

    /// CPU and memory of all containers together. Operation `StatsSanitised` or `Metrics`.
    pub async fn usage(&self, permit: Permit) -> Result<PodUsage, PodError> {
        let operation = match permit.operation() {
            OperationKind::Metrics => OperationKind::Metrics,
            _ => OperationKind::StatsSanitised,
        };
        self.check(&permit, operation)?;
        let mut usage = PodUsage::default();
        for name in self.view().containers.keys() {
            // One that ends between the two counts for nothing.
            if let Ok(stats) = self.runtime().stats(name).await {
                usage.cpu_usage_nanos = usage.cpu_usage_nanos.saturating_add(stats.cpu_usage_nanos);
                usage.memory_bytes = usage.memory_bytes.saturating_add(stats.memory_bytes);
            }
        }
        Ok(usage)
    }

    /// Operation `OomEvents`.
    pub fn oom_events(&self, permit: Permit) -> Result<OomEvents, PodError> {
        self.check(&permit, OperationKind::OomEvents)?;
        Ok(OomEvents { receiver: self.subscribe_oom() })
    }

    /// Ends the pod: every container, keys, then the guest. Returns when it is under way. Operation `DestroySandbox`.
    pub async fn destroy(&self, permit: Permit) -> Result<(), PodError> {
        self.ask(|reply| Command::End { permit, reply }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_and_plain() {
        assert!(HostId::new(&"a".repeat(64)).is_ok());
        for id in ["", "a/b", "..\0", "a b", &"a".repeat(129)] {
            assert_eq!(HostId::new(id), Err(BadHostId), "{id:?}");
        }
    }
}
