//! Where a tunnel begins: `tcp://HOST:PORT`, `unix:///PATH`, or `exec:COMMAND` whose standard input and output carry the
//! bytes. An endpoint is an address and never a reason to trust what answers there.

use std::{
    fmt,
    path::PathBuf,
    pin::Pin,
    process::Stdio,
    str::FromStr,
    task::{Context, Poll},
    time::Duration,
};

use std::io;

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// How long a connection may take to come up.
const CONNECT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `HOST:PORT`; resolved at each connect.
    Tcp(String),
    Unix(PathBuf),
    /// A command line for the shell, as ssh's ProxyCommand.
    Exec(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no endpoint; use tcp://HOST:PORT, unix:///PATH or exec:COMMAND")]
pub(crate) struct EndpointError(String);

/// A byte stream to the pod.
#[derive(Debug)]
pub(crate) enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
    Exec(Box<CommandWire>),
}

/// A command's standard input and output. The command ends with the value.
#[derive(Debug)]
pub(crate) struct CommandWire {
    stdin: ChildStdin,
    stdout: ChildStdout,
    _child: Child,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("no connection within {} s", CONNECT.as_secs())]
    Deadline,
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("cannot start the command")]
    Spawn(#[source] io::Error),
}

impl Endpoint {
    /// Connects, or fails within a deadline.
    pub(crate) async fn dial(&self) -> Result<Wire, DialError> {
        let connect = async {
            match self {
                Self::Tcp(address) => {
                    let stream = TcpStream::connect(address).await.map_err(DialError::Connect)?;
                    // Keystrokes must not wait for a full segment.
                    stream.set_nodelay(true).map_err(DialError::Connect)?;
                    Ok(Wire::Tcp(stream))
                }
                Self::Unix(path) => {
                    UnixStream::connect(path).await.map(Wire::Unix).map_err(DialError::Connect)
                }
                Self::Exec(command) => spawn(command).map_err(DialError::Spawn),
            }
        };
        tokio::time::timeout(CONNECT, connect).await.unwrap_or(Err(DialError::Deadline))
    }
}

fn spawn(command: &str) -> io::Result<Wire> {
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("exec {command}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Its own group: a Ctrl-C meant for the container does not cut the tunnel.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    match (child.stdin.take(), child.stdout.take()) {
        (Some(stdin), Some(stdout)) => Ok(Wire::Exec(Box::new(CommandWire { stdin, stdout, _child: child }))),
        _ => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let wrong = || EndpointError(text.to_owned());
        if let Some(address) = text.strip_prefix("tcp://") {
            let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            let host_ok =
                !host.is_empty() && !host.contains(['/', '@', ' ']) && (bare != host || !host.contains(':'));
            return match port.parse::<u16>() {
                Ok(1..) if host_ok => Ok(Self::Tcp(address.to_owned())),
                _ => Err(wrong()),
            };
        }
        if let Some(path) = text.strip_prefix("unix://") {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.into())),
                false => Err(wrong()),
            };
        }
        match text.strip_prefix("exec:").map(str::trim) {
            Some(command) if !command.is_empty() => Ok(Self::Exec(command.to_owned())),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Exec(command) => write!(f, "exec:{command}"),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Exec(command) => Pin::new(&mut command.stdout).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Exec(command) => Pin::new(&mut command.stdin).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Exec(command) => Pin::new(&mut command.stdin).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Exec(command) => Pin::new(&mut command.stdin).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn endpoints_are_read_as_written() {
        for text in [
            "tcp://127.0.0.1:50090",
            "tcp://[::1]:1",
            "tcp://pod.example:443",
            "unix:///run/x",
            "exec:nc a 1",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "127.0.0.1:1",
            "tcp://",
            "tcp://h",
            "tcp://h:0",
            "tcp://h:99999",
            "tcp://::1:2",
            "unix://x",
            "exec:",
            "https://h:1",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_command_carries_bytes_both_ways() {
        let mut wire = Endpoint::Exec("cat".into()).dial().await.unwrap();
        wire.write_all(b"ping").await.unwrap();
        wire.shutdown().await.unwrap();
        let mut back = [0; 4];
        wire.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"ping");
    }

    #[tokio::test]
    async fn nobody_listening_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Unix(dir.path().join("none"));
        assert!(matches!(endpoint.dial().await, Err(DialError::Connect(_))));
    }
}
