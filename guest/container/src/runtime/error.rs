//! What can go wrong, per operation. A [`Failure`] is what a worker or a container's process tells about itself.

use serde::{Deserialize, Serialize};

use crate::worker::WorkerError;

/// Why a process could not be run, in terms its owner can act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A step that failed for a reason outside the owner's request.
    pub(crate) fn system(step: &str, error: impl std::fmt::Display) -> Self {
        Self::new(FailureKind::System, format!("{step}: {error}"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The program is not there (a shell's 127).
    CommandNotFound,
    /// The program is there and cannot be executed (a shell's 126).
    CommandNotExecutable,
    /// No such user or group in the container.
    User,
    /// The working directory is missing, no directory, or leads out of the container.
    WorkingDirectory,
    /// A limit of the container (processes, memory) is reached.
    Limit,
    /// The path to copy from or to is missing or of the wrong kind.
    Path,
    /// The archive is broken, or holds what may not be unpacked.
    Archive,
    /// No space left.
    Space,
    /// The container has ended meanwhile.
    Ended,
    /// Anything else: a fault of the guest.
    System,
}

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("directory {0} cannot be used for container state")]
    StateDir(std::path::PathBuf, #[source] std::io::Error),
    #[error("worker program {0} cannot be opened")]
    Program(std::path::PathBuf, #[source] std::io::Error),
    #[error("control groups cannot be used")]
    Cgroups(#[source] std::io::Error),
    #[error("worker could not be started")]
    Worker(#[source] WorkerError),
}

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("container {0} exists already")]
    Exists(String),
    #[error("no containers are made any more; the pod is ending")]
    ShuttingDown,
    #[error("specification is not acceptable: {0}")]
    Unconfined(&'static str),
    #[error("state of the container could not be written")]
    State(#[source] std::io::Error),
    #[error("streams of the container could not be made")]
    Stdio(#[source] std::io::Error),
    #[error("worker failed")]
    Worker(#[source] WorkerError),
    #[error("container could not be created")]
    Refused(#[source] Failure),
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("no container is named {0}")]
    UnknownContainer(String),
    #[error("container {0} was started before")]
    AlreadyStarted(String),
    #[error("container could not be told to start")]
    Notify(#[source] std::io::Error),
    #[error("container did not start in time")]
    TimedOut,
    #[error("program of the container could not be executed")]
    Refused(#[source] Failure),
}

#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("no container is named {0}")]
    UnknownContainer(String),
    #[error("container {0} is not running")]
    NotRunning(String),
    #[error("container {0} is paused; unpause it first")]
    Paused(String),
    #[error("nothing to execute was given")]
    NoCommand,
    #[error("streams of the process could not be made")]
    Stdio(#[source] std::io::Error),
    #[error("worker failed")]
    Worker(#[source] WorkerError),
    #[error("command could not be executed")]
    Refused(#[source] Failure),
}

#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    #[error("no container is named {0}")]
    UnknownContainer(String),
    #[error("processes of the container did not end in time")]
    TimedOut,
    #[error("control group {path} could not be removed")]
    Cgroup { path: String, source: std::io::Error },
    #[error("state of the container could not be removed")]
    State(#[source] std::io::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    #[error("no container is named {0}")]
    UnknownContainer(String),
    #[error("container {0} is not running")]
    NotRunning(String),
    #[error("container {0} is not paused")]
    NotPaused(String),
    #[error("processes of the container could not be frozen or thawed")]
    Freeze(#[source] std::io::Error),
    #[error("processes of the container did not freeze or thaw in time")]
    TimedOut,
}

/// Of `stats` and `top`.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("no container is named {0}")]
    UnknownContainer(String),
    #[error("counters of the container could not be read")]
    Read(#[source] std::io::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("no container is named {0}")]
    UnknownContainer(String),
    #[error("the copy could not be set up")]
    SetUp(#[source] std::io::Error),
    #[error("worker failed")]
    Worker(#[source] WorkerError),
    #[error("copy failed")]
    Refused(#[source] Failure),
}
