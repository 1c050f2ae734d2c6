//! What the driver shows to everybody: a snapshot, replaced whole whenever something changes.

use std::collections::{BTreeMap, BTreeSet};

use postern_model::{ContainerName, ContainerState, Phase};

use super::{HostId, HostTarget};

/// The pod at one moment.
#[derive(Debug, Clone)]
pub struct PodView {
    pub phase: Phase,
    pub hostname: String,
    pub containers: BTreeMap<ContainerName, ContainerView>,
    /// Containers of the owner's manifest that a host's trigger may start.
    pub triggerable: BTreeSet<ContainerName>,
    /// What the host's own ids stand for.
    pub host_ids: BTreeMap<HostId, HostTarget>,
}

/// One container at one moment, as far as others decide by it.
#[derive(Debug, Clone)]
pub struct ContainerView {
    pub state: ContainerState,
}
