//! gRPC for the calls that carry bytes in bulk (exec, attach, cp): the same bytes on the wire as the generated
//! clients and servers produce, without their copies of the payload.
//!
//! A generated encoder writes each message into a buffer of its own, and a generated decoder gathers what comes in
//! another. Here a payload leaves as the `Bytes` it is, behind a few bytes that announce it, and arrives as a slice of
//! the HTTP/2 frame that brought it.

mod client;
mod incoming;
mod outgoing;

use bytes::Bytes;
use prost::Message;

pub use self::{
    client::Client,
    incoming::Incoming,
    outgoing::{Outgoing, answer},
};
use crate::owner::{
    CopyInRequest, CopyInResponse, CopyOutRequest, CopyOutResponse, ProcessInput, ProcessOutput,
    copy_in_request, copy_out_response, process_input, process_output,
};

/// A payload below this is copied: a frame of its own would cost more.
const WORTHWHILE: usize = 1024;

/// A message that is either small, or its payload and nothing else.
pub trait Bulk: Message + Default + 'static {
    /// The payload, if the message is of that kind: its only field, or the one set of its only `oneof`.
    fn payload(&mut self) -> Option<&mut Bytes>;
}

impl Bulk for ProcessInput {
    fn payload(&mut self) -> Option<&mut Bytes> {
        match &mut self.kind {
            Some(process_input::Kind::Stdin(data)) => Some(data),
            _ => None,
        }
    }
}

impl Bulk for ProcessOutput {
    fn payload(&mut self) -> Option<&mut Bytes> {
        match &mut self.kind {
            Some(process_output::Kind::Stdout(data) | process_output::Kind::Stderr(data)) => Some(data),
            _ => None,
        }
    }
}

impl Bulk for CopyInRequest {
    fn payload(&mut self) -> Option<&mut Bytes> {
        match &mut self.kind {
            Some(copy_in_request::Kind::Data(data)) => Some(data),
            _ => None,
        }
    }
}

impl Bulk for CopyOutResponse {
    fn payload(&mut self) -> Option<&mut Bytes> {
        match &mut self.kind {
            Some(copy_out_response::Kind::Data(data)) => Some(data),
            _ => None,
        }
    }
}

impl Bulk for CopyInResponse {
    fn payload(&mut self) -> Option<&mut Bytes> {
        None
    }
}

impl Bulk for CopyOutRequest {
    fn payload(&mut self) -> Option<&mut Bytes> {
        None
    }
}

#[cfg(test)]
mod tests;
