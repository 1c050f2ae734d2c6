//! A QMP client: one command at a time, events kept in order, deadlines everywhere.
//!
//! Written here because the four commands used (of some three hundred) make a generated binding of QEMU's whole schema the
//! larger thing to review. Protocol: QEMU's `docs/interop/qmp-spec`.

use std::{collections::VecDeque, io, path::Path, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use crate::vsock::ShortPath;

/// How long QEMU may take for one command.
const COMMAND: Duration = Duration::from_secs(10);
/// Longest line accepted from QEMU.
const MAX_LINE: usize = 1 << 20;
/// Events kept while nobody asks for them; the oldest goes first.
const MAX_EVENTS: usize = 64;

/// QEMU's control channel failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    #[error("QEMU's control socket failed")]
    Io(#[from] io::Error),
    #[error("QEMU closed its control socket")]
    Closed,
    #[error("QEMU sent something that is not QMP")]
    Malformed,
    #[error("QEMU did not answer {command:?} within {} s", COMMAND.as_secs())]
    Deadline { command: String },
    #[error("QEMU refused {command:?}: {description}")]
    Refused { command: String, description: String },
}

/// Something that happened to the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// QEMU's name, such as `SHUTDOWN`.
    pub name: String,
    pub data: Value,
}

impl Event {
    /// Why the VM ended, if this event says so (`ShutdownCause` in QEMU's schema).
    pub fn shutdown_reason(&self) -> Option<&str> {
        (self.name == "SHUTDOWN").then(|| self.data["reason"].as_str()).flatten()
    }
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    event: Option<String>,
    data: Option<Value>,
    #[serde(rename = "return")]
    result: Option<Value>,
    error: Option<ErrorLine>,
}

#[derive(Deserialize)]
struct ErrorLine {
    desc: String,
}

/// A control connection to one QEMU.
#[derive(Debug)]
pub struct Qmp {
    lines: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// A line that has come in part; here and not on the stack, so that waiting can be given up and taken up again.
    partial: Vec<u8>,
    events: VecDeque<Event>,
}

impl Qmp {
    /// Connects to `socket` and negotiates. The caller bounds it in time: QEMU may not have made its socket yet.
    pub async fn connect(socket: &Path) -> Result<Self, QmpError> {
        let short = ShortPath::new(socket)?;
        let (read, writer) = UnixStream::connect(short.path()).await?.into_split();
        let mut qmp =
            Self { lines: BufReader::new(read), writer, partial: Vec::new(), events: VecDeque::new() };
        match timeout(COMMAND, qmp.line()).await {
            Ok(line) => line?.greeting.ok_or(QmpError::Malformed)?,
            Err(_) => return Err(QmpError::Deadline { command: "greeting".into() }),
        };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Runs one command and returns its result.
    pub async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let mut request = json!({ "execute": command, "arguments": arguments }).to_string();
        request.push('\n');
        let exchange = async {
            self.writer.write_all(request.as_bytes()).await?;
            loop {
                let line = self.line().await?;
                if let Some(error) = line.error {
                    return Err(QmpError::Refused { command: command.to_owned(), description: error.desc });
                }
                if let Some(result) = line.result {
                    return Ok(result);
                }
                self.keep_event(line);
            }
        };
        match timeout(COMMAND, exchange).await {
            Ok(result) => result,
            Err(_) => Err(QmpError::Deadline { command: command.to_owned() }),
        }
    }

    /// Runs one command of the human monitor, for what QMP itself cannot say.
    pub async fn human(&mut self, command_line: &str) -> Result<String, QmpError> {
        let result = self.execute("human-monitor-command", json!({ "command-line": command_line })).await?;
        result.as_str().map(str::to_owned).ok_or(QmpError::Malformed)
    }

    /// The next event. Can be given up at any time without losing one.
    pub async fn event(&mut self) -> Result<Event, QmpError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let line = self.line().await?;
            self.keep_event(line);
        }
    }

    fn keep_event(&mut self, line: Line) {
        let Some(name) = line.event else { return };
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(Event { name, data: line.data.unwrap_or(Value::Null) });
    }

    async fn line(&mut self) -> Result<Line, QmpError> {
        loop {
            let chunk = self.lines.fill_buf().await?;
            if chunk.is_empty() {
                return Err(QmpError::Closed);
            }
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let taken = end.map_or(chunk.len(), |end| end + 1);
            self.partial.extend_from_slice(&chunk[..taken]);
            self.lines.consume(taken);
            if self.partial.len() > MAX_LINE {
                return Err(QmpError::Malformed);
            }
            if end.is_some() {
                let line = serde_json::from_slice(&self.partial).map_err(|_| QmpError::Malformed);
                self.partial.clear();
                return line;
            }
        }
    }
}

/// The host port in what `info usernet` prints for the forwarding to `guest_port`:
/// `TCP[HOST_FORWARD]  11  127.0.0.1 32983  10.0.2.15 50090  0  0`.
pub fn forwarded_port(usernet: &str, guest_port: u16) -> Option<u16> {
    usernet.lines().find_map(|line| {
        let mut fields = line.trim().strip_prefix("TCP[HOST_FORWARD]")?.split_ascii_whitespace().skip(2);
        let port = fields.next()?.parse().ok()?;
        (fields.nth(1)?.parse() == Ok(guest_port)).then_some(port)
    })
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::UnixListener};

    use super::*;

    const GREETING: &str = "{\"QMP\": {\"version\": {}}}\r\n{\"return\": {}}\r\n";

    async fn connected(script: &'static str) -> (Qmp, UnixStream, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("qmp.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (qmp, stream) = tokio::join!(Qmp::connect(&socket), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(GREETING.as_bytes()).await.unwrap();
            stream.write_all(script.as_bytes()).await.unwrap();
            stream
        });
        (qmp.unwrap(), stream, dir)
    }

    #[tokio::test]
    async fn events_between_command_and_result_are_kept() {
        let script = "{\"event\": \"RESUME\"}\n{\"return\": {\"status\": \"running\"}}\n\
                      {\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-shutdown\"}}\n";
        let (mut qmp, _stream, _dir) = connected(script).await;
        let status = qmp.execute("query-status", json!({})).await.unwrap();
        assert_eq!(status["status"], "running");
        assert_eq!(qmp.event().await.unwrap().name, "RESUME");
        assert_eq!(qmp.event().await.unwrap().shutdown_reason(), Some("guest-shutdown"));
    }

    #[tokio::test]
    async fn a_refused_command_says_why() {
        let script = "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such device\"}}\n";
        let (mut qmp, _stream, _dir) = connected(script).await;
        let error = qmp.execute("device_del", json!({})).await.unwrap_err();
        assert_eq!(error.to_string(), "QEMU refused \"device_del\": no such device");
    }

    #[tokio::test]
    async fn waiting_for_an_event_can_be_given_up_in_the_middle_of_one() {
        let (mut qmp, mut stream, _dir) = connected("{\"event\": \"ST").await;
        tokio::select! {
            biased;
            _ = qmp.event() => panic!("half an event"),
            () = async { for _ in 0..10 { tokio::task::yield_now().await } } => {}
        }
        stream.write_all(b"OP\"}\n").await.unwrap();
        assert_eq!(qmp.event().await.unwrap().name, "STOP");
        drop(stream);
        assert!(matches!(qmp.event().await, Err(QmpError::Closed | QmpError::Io(_))));
    }

    #[tokio::test]
    async fn what_is_not_qmp_is_refused() {
        let (mut qmp, mut stream, _dir) = connected("hello\n").await;
        assert!(matches!(qmp.event().await, Err(QmpError::Malformed)));
        let mut asked = vec![0; 64];
        let asked_length = stream.read(&mut asked).await.unwrap();
        assert!(asked[..asked_length].starts_with(b"{"));
    }

    #[test]
    fn finds_the_forwarded_port() {
        let usernet = "Hub -1 (net0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  \
                       TCP[HOST_FORWARD]  11       127.0.0.1 32983       10.0.2.15 50090     0     0\r\n";
        assert_eq!(forwarded_port(usernet, 50090), Some(32983));
        assert_eq!(forwarded_port(usernet, 22), None);
        assert_eq!(forwarded_port("", 50090), None);
    }
}
