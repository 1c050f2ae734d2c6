//! The tunnel: TLS 1.3 with both sides authenticated, the guest by its evidence, the owner by a certificate.
//!
//! ```text
//! owner                                             guest
//!   |---- ClientHello ------------------------------->|
//!   |<--- certificate with evidence over its key -----|   chain, TCB, measurement, host data, key binding
//!   |---- client certificate ------------------------>|   owner CA, purpose, role, validity
//!   |---- nonce ------------------------------------->|
//!   |<--- evidence over nonce and TLS exporter -------|   session binding, this instance
//!   |==== HTTP/2 =====================================|
//! ```
//! Any byte stream carries it. The owner's certificate is not sent before the guest has passed its checks, and no
//! request before the session has.

#![forbid(unsafe_code)]

pub mod client;
mod extension;
pub mod guest;
pub mod identity;
mod instance;
mod provider;
pub mod server;
pub mod wire;

#[cfg(test)]
mod tests;

pub use client::{Attested, ClientStream, ConnectError, Expectation, ExpectedInstance, connect};
pub use guest::{GuestIdentity, GuestIdentityError};
pub use identity::{ClientIdentity, IdentityError, OwnerCa, Validity};
pub use instance::{InstanceKey, InstanceKeyError};
pub use server::{AcceptError, Acceptor, AcceptorError, Peer, ServerStream};
