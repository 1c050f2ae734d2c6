//! A ttRPC client for the guest's host endpoint. Calls on one connection run concurrently; each has a deadline.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use postern_api::{
    host::{TtrpcResponse, TtrpcStatus},
    ttrpc::{FrameKind, HEADER_LENGTH, Header, MAX_BODY, request_frame},
};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::vsock::{GuestStream, VsockAddress};

/// Service that most methods belong to.
pub const AGENT_SERVICE: &str = "grpc.AgentService";
pub const HEALTH_SERVICE: &str = "grpc.Health";

/// Calls in flight on one connection.
const MAX_CALLS: usize = 1024;
/// Frames waiting to be written.
const WRITE_QUEUE: usize = 16;
/// Pause between attempts to connect.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How a call failed: what the guest answered, or what became of the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} ({code}): {message}", self.name())]
pub struct Status {
    /// `google.rpc.Code`.
    pub code: i32,
    pub message: String,
}

impl Status {
    pub const DEADLINE_EXCEEDED: i32 = 4;
    pub const RESOURCE_EXHAUSTED: i32 = 8;
    pub const UNAVAILABLE: i32 = 14;

    fn unavailable(message: impl Into<String>) -> Self {
        Self { code: Self::UNAVAILABLE, message: message.into() }
    }

    /// The code's name in `google/rpc/code.proto`.
    pub fn name(&self) -> &'static str {
        match self.code {
            0 => "OK",
            1 => "CANCELLED",
            2 => "UNKNOWN",
            3 => "INVALID_ARGUMENT",
            4 => "DEADLINE_EXCEEDED",
            5 => "NOT_FOUND",
            6 => "ALREADY_EXISTS",
            7 => "PERMISSION_DENIED",
            8 => "RESOURCE_EXHAUSTED",
            9 => "FAILED_PRECONDITION",
            10 => "ABORTED",
            11 => "OUT_OF_RANGE",
            12 => "UNIMPLEMENTED",
            13 => "INTERNAL",
            14 => "UNAVAILABLE",
            15 => "DATA_LOSS",
            16 => "UNAUTHENTICATED",
            _ => "no such code",
        }
    }
}

/// Nobody answered at the guest's host endpoint.
#[derive(Debug, thiserror::Error)]
#[error("the guest's host endpoint did not answer within {} s", within.as_secs())]
pub struct ConnectError {
    within: Duration,
    /// How the last attempt failed.
    source: io::Error,
}

/// One connection to a guest's host endpoint. Needs a tokio runtime.
#[derive(Debug)]
pub struct HostClient {
    frames: mpsc::Sender<Vec<u8>>,
    calls: Arc<Calls>,
    next_stream: AtomicU32,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl HostClient {
    /// Connects to `port`. Tries again until `within` is over: before the agent listens, a connection is refused, reset,
    /// closed or left without an answer, and none of these means that it will never listen.
    pub async fn connect(address: &VsockAddress, port: u32, within: Duration) -> Result<Self, ConnectError> {
        let deadline = Instant::now() + within;
        loop {
            let source = match address.open(port).await {
                Ok(stream) => return Ok(Self::over(stream)),
                Err(error) => error,
            };
            if Instant::now() + RETRY_PAUSE >= deadline {
                return Err(ConnectError { within, source });
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// A client on a stream that is connected already.
    pub fn over(stream: Box<dyn GuestStream>) -> Self {
        let (read, write) = tokio::io::split(stream);
        let (frames, queue) = mpsc::channel(WRITE_QUEUE);
        let calls = Arc::new(Calls::default());
        Self {
            frames,
            next_stream: AtomicU32::new(1),
            reader: tokio::spawn(read_answers(read, Arc::clone(&calls))),
            writer: tokio::spawn(write_frames(write, queue, Arc::clone(&calls))),
            calls,
        }
    }

    /// Calls `service/method` and waits at most `timeout` for the answer.
    pub async fn call(
        &self,
        service: &str,
        method: &str,
        payload: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, Status> {
        // Clients use odd stream numbers (containerd/ttrpc, PROTOCOL.md).
        let stream = self.next_stream.fetch_add(2, Ordering::Relaxed);
        let nanos = i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX);
        let frame = request_frame(stream, service, method, payload, nanos);
        let answer = self.calls.register(stream)?;
        let exchange = async {
            let closed = || Status::unavailable("the connection to the guest is closed");
            self.frames.send(frame).await.map_err(|_| closed())?;
            answer.await.unwrap_or_else(|_| Err(closed()))
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(result) => result,
            Err(_) => {
                self.calls.forget(stream);
                let message = format!("no answer to {service}/{method} within {} ms", timeout.as_millis());
                Err(Status { code: Status::DEADLINE_EXCEEDED, message })
            }
        }
    }

    /// [`Self::call`] with messages.
    pub async fn request<A: Message + Default>(
        &self,
        service: &str,
        method: &str,
        request: &impl Message,
        timeout: Duration,
    ) -> Result<A, Status> {
        let answer = self.call(service, method, request.encode_to_vec(), timeout).await?;
        A::decode(answer.as_slice())
            .map_err(|_| Status { code: 13, message: format!("the guest's answer to {method} is malformed") })
    }
}

impl Drop for HostClient {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

type Answer = Result<Vec<u8>, Status>;

/// Calls that wait for an answer; after the end of the connection, why there will be none.
#[derive(Debug, Default)]
struct Calls(Mutex<CallTable>);

#[derive(Debug, Default)]
struct CallTable {
    waiting: HashMap<u32, oneshot::Sender<Answer>>,
    ended: Option<Status>,
}

impl Calls {
    fn table(&self) -> MutexGuard<'_, CallTable> {
        // Nothing panics while it holds the lock, and a half-done change of a map is still a map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, stream: u32) -> Result<oneshot::Receiver<Answer>, Status> {
        let mut table = self.table();
        if let Some(status) = &table.ended {
            return Err(status.clone());
        }
        if table.waiting.len() >= MAX_CALLS {
            let message = format!("more than {MAX_CALLS} calls wait on one connection");
            return Err(Status { code: Status::RESOURCE_EXHAUSTED, message });
        }
        let (sender, receiver) = oneshot::channel();
        table.waiting.insert(stream, sender);
        Ok(receiver)
    }

    fn forget(&self, stream: u32) {
        self.table().waiting.remove(&stream);
    }

    /// An answer nobody waits for any more is dropped.
    fn answer(&self, stream: u32, answer: Answer) {
        if let Some(sender) = self.table().waiting.remove(&stream) {
            let _ = sender.send(answer);
        }
    }

    fn end(&self, status: Status) {
        let mut table = self.table();
        for (_, sender) in table.waiting.drain() {
            let _ = sender.send(Err(status.clone()));
        }
        table.ended.get_or_insert(status);
    }
}

async fn write_frames(
    mut stream: WriteHalf<Box<dyn GuestStream>>,
    mut queue: mpsc::Receiver<Vec<u8>>,
    calls: Arc<Calls>,
) {
    while let Some(frame) = queue.recv().await {
        if let Err(error) = stream.write_all(&frame).await {
            calls.end(Status::unavailable(format!("the connection to the guest broke: {error}")));
            return;
        }
    }
}

async fn read_answers(mut stream: ReadHalf<Box<dyn GuestStream>>, calls: Arc<Calls>) {
    loop {
        match read_frame(&mut stream).await {
            Ok((stream, answer)) => calls.answer(stream, answer),
            Err(error) => {
                calls.end(Status::unavailable(format!("the connection to the guest ended: {error}")));
                return;
            }
        }
    }
}

async fn read_frame(stream: &mut ReadHalf<Box<dyn GuestStream>>) -> io::Result<(u32, Answer)> {
    let mut header = [0; HEADER_LENGTH];
    stream.read_exact(&mut header).await?;
    let header = Header::decode(&header);
    let malformed = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    if header.kind != FrameKind::Response {
        return Err(malformed("the guest sent a frame that is no answer"));
    }
    let length = header.length as usize;
    if length > MAX_BODY {
        return Err(malformed("the guest sent a frame larger than ttRPC allows"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let response =
        TtrpcResponse::decode(body.as_slice()).map_err(|_| malformed("the guest sent a malformed frame"))?;
    let answer = match response.status {
        Some(TtrpcStatus { code, message }) if code != 0 => Err(Status { code, message }),
        _ => Ok(response.payload),
    };
    Ok((header.stream, answer))
}

#[cfg(test)]
mod tests;
