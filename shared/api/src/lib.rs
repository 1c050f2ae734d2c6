//! The two wire protocols and nothing behind them: `owner` (postern.v1 over gRPC) and `host` (what is left of Kata's
//! agent protocol over ttRPC).
//!
//! Wire types stop at the first function: [`convert`] turns them into `postern-model` types, with one error per broken
//! field. [`bulk`] carries what is large without copying it. [`metadata`] names what a status carries besides its text. [`ttrpc`] is the host protocol's framing.

pub mod bulk;
pub mod convert;
pub mod metadata;
pub mod ttrpc;
pub mod wire;

/// `postern.v1`, generated from `proto/owner.proto`.
#[allow(missing_debug_implementations, unreachable_pub, clippy::all)]
pub mod owner {
    tonic::include_proto!("postern.v1");
}

/// Kata's agent protocol, the part that is left, generated from `proto/host.proto`.
#[allow(missing_debug_implementations, unreachable_pub, clippy::all)]
pub mod host {
    include!(concat!(env!("OUT_DIR"), "/grpc.rs"));
}
