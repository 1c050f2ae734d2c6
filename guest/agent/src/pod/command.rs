//! What the driver is asked, and what the work it started tells it back.

use postern_container::Process;
use postern_model::{ContainerName, ContainerSpec, ContainerState};
use postern_policy::Permit;
use tokio::sync::oneshot;

use super::{Exit, HostId, PodError, SandboxConfig, engine::Made};

/// Where the answer to one command goes.
pub(super) type Reply<T = ()> = oneshot::Sender<Result<T, PodError>>;

/// Changes of state. Reading needs no command: everybody has the view.
#[derive(Debug)]
pub(super) enum Command {
    ConfigureSandbox {
        permit: Permit,
        config: SandboxConfig,
        reply: Reply,
    },
    CreatePause {
        permit: Permit,
        id: HostId,
        reply: Reply,
    },
    TriggerCreate {
        permit: Permit,
        id: HostId,
        name: ContainerName,
        reply: Reply,
    },
    TriggerStart {
        permit: Permit,
        id: HostId,
        reply: Reply,
    },
    RequestStop {
        permit: Permit,
        id: HostId,
        reply: Reply,
    },
    Forget {
        permit: Permit,
        id: HostId,
        reply: Reply,
    },
    Apply {
        permit: Permit,
        specs: Vec<ContainerSpec>,
        reply: Reply<Vec<ContainerName>>,
    },
    Create {
        permit: Permit,
        spec: Box<ContainerSpec>,
        reply: Reply,
    },
    Start {
        permit: Permit,
        name: ContainerName,
        reply: Reply,
    },
    Remove {
        permit: Permit,
        name: ContainerName,
        removal: Removal,
        reply: Reply,
    },
    Freeze {
        permit: Permit,
        name: ContainerName,
        freeze: Freeze,
        reply: Reply,
    },
    /// How the pause container ends.
    PauseExit {
        permit: Permit,
        reply: Reply<postern_container::Exit>,
    },
    Handover {
        permit: Permit,
        reply: Reply<bool>,
    },
    End {
        permit: Permit,
        reply: Reply,
    },
    /// This process was told to end.
    ShutDown,
}

/// What to do with a container that has not ended when it is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    OnlyEnded,
    KillFirst,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freeze {
    Pause,
    Unpause,
}

/// What a piece of work has come to.
#[derive(Debug)]
pub(super) enum Done {
    Created {
        name: ContainerName,
        result: Result<Box<Made>, PodError>,
        reply: Reply,
    },
    Started {
        name: ContainerName,
        result: Result<(), PodError>,
        reply: Reply,
    },
    Frozen {
        name: ContainerName,
        to: ContainerState,
        result: Result<(), PodError>,
        reply: Reply,
    },
    /// The kernel killed a process of this run because memory ran out.
    OutOfMemory {
        name: ContainerName,
        run: u64,
    },
    /// The first process of this run has ended, and its output is in the log.
    Exited {
        name: ContainerName,
        run: u64,
        exit: Exit,
    },
    Removed {
        name: ContainerName,
        result: Result<(), PodError>,
        reply: Option<Reply>,
    },
    PauseCreated {
        id: HostId,
        result: Result<Process, PodError>,
        reply: Reply,
    },
}
