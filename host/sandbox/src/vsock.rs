//! Byte streams to a guest's vsock ports, however this host reaches them.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fd::{AsRawFd, OwnedFd},
    fs::{Mode, OFlags},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
    sync::oneshot,
    time::timeout,
};

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(3);
/// How long an attempt that was given up is kept open for an answer.
const LINGER: Duration = Duration::from_secs(600);
/// Longest answer to `CONNECT`.
const MAX_ANSWER: usize = 32;
/// Longest path of a unix socket, with its NUL (`sun_path`, unix(7)).
const MAX_SOCKET_PATH: usize = 108;

/// Where a guest's vsock is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum VsockAddress {
    /// A user-space device: a unix socket that takes `CONNECT PORT` (Firecracker's convention).
    VhostUser { socket: PathBuf },
    /// The kernel's vhost-vsock.
    Kernel { cid: u32 },
    /// A unix socket that is the port itself: an agent that runs as an ordinary process.
    Unix { socket: PathBuf },
}

/// A connection to one port of a guest.
pub trait GuestStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> GuestStream for T {}

impl VsockAddress {
    /// Connects to `port`, once. Fails with `TimedOut` if there is no answer within three seconds, and in many ways while
    /// nobody listens. Can be given up at any time.
    pub async fn open(&self, port: u32) -> io::Result<Box<dyn GuestStream>> {
        let attempt = async {
            let stream: Box<dyn GuestStream> = match self {
                Self::VhostUser { socket } => Box::new(open_hybrid(socket, port).await?),
                Self::Unix { socket } => Box::new(connect_unix(socket).await?),
                Self::Kernel { cid } => Box::new(
                    tokio_vsock::VsockStream::connect(tokio_vsock::VsockAddr::new(*cid, port)).await?,
                ),
            };
            Ok(stream)
        };
        match timeout(ATTEMPT, attempt).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the guest did not answer")),
        }
    }
}

/// vhost-device-vsock 0.3 dies of a connection that its client has closed by the time the guest accepts it. So whoever
/// gives up leaves the connection to a task, which closes it once it is answered.
async fn open_hybrid(socket: &Path, port: u32) -> io::Result<UnixStream> {
    let stream = connect_unix(socket).await?;
    let (answer, answered) = oneshot::channel();
    tokio::spawn(async move {
        let result = timeout(LINGER, introduce(stream, port)).await;
        let _ = answer.send(result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())));
    });
    answered.await.unwrap_or_else(|_| Err(io::ErrorKind::ConnectionAborted.into()))
}

/// Says where to, and waits until the guest has accepted.
async fn introduce(mut stream: UnixStream, port: u32) -> io::Result<UnixStream> {
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    // Byte by byte: what follows the line belongs to the caller.
    let mut answer = Vec::with_capacity(MAX_ANSWER);
    while answer.last() != Some(&b'\n') {
        if answer.len() == MAX_ANSWER {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the vsock device gave a strange answer"));
        }
        answer.push(stream.read_u8().await?);
    }
    match answer.starts_with(b"OK ") {
        true => Ok(stream),
        false => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the vsock device refused to connect")),
    }
}

async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let short = ShortPath::new(path)?;
    UnixStream::connect(short.path()).await
}

/// A path to a socket that fits into a socket address, through `/proc/self/fd` if need be.
#[derive(Debug)]
pub struct ShortPath {
    path: PathBuf,
    _directory: Option<OwnedFd>,
}

impl ShortPath {
    pub fn new(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() < MAX_SOCKET_PATH {
            return Ok(Self { path: path.to_owned(), _directory: None });
        }
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a path of a socket"));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(directory, flags, Mode::empty())?;
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _directory: Some(directory) })
    }

    /// Valid as long as this value lives.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    async fn answered(answer: &'static [u8]) -> io::Result<Box<dyn GuestStream>> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("v.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let device = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 13];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"CONNECT 1024\n");
            stream.write_all(answer).await.unwrap();
            stream
        };
        let address = VsockAddress::VhostUser { socket };
        let (opened, stream) = tokio::join!(address.open(1024), async {
            let stream = device.await;
            if answer.is_empty() {
                drop(stream);
                return None;
            }
            Some(stream)
        });
        drop(stream);
        opened
    }

    #[tokio::test]
    async fn leaves_what_follows_the_answer_to_the_caller() {
        let mut stream = answered(b"OK 1073741824\nhello").await.unwrap();
        let mut rest = [0; 5];
        stream.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"hello");
    }

    #[tokio::test]
    async fn a_guest_that_does_not_listen_is_an_error() {
        for answer in [&b""[..], b"NO\n", b"a very long line that is no answer at all\n"] {
            assert!(answered(answer).await.is_err());
        }
    }

    #[tokio::test]
    async fn an_attempt_that_was_given_up_stays_open_until_it_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("v.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let address = VsockAddress::VhostUser { socket };
        let mut stream = tokio::select! {
            _ = address.open(1024) => panic!("answered by nobody"),
            accepted = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.read_exact(&mut [0; 13]).await.unwrap();
                stream
            } => accepted,
        };
        let nothing_yet = stream.try_read(&mut [0]);
        assert_eq!(nothing_yet.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        stream.write_all(b"OK 1\n").await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn reaches_sockets_behind_long_paths() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let socket = deep.join("s.sock");
        let short = ShortPath::new(&socket).unwrap();
        let listener = UnixListener::bind(short.path()).unwrap();
        let address = VsockAddress::Unix { socket };
        let (opened, accepted) = tokio::join!(address.open(0), listener.accept());
        opened.unwrap();
        accepted.unwrap();
    }
}
