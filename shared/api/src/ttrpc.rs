//! ttRPC framing: a ten-byte header and a protobuf body (containerd/ttrpc, PROTOCOL.md).
//!
//! Written here rather than taken from the `ttrpc` crate because the guest's gate must see a method's name, refuse it
//! and put it in the audit *before* the body is decoded, unknown names included. No I/O: bytes in, bytes out.

use prost::Message;

use crate::{
    host::{TtrpcRequest, TtrpcResponse, TtrpcStatus},
    wire::{Fields, Malformed, Value},
};

pub const HEADER_LENGTH: usize = 10;
/// Largest body: 4 MiB, as every ttRPC implementation has it.
pub const MAX_BODY: usize = 4 << 20;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    Request,
    Response,
    /// Streaming data, which no method of the host protocol uses, or a type that does not exist.
    Other(u8),
}

/// The header of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes that follow. Not yet compared with [`MAX_BODY`].
    pub length: u32,
    pub stream: u32,
    pub kind: FrameKind,
    pub flags: u8,
}

impl Header {
    pub fn decode(bytes: &[u8; HEADER_LENGTH]) -> Self {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let kind = match bytes[8] {
            1 => FrameKind::Request,
            2 => FrameKind::Response,
            other => FrameKind::Other(other),
        };
        Self { length: word(0), stream: word(4), kind, flags: bytes[9] }
    }

    pub fn encode(self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[..4].copy_from_slice(&self.length.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.stream.to_be_bytes());
        bytes[8] = match self.kind {
            FrameKind::Request => 1,
            FrameKind::Response => 2,
            FrameKind::Other(other) => other,
        };
        bytes[9] = self.flags;
        bytes
    }
}

/// A request as it came in, borrowed. The payload is not decoded, metadata is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Envelope<'a> {
    pub service: &'a str,
    pub method: &'a str,
    pub payload: &'a [u8],
    /// Zero or less: no deadline.
    pub timeout_nano: i64,
}

impl<'a> Envelope<'a> {
    /// Reads a whole request body.
    ///
    /// # Errors
    /// The body is not a protobuf message, or a name in it is not UTF-8.
    pub fn decode(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut envelope = Self::default();
        for field in Fields::new(body) {
            envelope.set(field?)?;
        }
        Ok(envelope)
    }

    /// Reads as much as stands in the beginning of a body: what follows the first field that is cut short is missing.
    pub fn peek(beginning: &'a [u8]) -> Self {
        let mut envelope = Self::default();
        for field in Fields::new(beginning).map_while(Result::ok) {
            if envelope.set(field).is_err() {
                break;
            }
        }
        envelope
    }

    fn set(&mut self, (number, value): (u32, Value<'a>)) -> Result<(), Malformed> {
        match number {
            1 => self.service = value.text()?,
            2 => self.method = value.text()?,
            3 => self.payload = value.bytes()?,
            4 => self.timeout_nano = value.integer()?.cast_signed(),
            _ => {}
        }
        Ok(())
    }
}

/// A whole request frame.
pub fn request_frame(
    stream: u32,
    service: &str,
    method: &str,
    payload: Vec<u8>,
    timeout_nano: i64,
) -> Vec<u8> {
    let request = TtrpcRequest {
        service: service.to_owned(),
        method: method.to_owned(),
        payload,
        timeout_nano,
        metadata: Vec::new(),
    };
    frame(stream, FrameKind::Request, &request)
}

/// A whole response frame: a payload, or a `google.rpc.Code` and a message.
pub fn response_frame(stream: u32, outcome: Result<Vec<u8>, (i32, String)>) -> Vec<u8> {
    let response = match outcome {
        Ok(payload) => {
            TtrpcResponse { status: Some(TtrpcStatus { code: 0, message: String::new() }), payload }
        }
        Err((code, message)) => {
            TtrpcResponse { status: Some(TtrpcStatus { code, message }), payload: Vec::new() }
        }
    };
    frame(stream, FrameKind::Response, &response)
}

fn frame(stream: u32, kind: FrameKind, body: &impl Message) -> Vec<u8> {
    let length = body.encoded_len();
    let header = Header { length: u32::try_from(length).unwrap_or(u32::MAX), stream, kind, flags: 0 };
    let mut frame = Vec::with_capacity(HEADER_LENGTH + length);
    frame.extend_from_slice(&header.encode());
    // A Vec grows as needed, so encoding into it cannot fail.
    let _ = body.encode(&mut frame);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_survives() {
        let header = Header { length: 7, stream: 3, kind: FrameKind::Request, flags: 0 };
        assert_eq!(Header::decode(&header.encode()), header);
        assert_eq!(header.encode(), [0, 0, 0, 7, 0, 0, 0, 3, 1, 0]);
    }

    #[test]
    fn a_request_frame_reads_back() {
        let frame = request_frame(1, "grpc.Health", "Check", vec![1, 2], 5);
        let header = Header::decode(frame[..HEADER_LENGTH].try_into().unwrap());
        assert_eq!(header.length as usize, frame.len() - HEADER_LENGTH);
        let request = TtrpcRequest::decode(&frame[HEADER_LENGTH..]).unwrap();
        assert_eq!((request.service.as_str(), request.method.as_str()), ("grpc.Health", "Check"));
        assert_eq!(request.payload, [1, 2]);
        let envelope = Envelope::decode(&frame[HEADER_LENGTH..]).unwrap();
        let expected =
            Envelope { service: "grpc.Health", method: "Check", payload: &[1, 2], timeout_nano: 5 };
        assert_eq!(envelope, expected);
    }

    #[test]
    fn the_beginning_of_a_large_request_names_its_method() {
        let frame = request_frame(1, "grpc.AgentService", "CopyFile", vec![7; 1 << 20], 0);
        let envelope = Envelope::peek(&frame[HEADER_LENGTH..4096]);
        assert_eq!((envelope.service, envelope.method), ("grpc.AgentService", "CopyFile"));
        assert!(Envelope::decode(&frame[HEADER_LENGTH..4096]).is_err());
    }

    #[test]
    fn names_must_be_text() {
        assert!(Envelope::decode(&[0x0a, 1, 0xff]).is_err());
        assert!(Envelope::decode(&[0x08, 1]).is_err());
    }

    proptest! {
        #[test]
        fn reading_never_panics(body in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = Envelope::decode(&body);
            let _ = Envelope::peek(&body);
        }

        #[test]
        fn agrees_with_the_generated_decoder(body in prop::collection::vec(0u8..48, 0..24)) {
            if let (Ok(ours), Ok(theirs)) = (Envelope::decode(&body), TtrpcRequest::decode(&body[..])) {
                prop_assert_eq!(ours.service, theirs.service);
                prop_assert_eq!(ours.method, theirs.method);
                prop_assert_eq!(ours.payload, theirs.payload);
                prop_assert_eq!(ours.timeout_nano, theirs.timeout_nano);
            }
        }
    }
}
