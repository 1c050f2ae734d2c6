//! The same bytes as the generated code, in any cut.

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use prost::Message;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{http::HeaderMap, tokio_stream},
};

use super::{
    incoming::{Frames, Incoming},
    outgoing::{Outgoing, Side, encode},
    *,
};
use crate::owner::{CopyInBegin, Exit};

fn data(bytes: &[u8]) -> CopyInRequest {
    CopyInRequest { kind: Some(copy_in_request::Kind::Data(Bytes::copy_from_slice(bytes))) }
}

fn begin() -> CopyInRequest {
    let begin = CopyInBegin { container: "web".into(), directory: "/srv".into(), preserve_owner: true };
    CopyInRequest { kind: Some(copy_in_request::Kind::Begin(begin)) }
}

/// As any other implementation of gRPC has it.
fn reference(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    framed.extend(body);
    framed
}

fn encoded<M: Bulk>(message: M) -> Vec<u8> {
    let (head, payload) = encode(message).unwrap();
    [&head[..], payload.as_deref().unwrap_or_default()].concat()
}

/// A body of these frames, and trailers.
struct Cut(std::vec::IntoIter<Frame<Bytes>>);

impl HttpBody for Cut {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Status>>> {
        std::task::Poll::Ready(self.0.next().map(Ok))
    }
}

fn cut(bytes: &[u8], size: usize, status: Option<Status>) -> Body {
    let mut frames: Vec<_> = bytes.chunks(size).map(|cut| Frame::data(Bytes::copy_from_slice(cut))).collect();
    if let Some(status) = status {
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).unwrap();
        frames.push(Frame::trailers(trailers));
    }
    Body::new(Cut(frames.into_iter()))
}

#[test]
fn the_wire_is_that_of_the_generated_code() {
    for size in [0, 1, 127, 128, WORTHWHILE - 1, WORTHWHILE, 16_383, 16_384, 1 << 18, (1 << 21) + 1] {
        let payload = vec![7; size];
        assert_eq!(encoded(data(&payload)), reference(&data(&payload)), "{size}");
        let stdout = || ProcessOutput { kind: Some(process_output::Kind::Stdout(payload.clone().into())) };
        assert_eq!(encoded(stdout()), reference(&stdout()), "{size}");
        let stderr = || ProcessOutput { kind: Some(process_output::Kind::Stderr(payload.clone().into())) };
        assert_eq!(encoded(stderr()), reference(&stderr()), "{size}");
        let stdin = || ProcessInput { kind: Some(process_input::Kind::Stdin(payload.clone().into())) };
        assert_eq!(encoded(stdin()), reference(&stdin()), "{size}");
        let out = || CopyOutResponse { kind: Some(copy_out_response::Kind::Data(payload.clone().into())) };
        assert_eq!(encoded(out()), reference(&out()), "{size}");
    }
    assert_eq!(encoded(begin()), reference(&begin()));
    let exit = || ProcessOutput { kind: Some(process_output::Kind::Exit(Exit::default())) };
    assert_eq!(encoded(exit()), reference(&exit()));
    assert_eq!(encoded(CopyInRequest::default()), reference(&CopyInRequest::default()));
}

#[tokio::test]
async fn messages_are_found_in_any_cut() {
    let messages = [begin(), data(&[1; 5000]), data(&[]), data(&[2; 3]), CopyInRequest::default()];
    let wire: Vec<u8> = messages.iter().flat_map(reference).collect();
    for size in [1, 2, 4, 5, 6, 7, 100, 4096, wire.len()] {
        let mut incoming = Incoming::<CopyInRequest>::request(cut(&wire, size, None), 1 << 20);
        for message in &messages {
            assert_eq!(incoming.message().await.unwrap().as_ref(), Some(message), "{size}");
        }
        assert_eq!(incoming.message().await.unwrap(), None);
        assert_eq!(incoming.message().await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_payload_in_one_frame_is_not_copied() {
    let payload = Bytes::from(vec![7; 1 << 16]);
    let kind = Some(copy_in_request::Kind::Data(payload.clone()));
    let (head, apart) = encode(CopyInRequest { kind }).unwrap();
    let frames = vec![Frame::data(head), Frame::data(apart.unwrap())];
    let mut incoming = Incoming::<CopyInRequest>::request(Body::new(Cut(frames.into_iter())), 1 << 20);
    let Some(copy_in_request::Kind::Data(arrived)) = incoming.message().await.unwrap().unwrap().kind else {
        panic!("not data");
    };
    assert_eq!(arrived.as_ptr(), payload.as_ptr());
}

#[test]
fn frames_of_a_byte_cost_no_more_than_their_bytes() {
    let mut frames = Frames::default();
    for _ in 0..1 << 20 {
        frames.push(Bytes::from_static(b"x"));
    }
    assert_eq!(frames.pieces(), 1);
    frames.push(Bytes::from(vec![7; WORTHWHILE]));
    frames.push(Bytes::from_static(b"x"));
    assert_eq!(frames.pieces(), 3);
}

#[tokio::test]
async fn broken_streams_are_refused() {
    let refused = async |wire: Vec<u8>, limit| {
        let mut incoming = Incoming::<CopyInRequest>::request(cut(&wire, 3, None), limit);
        incoming.message().await.unwrap_err().code()
    };
    let whole = reference(&data(&[7; 100]));
    assert_eq!(refused(whole[..whole.len() - 1].to_vec(), 1000).await, Code::Internal, "cut short");
    assert_eq!(refused(whole[..3].to_vec(), 1000).await, Code::Internal, "cut in the prefix");
    assert_eq!(refused(whole.clone(), 99).await, Code::OutOfRange, "too long");
    let mut compressed = whole.clone();
    compressed[0] = 1;
    assert_eq!(refused(compressed, 1000).await, Code::Unimplemented, "compressed");
    assert_eq!(refused(vec![0, 0, 0, 0, 2, 0xff, 0xff], 1000).await, Code::Internal, "no protobuf");
    // A length inside that leads out of the message, with another message behind it.
    let mut inside = whole.clone();
    inside[6] = 120;
    inside.extend(&whole);
    assert_eq!(refused(inside, 1000).await, Code::Internal, "longer than its message");
}

#[tokio::test]
async fn an_answer_needs_its_status() {
    let wire = reference(&CopyOutResponse::default());
    let answers = |status| Incoming::<CopyOutResponse>::response(cut(&wire, 100, status), 1000);
    let mut well = answers(Some(Status::ok("")));
    assert!(well.message().await.unwrap().is_some());
    assert!(well.message().await.unwrap().is_none());
    let mut badly = answers(Some(Status::data_loss("half")));
    assert!(badly.message().await.unwrap().is_some());
    assert_eq!(badly.message().await.unwrap_err().message(), "half");
    assert!(badly.message().await.unwrap().is_none());
    let mut broken = answers(None);
    assert!(broken.message().await.unwrap().is_some());
    assert_eq!(broken.message().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_failure_ends_a_response_in_its_trailers() {
    let messages = tokio_stream::iter([Ok(data(&[7; 4096])), Err(Status::not_found("gone"))]);
    let body = Body::new(Outgoing::new(messages, Side::Server));
    let mut incoming = Incoming::<CopyInRequest>::response(body, 1 << 20);
    assert_eq!(incoming.message().await.unwrap(), Some(data(&[7; 4096])));
    let status = incoming.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "gone"));
}
