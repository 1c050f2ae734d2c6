//! One authenticated owner on one connection: who it is, and how it asks.

use std::{fmt, sync::Arc};

use postern_evidence::EvidenceSource;
use postern_model::{Caller, ContainerName, OperationKind, PodName};
use postern_policy::{Declared, Permit, decide};
use postern_tunnel::server::Peer;
use tonic::Status;

use super::status;
use crate::{audit::Audit, clock, init::Stamps, pod::PodHandle};

/// What every session needs.
pub struct Shared {
    pub name: PodName,
    pub pod: PodHandle,
    pub audit: Audit,
    pub evidence: Arc<dyn EvidenceSource>,
    pub boot: Stamps,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One connection's peer. The tunnel has checked its certificate; what it may do is decided per call.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: Arc<Peer>,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, peer: Peer) -> Self {
        Self { shared, peer: Arc::new(peer) }
    }

    pub(super) fn pod(&self) -> &PodHandle {
        &self.shared.pod
    }

    /// Leave for one act, or the answer no. A certificate lasts no longer because its connection does.
    pub(super) fn permit(&self, operation: OperationKind) -> Result<Permit, Status> {
        if clock::unix_millis() / 1000 > self.peer.not_after {
            return Err(Status::unauthenticated(
                "the client certificate has expired; connect again with a new one",
            ));
        }
        decide(Caller::Owner(self.peer.role), operation, self.pod().phase(), Declared::No)
            .map_err(|denial| status::denied(&denial))
    }
}

/// The name of a container as it stands in a request.
pub(super) fn container(name: String) -> Result<ContainerName, Status> {
    ContainerName::new(name).map_err(|error| status::invalid(&error))
}
