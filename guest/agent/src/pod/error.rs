//! Why the pod did not do what it was asked.

use std::{error::Error, io};

use postern_model::{ContainerName, ContainerState, OperationKind};
use postern_policy::Denial;
use postern_rootfs::{RemoveError, ResolveError};

use super::HostId;

/// Sorted by fault: refused; not there or not possible now; failed in a layer below; our own.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    #[error(transparent)]
    Denied(#[from] Denial),
    #[error("the host has no container {}", .0.as_str())]
    NoSuchHostId(HostId),
    #[error("no container {0} in this pod; `postern ps -a` lists them")]
    NoSuchContainer(ContainerName),
    #[error(transparent)]
    Image(#[from] ResolveError),
    #[error(transparent)]
    RemoveImage(#[from] RemoveError),
    #[error("container {0} exists already; remove it first or take another name")]
    Exists(ContainerName),
    #[error("the host uses this id for another container")]
    HostIdTaken,
    #[error("the sandbox is configured already")]
    SandboxConfigured,
    #[error("container {container} is {}; {advice}", state.as_str())]
    WrongState { container: ContainerName, state: ContainerState, advice: &'static str },
    #[error("container {container} is being {doing} at this moment; try again")]
    Busy { container: ContainerName, doing: &'static str },
    #[error("the pod holds {limit} {what} already; remove some first")]
    TooMany { what: &'static str, limit: usize },
    #[error(
        "the image needs kernel options that this pod's kernel lacks: {}; create the pod with a kernel that has them", .0.join(" ")
    )]
    KernelLacks(Vec<String>),
    #[error("{0}")]
    Invalid(&'static str),
    #[error("signal {0} does not exist; signals are 1 to 64")]
    BadSignal(u32),
    #[error("container {container} did not end within {seconds} s of SIGKILL")]
    Unkillable { container: ContainerName, seconds: u64 },
    #[error("nothing answers on port {port} of the pod")]
    Port { port: u16, source: io::Error },
    #[error("{doing} failed")]
    Failed { doing: &'static str, source: Box<dyn Error + Send + Sync> },
    #[error("undoing the first steps failed too ({undo}) after: {error}")]
    Undo {
        #[source]
        error: Box<PodError>,
        undo: Box<dyn Error + Send + Sync>,
    },
    #[error("the permit is for {found}, not for {expected}")]
    WrongPermit { expected: OperationKind, found: OperationKind },
    #[error("the pod has ended")]
    Ended,
}

impl PodError {
    /// A failure of a layer below, told as what was being done.
    pub(crate) fn failed<E>(doing: &'static str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        move |source| Self::Failed { doing, source: source.into() }
    }
}
