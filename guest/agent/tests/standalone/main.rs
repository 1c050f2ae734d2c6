//! A real agent as an ordinary process, spoken to through the real tunnel. Needs root, as the agent does.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a rig that fails is a test that fails")]

mod containers;
mod door;
mod events;
mod lifecycle;
mod rig;
