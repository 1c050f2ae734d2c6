//! Which kernel options an image needs, found out before a pod boots.
//!
//! What a program does ([`stage`], [`strace`]) or could do ([`scan`]) is matched with a table of rules ([`rules`]) and becomes
//! [`findings`]: options, each with what needs it. [`compose`] makes a kernel profile of them, and [`check`] compares
//! them with a kernel.

pub mod check;
pub mod compose;
pub mod findings;
pub mod image;
pub mod kernel_config;
pub mod rules;
pub mod scan;
pub mod stage;
pub mod strace;
mod unpack;
