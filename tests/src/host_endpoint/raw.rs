//! A host that speaks ttRPC frame by frame, and any other bytes it likes.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use postern_api::{
    host::TtrpcResponse,
    ttrpc::{HEADER_LENGTH, Header, request_frame},
};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

pub const AGENT: &str = "grpc.AgentService";
pub const HEALTH: &str = "grpc.Health";

/// Longer than any honest answer takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A failure as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("code {code}: {message}")]
pub struct Refused {
    pub code: i32,
    pub message: String,
}

/// Payload or failure.
pub type Outcome = Result<Vec<u8>, Refused>;

/// One connection to the host endpoint.
#[derive(Debug)]
pub struct Host {
    stream: UnixStream,
    next: u32,
}

impl Host {
    pub async fn connect(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { stream: UnixStream::connect(path).await?, next: 1 })
    }

    /// Calls a method of the agent's service and waits for its answer.
    pub async fn agent(&mut self, method: &str, request: &impl Message) -> anyhow::Result<Outcome> {
        self.call(AGENT, method, request.encode_to_vec()).await
    }

    /// Calls any method with any payload and waits for its answer.
    pub async fn call(&mut self, service: &str, method: &str, payload: Vec<u8>) -> anyhow::Result<Outcome> {
        let stream = self.send(service, method, payload, 0).await?;
        let (answered, outcome) = self.answer().await?;
        anyhow::ensure!(answered == stream, "stream {answered} answered instead of {stream}");
        Ok(outcome)
    }

    /// Sends a call without waiting for its answer; gives its stream.
    pub async fn send(
        &mut self,
        service: &str,
        method: &str,
        payload: Vec<u8>,
        timeout_nano: i64,
    ) -> anyhow::Result<u32> {
        let stream = self.next;
        self.next += 2;
        self.write(&request_frame(stream, service, method, payload, timeout_nano)).await?;
        Ok(stream)
    }

    pub async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.context("the agent does not read")??;
        Ok(())
    }

    /// The next answer and its stream.
    pub async fn answer(&mut self) -> anyhow::Result<(u32, Outcome)> {
        timeout(PATIENCE, self.read()).await.context("no answer")?
    }

    /// Whether nothing is answered for a while. If something is, the connection is of no more use.
    pub async fn is_silent(&mut self, pause: Duration) -> bool {
        timeout(pause, self.stream.read_u8()).await.is_err()
    }

    /// Waits for the agent to close the connection, unread answers aside.
    pub async fn closed(&mut self) -> anyhow::Result<()> {
        let end = async {
            let mut buffer = [0; 4096];
            while let Ok(1..) = self.stream.read(&mut buffer).await {}
        };
        timeout(PATIENCE, end).await.context("the connection stays open")
    }

    async fn read(&mut self) -> anyhow::Result<(u32, Outcome)> {
        let mut header = [0; HEADER_LENGTH];
        self.stream.read_exact(&mut header).await?;
        let header = Header::decode(&header);
        let mut body = vec![0; header.length as usize];
        self.stream.read_exact(&mut body).await?;
        let response = TtrpcResponse::decode(&body[..])?;
        let status = response.status.unwrap_or_default();
        let outcome = match status.code {
            0 => Ok(response.payload),
            code => Err(Refused { code, message: status.message }),
        };
        Ok((header.stream, outcome))
    }
}

/// The code of a refusal; 0 for none.
pub fn code(outcome: &Outcome) -> i32 {
    outcome.as_ref().map_or_else(|refused| refused.code, |_| 0)
}
