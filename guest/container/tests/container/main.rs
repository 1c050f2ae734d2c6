//! Real containers, from the outside: what runs in them, what holds them in, what is left when they are gone.
//!
//! Needs root, control groups and a static busybox (Debian's busybox-static). Without them each test says so and passes.

// A test stops at the first surprise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod confinement;
mod copy;
mod execution;
mod faults;
mod life;
mod limits;
mod load;
mod streams;
#[allow(dead_code)]
mod support;
