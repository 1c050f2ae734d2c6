//! From the kernel's vsock to a unix socket, for one guest: the kernel's device delivers what a guest sends to its host to
//! whoever listens on the *host's* port, so only connections of the one guest are let through.

use std::{io, path::PathBuf};

use tokio::{io::copy_bidirectional, net::UnixStream, task::JoinHandle};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};

/// Connections served at the same time.
const MAX_CONNECTIONS: usize = 4;

/// A bridge; ends when dropped.
#[derive(Debug)]
pub(super) struct Bridge {
    task: JoinHandle<()>,
}

impl Bridge {
    /// Forwards connections of guest `cid` to host port `port` to `socket`.
    pub(super) fn start(cid: u32, port: u32, socket: PathBuf) -> io::Result<Self> {
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))?;
        Ok(Self { task: tokio::spawn(forward(listener, cid, socket)) })
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(listener: VsockListener, cid: u32, socket: PathBuf) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((mut guest, peer)) = listener.accept().await else { return };
        while connections.try_join_next().is_some() {}
        if peer.cid() != cid || connections.len() >= MAX_CONNECTIONS {
            continue;
        }
        let socket = socket.clone();
        connections.spawn(async move {
            if let Ok(mut platform) = UnixStream::connect(&socket).await {
                let _ = copy_bidirectional(&mut guest, &mut platform).await;
            }
        });
    }
}
