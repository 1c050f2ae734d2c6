//! Messages on their way out, as an HTTP body.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use prost::encoding::{encode_varint, encoded_len_varint};
use tonic::{
    Status,
    body::Body,
    codegen::{
        http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE},
        tokio_stream::Stream,
    },
};

use super::{Bulk, WORTHWHILE};

/// Before each message: not compressed, and how long it is (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;
pub(super) const CONTENT: HeaderValue = HeaderValue::from_static("application/grpc");

/// Who sends: a server says in trailers how the call ended, a client just ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// A stream of messages as a body.
#[derive(Debug)]
pub struct Outgoing<S> {
    messages: S,
    /// Goes out next, behind the head that was sent last.
    payload: Option<Bytes>,
    side: Side,
    ended: bool,
}

/// The response that sends `messages`, and then how it went.
pub fn answer<M, S>(messages: S) -> Response<Body>
where
    M: Bulk,
    S: Stream<Item = Result<M, Status>> + Send + Unpin + 'static,
{
    let mut response = Response::new(Body::new(Outgoing::new(messages, Side::Server)));
    response.headers_mut().insert(CONTENT_TYPE, CONTENT);
    response
}

impl<S> Outgoing<S> {
    pub(super) fn new(messages: S, side: Side) -> Self {
        Self { messages, payload: None, side, ended: false }
    }

    fn end(&mut self, status: Status) -> Option<Result<Frame<Bytes>, Status>> {
        self.ended = true;
        match self.side {
            Side::Client if status.code() == tonic::Code::Ok => None,
            Side::Client => Some(Err(status)),
            Side::Server => {
                let mut trailers = HeaderMap::new();
                Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers)))
            }
        }
    }
}

impl<M, S> HttpBody for Outgoing<S>
where
    M: Bulk,
    S: Stream<Item = Result<M, Status>> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(payload) = self.payload.take() {
            return Poll::Ready(Some(Ok(Frame::data(payload))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let encoded = match ready!(Pin::new(&mut self.messages).poll_next(cx)) {
            Some(message) => message.and_then(encode),
            None => return Poll::Ready(self.end(Status::ok(""))),
        };
        Poll::Ready(match encoded {
            Ok((head, payload)) => {
                self.payload = payload;
                Some(Ok(Frame::data(head)))
            }
            Err(status) => self.end(status),
        })
    }
}

/// A message as it goes on the wire, its payload apart if that is worth it.
pub(super) fn encode<M: Bulk>(mut message: M) -> Result<(Bytes, Option<Bytes>), Status> {
    let worthwhile = |payload: &&mut Bytes| payload.len() >= WORTHWHILE;
    let payload = message.payload().filter(worthwhile).map(std::mem::take);
    let rest = message.encoded_len();
    let mut head = BytesMut::with_capacity(PREFIX + rest + encoded_len_varint(u64::MAX));
    head.put_bytes(0, PREFIX);
    // Never too small: a BytesMut grows.
    message.encode(&mut head).map_err(|error| Status::internal(error.to_string()))?;
    let mut length = rest;
    if let Some(payload) = &payload {
        // What is encoded now is the field's tag and a length of nothing: the right one takes its place.
        head.truncate(head.len() - 1);
        encode_varint(payload.len() as u64, &mut head);
        length = head.len() - PREFIX + payload.len();
    }
    let length = u32::try_from(length).map_err(|_| Status::internal("a message is too long"))?;
    head[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    Ok((head.freeze(), payload))
}
