//! The pod: one driver task owns its state, everybody else holds a [`PodHandle`].
//!
//! ```text
//! owner_api --+                 +--> worker tasks (create, start, stop, ...) --+
//!             +-- Command ----> driver <------------- Event ------------------+
//! host_api ---+   (bounded)     |
//!             <---- watch ------+  PodView: phase, containers, declared names
//! ```
//! Every command that changes anything carries a `postern_policy::Permit`; the driver decides once more when the phase
//! has moved on since. Byte streams (stdio, archives, images) never pass through the driver.

mod error;
mod host;
mod view;

pub use error::PodError;
pub use host::{ExitClass, HostId, HostTarget, OomEvents, PodUsage, SandboxConfig};
pub use view::{ContainerView, PodView};

/// Asks the one pod of this guest. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PodHandle {
    view: tokio::sync::watch::Receiver<std::sync::Arc<PodView>>,
}

impl PodHandle {
    /// Where the pod is in its life.
    pub fn phase(&self) -> postern_model::Phase {
        self.view.borrow().phase
    }

    /// The pod at this moment.
    pub fn view(&self) -> std::sync::Arc<PodView> {
        self.view.borrow().clone()
    }

    /// Whether the owner's manifest lets the host trigger `name`.
    pub fn is_triggerable(&self, name: &postern_model::ContainerName) -> bool {
        self.view.borrow().triggerable.contains(name)
    }

    /// What the host's `id` stands for.
    pub fn host_target(&self, id: &HostId) -> Option<HostTarget> {
        self.view.borrow().host_ids.get(id).cloned()
    }
}
