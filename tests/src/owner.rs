//! An owner in the test's own process: an identity, and clients that speak `postern.v1` through a verified tunnel.

use std::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow};
use hyper::{Request, Response, body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use postern_api::{
    bulk,
    owner::{
        ExecStart, Exit, ProcessInput, ProcessOutput, PushBegin, PushRequest,
        containers_client::ContainersClient, images_client::ImagesClient, pod_client::PodClient,
        process_input, process_output, push_request,
    },
};
use postern_evidence::{ReferenceValues, TrustedRoots};
use postern_model::Role;
use postern_tunnel::{
    Attested, ClientIdentity, ConnectError, Expectation, ExpectedInstance, OwnerCa, Validity,
};
use tokio::net::TcpStream;
use tonic::{body::Body, codegen::http::Uri};

/// HTTP/2 of the owner's side, as `postern` has it.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
const FRAME: u32 = 256 << 10;
const SEND_BUFFER: usize = 1 << 20;
const MAX_MESSAGE: usize = 8 << 20;
const DAY: Duration = Duration::from_secs(86_400);

/// Seconds since the Unix epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
}

/// An owner CA and what it expects of its pod.
#[derive(Debug)]
pub struct Owner {
    pub ca: OwnerCa,
    pub roots: TrustedRoots,
    pub reference_values: ReferenceValues,
}

/// One verified tunnel.
#[derive(Debug, Clone)]
pub struct Door {
    pub attested: Attested,
    channel: Channel,
}

impl Owner {
    pub fn identity(&self, role: Role) -> anyhow::Result<ClientIdentity> {
        Ok(self.ca.issue("test", role, Validity::starting(now() - 60, DAY))?)
    }

    pub fn expectation(&self) -> Expectation {
        Expectation {
            roots: self.roots.clone(),
            reference_values: self.reference_values.clone(),
            instance: ExpectedInstance::FirstContact,
            now: now(),
        }
    }

    /// Connects as admin.
    pub async fn connect(&self, address: SocketAddr) -> anyhow::Result<Door> {
        Ok(self.connect_as(&self.identity(Role::Admin)?, address).await?)
    }

    pub async fn connect_as(
        &self,
        identity: &ClientIdentity,
        address: SocketAddr,
    ) -> Result<Door, DoorError> {
        let stream = TcpStream::connect(address).await.map_err(|error| DoorError::Other(error.into()))?;
        stream.set_nodelay(true).map_err(|error| DoorError::Other(error.into()))?;
        let (stream, attested) = postern_tunnel::connect(stream, identity, &self.expectation()).await?;
        let channel = channel(stream).await.map_err(DoorError::Other)?;
        Ok(Door { attested, channel })
    }
}

/// Why a door did not open.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error(transparent)]
    Tunnel(#[from] ConnectError),
    #[error(transparent)]
    Other(anyhow::Error),
}

/// gRPC over one stream that is attested already.
#[derive(Debug, Clone)]
pub struct Channel(http2::SendRequest<Body>);

async fn channel<IO>(stream: IO) -> anyhow::Result<Channel>
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (requests, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(connection);
    Ok(Channel(requests))
}

impl tower::Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

impl Door {
    pub fn pod(&self) -> PodClient<Channel> {
        PodClient::with_origin(self.channel.clone(), origin())
    }

    pub fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::with_origin(self.channel.clone(), origin())
    }

    pub fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::with_origin(self.channel.clone(), origin())
    }

    /// Calls that carry bytes in bulk.
    pub fn bulk(&self) -> bulk::Client<Channel> {
        bulk::Client::new(self.channel.clone(), origin(), MAX_MESSAGE)
    }

    /// Pushes an archive under `reference`.
    pub async fn push(&self, archive: Vec<u8>, reference: &str) -> Result<(), tonic::Status> {
        let begin = PushRequest {
            kind: Some(push_request::Kind::Begin(PushBegin { reference: reference.to_owned() })),
        };
        let archive = bytes::Bytes::from(archive);
        let chunks = (0..archive.len().div_ceil(CHUNK)).map(move |at| {
            let end = archive.len().min((at + 1) * CHUNK);
            PushRequest { kind: Some(push_request::Kind::Data(archive.slice(at * CHUNK..end))) }
        });
        self.images().push(tokio_stream::iter(std::iter::once(begin).chain(chunks))).await.map(drop)
    }

    /// Runs a command in a container to its end; gives what it printed and how it ended.
    pub async fn exec(&self, container: &str, args: &[&str]) -> anyhow::Result<(Vec<u8>, Exit)> {
        let start = ExecStart {
            container: container.to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            ..Default::default()
        };
        let input = ProcessInput { kind: Some(process_input::Kind::Exec(start)) };
        let mut output = self.bulk().exec(tokio_stream::iter([input])).await?.into_inner();
        let mut printed = Vec::new();
        while let Some(ProcessOutput { kind }) = output.message().await? {
            match kind.context("empty output message")? {
                process_output::Kind::Started(_) => {}
                process_output::Kind::Stdout(bytes) | process_output::Kind::Stderr(bytes) => {
                    printed.extend_from_slice(&bytes);
                }
                process_output::Kind::Exit(exit) => return Ok((printed, exit)),
            }
        }
        Err(anyhow!("the stream ended without an exit"))
    }
}

/// Names the pod; decides nothing.
fn origin() -> Uri {
    Uri::from_static("https://pod")
}

const CHUNK: usize = 256 << 10;
