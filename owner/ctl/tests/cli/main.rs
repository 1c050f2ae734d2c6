//! The real `postern` against the real agent, run as an ordinary process on a simulated platform: what a user sees, types
//! and gets back.

mod apply;
mod copy;
mod endpoints;
mod exec;
mod failures;
mod lifecycle;
mod logs;
mod rig;
mod roles;
mod run;
mod terminal;
mod verify;
