//! The host's part of one pod: start its VM, plug in what it needs, count, end it. All of it untrusted by the pod.
//!
//! One supervisor process per pod ([`supervisor`]) owns QEMU and the helpers; they die with it. What it owns is written
//! down in the [`state`] directory, so that `stop` and `cleanup` work after a crash too. [`client`] speaks to the guest's
//! host endpoint. The `postern-host` program is a thin shell around this library.

pub mod bounded_log;
pub mod client;
pub mod exec;
pub mod kvm;
pub mod outcome;
pub mod probe;
pub mod process;
pub mod progress;
pub mod qmp;
pub mod state;
pub mod supervisor;
mod sys;
pub mod tools;
pub mod vsock;

pub use client::{HostClient, Status};
pub use outcome::Outcome;
pub use state::Home;
pub use vsock::VsockAddress;
