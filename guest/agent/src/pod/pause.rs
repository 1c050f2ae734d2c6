//! The measured pause container: the one thing the host may run. It holds nothing and does nothing but sleep.

use postern_container::Process;
use postern_model::ContainerName;

/// The runtime's name for it; no owner's container may have it.
const NAME: &str = "postern-pause";
/// A second one, which is made and removed once; see `Engine::rehearse`.
const REHEARSAL: &str = "postern-rehearsal";

/// Where it is in its life.
#[derive(Debug)]
pub(super) struct Pause {
    name: ContainerName,
    rehearsal: ContainerName,
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
        let name = |name: &str| ContainerName::new(name).ok();
        Some(Self { name: name(NAME)?, rehearsal: name(REHEARSAL)?, state: PauseState::Absent })
    }

    pub(super) fn name(&self) -> &ContainerName {
        &self.name
    }

    pub(super) fn rehearsal(&self) -> &ContainerName {
        &self.rehearsal
    }

    /// Whether `name` is none that an owner's container can have.
    pub(super) fn has_name(&self, name: &ContainerName) -> bool {
        *name == self.name || *name == self.rehearsal
    }

    /// Its process, if it has one.
    pub(super) fn process(&self) -> Option<&Process> {
        match &self.state {
            PauseState::Absent | PauseState::Making => None,
            PauseState::Created { process } | PauseState::Started { process } => Some(process),
        }
    }
}
