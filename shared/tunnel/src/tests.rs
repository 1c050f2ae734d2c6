//! The tunnel end to end: honest, relayed, lied to, refused, stalled. One file per kind of adversary.

mod fixture;
mod hostile_client;
mod hostile_guest;
mod relay;
mod stalled;
mod story;
