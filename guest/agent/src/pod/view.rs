//! What the driver shows to everybody: a snapshot, replaced whole whenever something changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use postern_container::{Process, ProcessInput, Signal, Terminal};
use postern_model::{ContainerName, ContainerSpec, ContainerState, ExitStatus, Phase, Sha256};
use tokio::sync::{Mutex, watch};

use super::{HostId, HostTarget, log::Log};

/// The pod at one moment.
#[derive(Debug, Clone)]
pub struct PodView {
    pub phase: Phase,
    pub hostname: String,
    pub containers: BTreeMap<ContainerName, Arc<ContainerView>>,
    /// Containers of the owner that a host's trigger may start.
    pub triggerable: BTreeSet<ContainerName>,
    /// What the host's own ids stand for.
    pub host_ids: BTreeMap<HostId, HostTarget>,
}

/// One container at one moment.
#[derive(Debug, Clone)]
pub struct ContainerView {
    pub spec: Arc<ContainerSpec>,
    pub image_digest: Sha256,
    /// What its first process runs.
    pub command: Arc<[String]>,
    /// What the image wants to be stopped by.
    pub stop_signal: Signal,
    pub state: ContainerState,
    pub created_unix_millis: u64,
    pub started_unix_millis: Option<u64>,
    pub exited_unix_millis: Option<u64>,
    /// Set while exited.
    pub exit: Option<Exit>,
    /// Set while it has a process.
    pub pid: Option<u32>,
    /// OCI runtime configuration as it is carried out, JSON.
    pub oci_config: Arc<str>,
    pub live: Arc<Live>,
}

/// What streams and waits hold on to, however the container's state moves.
#[derive(Debug)]
pub struct Live {
    pub log: Arc<Log>,
    /// How it ended; nothing while it has not, or is started again.
    pub(crate) exit: watch::Sender<Option<Exit>>,
    pub(crate) stdin: SharedInput,
    pub(crate) run: std::sync::Mutex<Option<Run>>,
}

/// Standard input that several writers take turns at; `None` once it is closed.
pub(crate) type SharedInput = Arc<Mutex<Option<ProcessInput>>>;

/// The first process of a container that runs.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) process: Process,
    pub(crate) terminal: Option<Terminal>,
}

impl Live {
    pub(crate) fn run(&self) -> Option<Run> {
        self.run.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// The end of the run that is under way, or of the last one.
    pub(crate) async fn ended(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        let ended = exit.wait_for(Option::is_some).await.map(|exit| *exit);
        // The sender is `self.exit`, so the wait does not fail; if it did, the container would be gone.
        ended.ok().flatten().unwrap_or(Exit { status: ExitStatus::Signalled(9), oom_killed: false })
    }

    pub(crate) fn set_run(&self, run: Option<Run>) {
        *self.run.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = run;
    }
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    pub status: ExitStatus,
    /// The kernel killed it, or a process of it, because its memory was used up.
    pub oom_killed: bool,
}
