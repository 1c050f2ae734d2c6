//! The rig: what tests at the real boundary, the benchmarks and the demo share.
//!
//! Programs are found, not built, here ([`programs`]); everything a rig starts ends with the value that holds it.

pub mod agent;
pub mod archive;
pub mod home;
pub mod host;
pub mod host_endpoint;
pub mod lying_qemu;
pub mod owner;
pub mod process;
pub mod programs;
pub mod registry;
pub mod relay;
pub mod story;
mod sys;
pub mod terminal;
pub mod vm;
pub mod vsock_tap;
