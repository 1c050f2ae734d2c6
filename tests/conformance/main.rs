//! The host endpoint as its peers know it: Kata's shims and `kata-agent-ctl` on the wire, frame by frame and through an
//! independent ttRPC implementation.

mod containers;
mod lifecycle;
mod peer;
mod wire;

use postern_tests::host_endpoint::{kata, raw, rig, workload};
