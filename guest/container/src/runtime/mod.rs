//! The containers of one pod, from the side of the program that runs them.
//!
//! ```text
//! create --> created --start--> running <--pause/unpause--> paused
//!               \------------------+------ ends ------> ended --delete--> gone
//! ```
//! All calls may run concurrently. None blocks the caller's thread for longer than a file-system call takes.

mod copy;
mod error;
mod types;

use std::sync::Arc;

use postern_model::ContainerName;

pub use self::{
    copy::{CopyIn, CopyInOptions, CopyOut, CopyOutOptions, CopySummary},
    error::{
        CopyError, CreateError, DeleteError, ExecError, Failure, FailureKind, InspectError, PauseError, RuntimeError,
        StartError,
    },
    types::{
        CreateContainer, Created, ExecProcess, Init, ProcessInfo, RuntimeConfig, Stats, Target,
    },
};
use crate::{
    io::Stdio,
    process::{Signal, SignalError},
    reaper::Reaper,
};

/// Clones share the containers.
#[derive(Debug, Clone)]
pub struct Runtime {
    _config: Arc<RuntimeConfig>,
    _reaper: Reaper,
}

impl Runtime {
    /// Opens the state directory and starts the first worker. Needs a tokio runtime.
    pub fn new(config: RuntimeConfig, reaper: Reaper) -> Result<Self, RuntimeError> {
        Ok(Self { _config: Arc::new(config), _reaper: reaper })
    }

    /// Makes the container up to the point where its command would run.
    pub async fn create(&self, container: CreateContainer) -> Result<Created, CreateError> {
        Err(CreateError::Exists(container.id.to_string()))
    }

    /// Lets the container's command run; returns when it does.
    pub async fn start(&self, id: &ContainerName) -> Result<(), StartError> {
        Err(StartError::UnknownContainer(id.to_string()))
    }

    /// Runs a further process in a running container; returns when it runs.
    pub async fn exec(&self, id: &ContainerName, process: ExecProcess, stdio: Stdio) -> Result<Created, ExecError> {
        let _ = (process, stdio);
        Err(ExecError::UnknownContainer(id.to_string()))
    }

    pub fn signal(&self, id: &ContainerName, signal: Signal, target: Target) -> Result<(), SignalError> {
        let _ = (signal, target);
        Err(SignalError::UnknownContainer(id.to_string()))
    }

    /// Kills what still runs and removes every trace but the root file system.
    pub async fn delete(&self, id: &ContainerName) -> Result<(), DeleteError> {
        Err(DeleteError::UnknownContainer(id.to_string()))
    }

    pub async fn pause(&self, id: &ContainerName) -> Result<(), PauseError> {
        Err(PauseError::UnknownContainer(id.to_string()))
    }

    pub async fn unpause(&self, id: &ContainerName) -> Result<(), PauseError> {
        Err(PauseError::UnknownContainer(id.to_string()))
    }

    /// Counters; after the end of the container the last ones, until `delete`.
    pub async fn stats(&self, id: &ContainerName) -> Result<Stats, InspectError> {
        Err(InspectError::UnknownContainer(id.to_string()))
    }

    pub async fn top(&self, id: &ContainerName) -> Result<Vec<ProcessInfo>, InspectError> {
        Err(InspectError::UnknownContainer(id.to_string()))
    }

    /// Kills every container and removes every trace of this runtime. For the end of the pod.
    pub async fn shut_down(&self) {}
}
