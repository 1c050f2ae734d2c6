//! The measured pause container: the one thing the host may run. It holds nothing and does nothing but sleep.

use postern_container::Process;
use postern_model::ContainerName;

/// The runtime's name for it; no owner's container may have it.
const NAME: &str = "postern-pause";

/// Where it is in its life.
#[derive(Debug)]
pub(super) struct Pause {
    name: ContainerName,
    pub(super) state: PauseState,
}

#[derive(Debug)]
pub(super) enum PauseState {
    Absent,
    Making,
    Created { process: Process },
    Started { process: Process },
}

impl Pause {
    pub(super) fn new() -> Option<Self> {
        Some(Self { name: ContainerName::new(NAME).ok()?, state: PauseState::Absent })
    }

    pub(super) fn name(&self) -> &ContainerName {
        &self.name
    }

    /// Its process, if it has one.
    pub(super) fn process(&self) -> Option<&Process> {
        match &self.state {
            PauseState::Absent | PauseState::Making => None,
            PauseState::Created { process } | PauseState::Started { process } => Some(process),
        }
    }
}
