//! The way into a pod: dial an endpoint, verify what answers, speak gRPC over it.

mod channel;
mod endpoint;
mod session;
mod status;
mod verify;

pub(crate) use endpoint::{Endpoint, EndpointError};
pub(crate) use session::{Intent, Owner, Session};
pub(crate) use status::Subject;
pub(crate) use verify::{Plan, Verified, VerifyError, hint};
