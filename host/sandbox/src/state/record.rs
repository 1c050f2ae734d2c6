//! What is written down of one pod.

use std::path::PathBuf;

use postern_launch::PodShape;
use postern_model::{HostData, Measurement, PodName};
use serde::{Deserialize, Serialize};

use crate::{process::ProcessId, vsock::VsockAddress};

/// Version of `state.json`.
const FORMAT: u32 = 1;

/// What a pod is doing, as its record and its lock say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PodStatus {
    Starting,
    Running,
    /// Ended in order; its logs are kept until it is removed.
    Ended,
    /// Its supervisor is gone without having cleaned up.
    Crashed,
}

impl PodStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Ended => "ended",
            Self::Crashed => "crashed",
        }
    }
}

/// The contents of `state.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodRecord {
    pub format: u32,
    pub name: PodName,
    /// As the supervisor last wrote it; see [`Pod::status`] for what is.
    pub status: PodStatus,
    pub created_unix_millis: u64,
    pub supervisor: ProcessId,
    pub children: Vec<ChildRecord>,
    pub image: PathBuf,
    pub shape: PodShape,
    /// Digest of the init data the guest was given.
    pub host_data: HostData,
    /// What the simulated platform measured of the running QEMU.
    pub measurement: Option<Measurement>,
    /// Where the owner's endpoint is reached: `tcp://ADDRESS:PORT`.
    pub endpoint: Option<String>,
    /// Where the guest's vsock is reached.
    pub vsock: Option<VsockAddress>,
    /// Milliseconds per stage of the start.
    pub boot_millis: Vec<(String, u64)>,
    /// Why it ended.
    pub end: Option<String>,
}

/// A process that belongs to a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChildRecord {
    pub role: String,
    pub process: ProcessId,
}

impl PodRecord {
    pub fn new(
        name: PodName,
        supervisor: ProcessId,
        image: PathBuf,
        shape: PodShape,
        host_data: HostData,
    ) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self {
            format: FORMAT,
            name,
            status: PodStatus::Starting,
            created_unix_millis: crate::progress::millis(now),
            supervisor,
            children: Vec::new(),
            image,
            shape,
            host_data,
            measurement: None,
            endpoint: None,
            vsock: None,
            boot_millis: Vec::new(),
            end: None,
        }
    }
}
