//! Where the host comes in: vsock in a guest, a unix socket for an agent that runs as an ordinary process.

use std::{io, pin::Pin, task, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    time::sleep,
};
use tokio_vsock::{VMADDR_CID_HOST, VsockListener, VsockStream};

/// How long to wait after a failed accept, so that running out of descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener of either kind.
#[derive(Debug)]
pub enum HostListener {
    Unix(UnixListener),
    Vsock(VsockListener),
}

/// A connection of either kind.
#[derive(Debug)]
pub(super) enum HostStream {
    Unix(UnixStream),
    Vsock(VsockStream),
}

impl HostListener {
    /// The next connection from the host. A process in the guest that connects over vsock is not the host.
    pub(super) async fn accept(&mut self) -> HostStream {
        loop {
            match self.try_accept().await {
                Ok(Some(stream)) => return stream,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(kind = ?error.kind(), "host endpoint: accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn try_accept(&mut self) -> io::Result<Option<HostStream>> {
        match self {
            Self::Unix(listener) => Ok(Some(HostStream::Unix(listener.accept().await?.0))),
            Self::Vsock(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((peer.cid() == VMADDR_CID_HOST).then_some(HostStream::Vsock(stream)))
            }
        }
    }
}

impl AsyncRead for HostStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> task::Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Vsock(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for HostStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> task::Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Vsock(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Vsock(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Vsock(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
