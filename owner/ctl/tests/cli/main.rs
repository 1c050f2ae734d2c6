//! The real `postern` against the real agent, run as an ordinary process on a simulated platform: what a user sees, types
//! and gets back.

#![allow(clippy::expect_used, reason = "a rig that cannot be set up fails its test")]

mod apply;
mod copy;
mod endpoints;
mod exec;
mod failures;
mod host_program;
mod lifecycle;
mod logs;
mod push;
mod rig;
mod roles;
mod run;
mod terminal;
mod verify;
