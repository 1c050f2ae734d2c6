//! The host as an attacker has it: root on the machine, a ttRPC client on the guest's vsock, every byte recorded.

use std::{
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Context as _;
use postern_sandbox::{HostClient, Status, VsockAddress, vsock::GuestStream};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Runtime,
};

/// vsock port of the host endpoint.
pub const PORT: u32 = 1024;
pub const AGENT: &str = "grpc.AgentService";
pub const HEALTH: &str = "grpc.Health";
/// How long an answer may take on a loaded machine.
pub const CALL: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(30);

/// One connection, with a runtime of its own so that tests need none.
#[derive(Debug)]
pub struct Host {
    runtime: Runtime,
    client: HostClient,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Host {
    /// On the unix socket of an agent that runs as an ordinary process.
    pub fn unix(socket: &Path) -> anyhow::Result<Self> {
        Self::connect(&VsockAddress::Unix { socket: socket.to_owned() })
    }

    pub fn connect(address: &VsockAddress) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let client = runtime.block_on(async {
            // The library's own retrying connect proves that the guest listens; the recorded stream follows it.
            drop(HostClient::connect(address, PORT, CONNECT).await?);
            let stream = address.open(PORT).await.context("cannot connect a second time")?;
            anyhow::Ok(HostClient::over(Box::new(Recorded { stream, seen: Arc::clone(&seen) })))
        })?;
        Ok(Self { runtime, client, seen })
    }

    pub fn call(&self, service: &str, method: &str, body: Vec<u8>) -> Result<Vec<u8>, Status> {
        self.call_within(service, method, body, CALL)
    }

    pub fn call_within(
        &self,
        service: &str,
        method: &str,
        body: Vec<u8>,
        deadline: Duration,
    ) -> Result<Vec<u8>, Status> {
        self.runtime.block_on(self.client.call(service, method, body, deadline))
    }

    /// A call of `grpc.AgentService` with messages.
    pub fn request<A: Message + Default>(&self, method: &str, request: &impl Message) -> Result<A, Status> {
        self.runtime.block_on(self.client.request(AGENT, method, request, CALL))
    }

    /// Every byte that has crossed this connection, both ways.
    pub fn seen(&self) -> Vec<u8> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A stream that keeps a copy of all that crosses it.
struct Recorded {
    stream: Box<dyn GuestStream>,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Recorded {
    fn record(&self, bytes: &[u8]) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    }
}

impl AsyncRead for Recorded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.record(&buf.filled()[before..]);
        result
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &result {
            self.record(&bytes[..*count]);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
