//! The pod: one driver task owns its state, everybody else holds a [`PodHandle`].
//!
//! ```text
//! owner_api --+                 +--> tasks (create, start, remove, ...) --+
//!             +-- Command ----> driver <-------------- Done --------------+
//! host_api ---+   (bounded)     |
//!             <---- watch ------+  PodView: phase, containers, declared names, host ids
//! ```
//! Everything asked of the pod carries a `postern_policy::Permit`, and is decided once more here, because the phase may
//! have moved on. Byte streams (stdio, archives, images) never pass through the driver.

mod apply;
mod command;
mod container;
mod driver;
mod engine;
mod error;
mod events;
mod exec;
mod handle;
mod host;
mod images;
mod kernel;
mod lifecycle;
mod log;
mod output;
mod pause;
mod streams;
mod teardown;
mod triggers;
mod view;

pub(crate) use output::Piece;
pub(crate) use view::SharedInput;

pub use command::Removal;
pub use engine::{Directories, Engine};
pub use error::PodError;
pub use events::{Event, EventHub};
pub use handle::{ContainerSample, PodHandle, PodStatus};
pub use host::{BadHostId, ExitClass, HostId, HostTarget, OomEvents, PodUsage, SandboxConfig};
pub use log::{Chunk, From as LogFrom, Reader as LogReader, Stream as LogStream};
pub use streams::{Attachment, Wanted};
pub use view::{ContainerView, Exit, PodView};
