//! Logs, attach, copies and ports: what moves bytes between an owner and a container, past the driver.

use std::{io, path::Path, sync::Arc};

use postern_container::{CopyIn, CopyInOptions, CopyOut, CopyOutOptions, WindowSize};
use postern_model::{ContainerName, ContainerState, OperationKind};
use postern_policy::Permit;
use tokio::{net::TcpStream, time::timeout};

use super::{
    Chunk, ContainerView, Exit, LogFrom, LogReader, PodError, PodHandle,
    view::{Run, SharedInput},
};

/// How long a port of the pod may take to accept.
const CONNECT: std::time::Duration = std::time::Duration::from_secs(5);

/// What an attaching owner wants.
#[derive(Debug)]
pub struct Wanted {
    /// Output that is in the log already comes first.
    pub history: bool,
    /// Start the container once the streams are connected.
    pub start: Option<Permit>,
    /// Size of the caller's window, for a container with a terminal.
    pub size: Option<WindowSize>,
}

/// A connection to a container's first process. Its output is read through the log, which waits for this reader.
#[derive(Debug)]
pub struct Attachment {
    reader: LogReader,
    container: Arc<ContainerView>,
    /// The next piece is the first of a history, before which the log may have lost bytes.
    history: bool,
}

impl Attachment {
    /// The next output, or the end of the container once all output was read.
    pub(crate) async fn next(&mut self) -> Result<Chunk, Exit> {
        let Some(mut chunk) = self.reader.next().await else {
            return Err(self.container.live.ended().await);
        };
        if std::mem::take(&mut self.history) {
            chunk.dropped = 0;
        }
        Ok(chunk)
    }

    pub(crate) fn stdin(&self) -> SharedInput {
        Arc::clone(&self.container.live.stdin)
    }

    pub(crate) fn run(&self) -> Option<Run> {
        self.container.live.run()
    }
}

impl PodHandle {
    pub fn logs(&self, permit: Permit, name: &ContainerName, from: LogFrom) -> Result<LogReader, PodError> {
        self.check(&permit, OperationKind::Logs)?;
        Ok(self.container(name)?.live.log.reader(from))
    }

    pub async fn attach(
        &self,
        permit: Permit,
        name: &ContainerName,
        wanted: Wanted,
    ) -> Result<Attachment, PodError> {
        self.check(&permit, OperationKind::Attach)?;
        let container = self.container(name)?;
        if container.state == ContainerState::Exited && wanted.start.is_none() {
            let advice = "read its logs, or start it";
            return Err(PodError::WrongState { container: name.clone(), state: container.state, advice });
        }
        let from = if wanted.history { LogFrom::Oldest } else { LogFrom::Now };
        let reader = container.live.log.attached_reader(from);
        if let (Some(size), Some(Run { terminal: Some(terminal), .. })) = (wanted.size, container.live.run())
        {
            // Before the start, so that the process never sees another size. A failure costs a line break.
            let _ = terminal.resize(size);
        }
        if let Some(permit) = wanted.start {
            self.start_container(permit, name).await?;
        }
        Ok(Attachment { reader, container, history: wanted.history })
    }

    /// Takes a tar stream and unpacks it below `directory` of the container.
    pub async fn copy_in(
        &self,
        permit: Permit,
        name: &ContainerName,
        directory: &Path,
        options: CopyInOptions,
    ) -> Result<CopyIn, PodError> {
        self.check(&permit, OperationKind::CopyIn)?;
        self.container(name)?;
        let copy = self.runtime().copy_in(name, directory, options).await;
        copy.map_err(PodError::failed("copying into the container"))
    }

    /// Gives a tar stream of the file or directory at `path` of the container.
    pub async fn copy_out(
        &self,
        permit: Permit,
        name: &ContainerName,
        path: &Path,
        options: CopyOutOptions,
    ) -> Result<CopyOut, PodError> {
        self.check(&permit, OperationKind::CopyOut)?;
        self.container(name)?;
        let copy = self.runtime().copy_out(name, path, options).await;
        copy.map_err(PodError::failed("copying out of the container"))
    }

    /// A connection to a TCP port on the pod's loopback.
    pub async fn port_forward(&self, permit: Permit, port: u16) -> Result<TcpStream, PodError> {
        self.check(&permit, OperationKind::PortForward)?;
        let connected = timeout(CONNECT, TcpStream::connect(("127.0.0.1", port))).await;
        let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream = stream.map_err(|source| PodError::Port { port, source })?;
        // A failure costs only latency.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}
