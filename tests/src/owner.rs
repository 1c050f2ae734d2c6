//! An owner in the test's own process: an identity, and clients that speak `postern.v1` through a verified tunnel.

use std::{
    net::SocketAddr,
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow};
use hyper_util::rt::TokioIo;
use postern_api::owner::{
    ExecStart, Exit, ProcessInput, ProcessOutput, PushBegin, PushRequest,
    containers_client::ContainersClient, images_client::ImagesClient, pod_client::PodClient, process_input,
    process_output, push_request,
};
use postern_evidence::{ReferenceValues, TrustedRoots};
use postern_model::Role;
use postern_tunnel::{
    Attested, ClientIdentity, ConnectError, Expectation, ExpectedInstance, OwnerCa, Validity,
};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// HTTP/2 windows of the owner's side, as `postern` has them.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
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
async fn channel<IO>(stream: IO) -> anyhow::Result<Channel>
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let once = Mutex::new(Some(stream));
    let endpoint = Endpoint::from_static("http://pod")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let connector = tower::service_fn(move |_: Uri| {
        let stream = once.lock().ok().and_then(|mut once| once.take());
        async move { stream.map(TokioIo::new).ok_or_else(|| std::io::Error::other("the tunnel is gone")) }
    });
    Ok(endpoint.connect_with_connector(connector).await?)
}

impl Door {
    pub fn pod(&self) -> PodClient<Channel> {
        PodClient::new(self.channel.clone())
    }

    pub fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel.clone())
    }

    pub fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel.clone())
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
        let mut output = self.containers().exec(tokio_stream::iter([input])).await?.into_inner();
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

const CHUNK: usize = 256 << 10;
