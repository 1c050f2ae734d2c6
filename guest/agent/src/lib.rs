//! The guest agent: PID 1 of a confidential pod, or an ordinary process in namespaces of its own.
//!
//! Two endpoints, one pod behind them: [`host_api`] is the closed list of what the host may ask, [`owner_api`] is the
//! owner's door inside the attested tunnel. Both go through `postern-policy` and hand a `Permit` to [`pod`].

#![deny(unsafe_code)]

pub mod agent;
pub mod audit;
pub mod clock;
pub mod config;
pub mod guest;
pub mod host_api;
pub mod hygiene;
pub mod identity;
pub mod init;
pub mod owner_api;
pub mod pod;
pub mod runtime;
pub mod standalone;
mod sys;
pub mod system;
