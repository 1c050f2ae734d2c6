//! A simulated SNP platform, for machines without one: genuine formats, a root of its own, no protection.
//!
//! It plays the secure processor: it measures what is launched, and signs 1184-byte SNP reports with a P-384 key
//! whose chain ends in a root made on this machine. Everything after that root is what a verifier meets on real
//! hardware. Every certificate says SIMULATED, and no verifier trusts the root unless its owner says so.
//!
//! It judges nothing, and links nothing that does.

#![forbid(unsafe_code)]

pub mod danger;
mod measure;
mod platform;
mod report;
mod server;
mod storage;
mod table;

pub use measure::{MeasureError, measure_process};
pub use platform::{GuestContext, Launch, Platform, PlatformError};
pub use report::Tcb;
pub use server::{SimServer, serve};
