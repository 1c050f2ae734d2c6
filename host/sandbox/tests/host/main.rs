//! `postern-host` as its users meet it: a program with exit codes. QEMU and the vsock helper are the real ones unless a test
//! is about theirs; the guests are a few bytes of machine code that never answer, because what a guest that does answer is
//! good for is the end-to-end tests' to say.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, which clippy does not see as tests

mod crash;
mod input;
mod pool;
mod rig;
mod silent;
mod tools;
