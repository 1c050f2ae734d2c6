//! The owner's endpoint: `postern.v1` over HTTP/2 inside the attested tunnel.
//!
//! [`server`] accepts and bounds connections; a [`session`] is one authenticated peer; [`service`] names every method
//! and hands it to the file of that method, which decodes, authorizes, submits and encodes; [`bulk`] does so for those
//! that carry bytes in bulk. [`status`] is the one place where errors become gRPC codes.

mod apply;
mod attach;
mod attest;
mod audit;
mod bulk;
mod copy;
mod create;
mod events;
mod exec;
mod handover;
mod images;
mod inspect;
mod inspect_pod;
mod lifecycle;
mod list;
mod logs;
mod port_forward;
mod process;
mod release;
mod server;
mod service;
mod session;
mod stats;
mod status;
mod top;
mod wait;
mod wire;

pub use server::{Endpoint, serve};
pub use session::Shared;
