//! Messages on their way in, cut out of the frames of an HTTP body.

use std::{collections::VecDeque, future::poll_fn, marker::PhantomData, pin::Pin};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::Body as HttpBody;
use tonic::{Code, Status, body::Body};

use super::{Bulk, WORTHWHILE, outgoing::Side};

/// Before each message: whether it is compressed, and how long it is.
const PREFIX: usize = 5;

/// Messages as they come. Holds no more than one message and what its last frame brought beside it.
#[derive(Debug)]
pub struct Incoming<M> {
    body: Body,
    side: Side,
    limit: usize,
    frames: Frames,
    /// Length of the message whose prefix has been read.
    next: Option<usize>,
    ended: bool,
    message: PhantomData<fn() -> M>,
}

impl<M: Bulk> Incoming<M> {
    /// What a client sends, in messages of at most `limit` bytes.
    pub fn request(body: Body, limit: usize) -> Self {
        Self::new(body, Side::Server, limit)
    }

    /// What a server answers.
    pub(super) fn response(body: Body, limit: usize) -> Self {
        Self::new(body, Side::Client, limit)
    }

    fn new(body: Body, side: Side, limit: usize) -> Self {
        let frames = Frames::default();
        Self { body, side, limit, frames, next: None, ended: false, message: PhantomData }
    }

    /// The next message; none after the end or an error. Cancel-safe.
    pub async fn message(&mut self) -> Result<Option<M>, Status> {
        if self.ended {
            return Ok(None);
        }
        let result = self.next_message().await;
        self.ended = !matches!(result, Ok(Some(_)));
        result
    }

    async fn next_message(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(message) = self.decode()? {
                return Ok(Some(message));
            }
            let Some(frame) = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await else {
                return self.end(None);
            };
            match frame?.into_data() {
                Ok(data) => self.frames.push(data),
                // What a client says behind its messages is nobody's business.
                Err(_) if self.side == Side::Server => return self.end(None),
                Err(other) => {
                    let trailers = other.into_trailers().unwrap_or_default();
                    return self.end(Status::from_header_map(&trailers));
                }
            }
        }
    }

    /// A message, if all of it is here.
    fn decode(&mut self) -> Result<Option<M>, Status> {
        let length = match self.next {
            Some(length) => length,
            None if self.frames.remaining() < PREFIX => return Ok(None),
            None => {
                self.frames.gather();
                if self.frames.get_u8() != 0 {
                    return Err(Status::unimplemented("messages are not compressed here"));
                }
                let length = self.frames.get_u32() as usize;
                if length > self.limit {
                    let limit = self.limit;
                    let error = format!("a message of {length} bytes is longer than the {limit} allowed");
                    return Err(Status::out_of_range(error));
                }
                *self.next.insert(length)
            }
        };
        if self.frames.remaining() < length {
            return Ok(None);
        }
        self.next = None;
        self.frames.gather();
        let message = M::decode((&mut self.frames).take(length));
        message.map(Some).map_err(|error| Status::internal(format!("a message cannot be read: {error}")))
    }

    fn end(&self, status: Option<Status>) -> Result<Option<M>, Status> {
        match (self.side, status) {
            (_, Some(status)) if status.code() != Code::Ok => Err(status),
            (Side::Client, None) => Err(Status::unavailable("the answer ends without saying how it went")),
            _ if self.next.is_some() || self.frames.has_remaining() => {
                Err(Status::internal("the stream ends in the middle of a message"))
            }
            _ => Ok(None),
        }
    }
}

/// Frames in a row. None is empty, and none is small: one costs more than a few bytes, and a sender could make a message of
/// millions.
#[derive(Debug, Default)]
pub(super) struct Frames {
    frames: VecDeque<Bytes>,
    /// Small frames behind those, put together until somebody reads.
    small: BytesMut,
    length: usize,
}

impl Frames {
    pub(super) fn push(&mut self, frame: Bytes) {
        self.length += frame.len();
        if frame.len() < WORTHWHILE {
            self.small.extend_from_slice(&frame);
        } else {
            self.gather();
            self.frames.push_back(frame);
        }
    }

    /// Before reading.
    fn gather(&mut self) {
        if !self.small.is_empty() {
            self.frames.push_back(std::mem::take(&mut self.small).freeze());
        }
    }

    #[cfg(test)]
    pub(super) fn pieces(&self) -> usize {
        self.frames.len() + usize::from(!self.small.is_empty())
    }
}

impl Buf for Frames {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.frames.front().map_or(&[], |frame| frame)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.length, "advanced past the end");
        self.length -= count;
        while let Some(front) = self.frames.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.frames.pop_front();
        }
    }

    /// Without a copy where one frame holds it all.
    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        assert!(count <= self.length, "copied past the end");
        match self.frames.front_mut() {
            Some(front) if front.len() > count => {
                self.length -= count;
                front.split_to(count)
            }
            Some(front) if front.len() == count => {
                self.length -= count;
                self.frames.pop_front().unwrap_or_default()
            }
            _ => {
                let mut gathered = BytesMut::with_capacity(count);
                gathered.put(self.take(count));
                gathered.freeze()
            }
        }
    }
}
