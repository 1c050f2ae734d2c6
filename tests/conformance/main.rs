//! The host endpoint as its peers know it: Kata's shims and `kata-agent-ctl` on the wire, frame by frame and through an
//! independent ttRPC implementation.

mod containers;
mod kata;
mod lifecycle;
mod peer;
mod raw;
mod rig;
mod wire;
mod workload;
