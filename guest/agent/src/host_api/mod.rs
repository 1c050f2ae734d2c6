//! The host endpoint: Kata's agent protocol over ttRPC, reduced to a closed list and deny by default.
//!
//! ```text
//! frame -> server -> gate: table -> policy -> checks -> audit -> call -> pod
//!                      \-- refused: constant text, body unread --/
//! ```
//! [`server`] bounds what a hostile peer can cost; `table` names every method; `gate` decides and records before
//! anything happens; `calls` are what is left for the host to do.

mod calls;
mod gate;
mod sanitise;
mod server;
mod status;
mod table;

use std::sync::Arc;

pub use self::server::{HostListener, Limits};
use crate::{audit::Audit, init::network::NetworkConfigurator, pod::PodHandle};

/// What the host endpoint acts on.
#[derive(Debug, Clone)]
pub struct HostParts {
    pub pod: PodHandle,
    pub audit: Audit,
    pub network: Arc<dyn NetworkConfigurator>,
}

/// Serves the host until dropped, which ends every connection and call.
pub async fn serve(listener: HostListener, parts: HostParts, limits: Limits) {
    server::serve(listener, Arc::new(gate::Gate::new(parts)), limits).await;
}
