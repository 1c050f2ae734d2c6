//! The rig: what tests at the real boundary, the benchmarks and the demo share.
//!
//! Programs are found, not built, here ([`programs`]); everything a rig starts ends with the value that holds it.

pub mod archive;
pub mod process;
pub mod programs;
pub mod registry;
