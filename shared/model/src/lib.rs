//! Domain types with their invariants: what a pod, a container, a caller and a digest *are*.
//!
//! The floor of the workspace: no I/O, no protobuf, no async. A value of one of these types is valid;
//! the only way in is fallible.

#![forbid(unsafe_code)]

pub mod audit;
pub mod authority;
pub mod container;
pub mod digest;
pub mod disk;
pub mod exit;
pub mod id;
pub mod image;
pub mod secret;
pub mod sim_device;

pub use audit::{AuditRecord, Verdict};
pub use authority::{Caller, OperationKind, Phase, Role};
pub use container::{ContainerSpec, ContainerState, Resources, RunUser};
pub use digest::{DigestError, HostData, Measurement, Sha256};
pub use disk::ImageDisk;
pub use exit::ExitStatus;
pub use id::{ContainerName, ExecId, IdError, PodName};
pub use image::{ImageReference, ReferenceError};
pub use secret::{HostProvided, Secret};
