//! What conformance and attack tests of the host endpoint share: a host that speaks frame by frame, requests as a shim
//! makes them, an agent in the phase that is wanted, and a workload to protect.

pub mod kata;
pub mod raw;
pub mod rig;
pub mod workload;
