//! Why the pod did not do what it was asked.

use postern_model::ContainerName;
use postern_policy::Denial;

use super::HostId;

/// Sorted by fault: refused, asked for something that is not there or not possible now, failed below, our own end.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    #[error("refused")]
    Denied(#[from] Denial),
    #[error("no container {0}")]
    NoSuchContainer(ContainerName),
    #[error("the host has no container with that id")]
    NoSuchHostId(HostId),
    #[error("the sandbox is configured already")]
    SandboxConfigured,
    #[error("container {0} exists already")]
    Exists(ContainerName),
    #[error("the pod has ended")]
    Ended,
}
