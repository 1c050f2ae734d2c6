//! The server against a peer that does what it likes with bytes, with a service that only repeats.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use postern_api::{
    host::TtrpcResponse,
    ttrpc::{FrameKind, HEADER_LENGTH, Header, MAX_BODY, request_frame},
};
use postern_model::Sha256;
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::Semaphore,
    task::JoinHandle,
};

use super::{Incoming, Limits, Reply, Service, Shared, Status, connection};

/// Answers `Echo` with its payload, `Park` when released, `Size` with the number of payload bytes it was shown.
#[derive(Debug)]
struct Echo {
    seen: Mutex<Vec<String>>,
    release: Semaphore,
}

impl Service for Echo {
    type Session = ();

    fn open(&self) {}

    fn call(self: &Arc<Self>, _session: &Arc<()>, incoming: Incoming<'_>, _digest: Sha256) -> Reply {
        let mut seen = self.seen.lock().unwrap();
        match incoming {
            Incoming::Request(envelope) => {
                seen.push(envelope.method.to_owned());
                match envelope.method {
                    "Echo" => Reply::Now(Ok(envelope.payload.to_vec())),
                    "Size" => Reply::Now(Ok(envelope.payload.len().to_string().into_bytes())),
                    "Park" => {
                        let (echo, payload) = (self.clone(), envelope.payload.to_vec());
                        Reply::Later(Box::pin(async move {
                            echo.release.acquire().await.unwrap().forget();
                            Ok(payload)
                        }))
                    }
                    _ => Reply::Now(Err(Status::UNKNOWN_METHOD)),
                }
            }
            Incoming::Beginning(envelope) => {
                seen.push(format!("beginning of {}", envelope.method));
                Reply::Now(Err(Status::REFUSED))
            }
            Incoming::Broken(broken) => {
                seen.push(format!("{broken:?}"));
                Reply::Now(Err(broken.status()))
            }
        }
    }

    fn may_be_large(&self, _service: &str, method: &str) -> bool {
        method == "Size"
    }

    fn turned_away(&self) {}
}

struct Rig {
    io: DuplexStream,
    echo: Arc<Echo>,
    server: JoinHandle<()>,
}

/// Long enough that only a broken server reaches it.
const PATIENCE: Duration = Duration::from_secs(30);

fn rig(limits: Limits) -> Rig {
    let (io, far) = tokio::io::duplex(256 << 10);
    let echo = Arc::new(Echo { seen: Mutex::default(), release: Semaphore::new(0) });
    let server = tokio::spawn(connection::run(far, echo.clone(), Shared::new(limits)));
    Rig { io, echo, server }
}

impl Rig {
    async fn send(&mut self, stream: u32, method: &str, payload: &[u8]) {
        self.write(&request_frame(stream, "test", method, payload.to_vec(), 0)).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        tokio::time::timeout(PATIENCE, self.io.write_all(bytes)).await.unwrap().unwrap();
    }

    /// The next answer: its stream, and its payload or code.
    async fn answer(&mut self) -> (u32, Result<Vec<u8>, i32>) {
        let mut header = [0; HEADER_LENGTH];
        tokio::time::timeout(PATIENCE, self.io.read_exact(&mut header)).await.unwrap().unwrap();
        let header = Header::decode(&header);
        assert_eq!(header.kind, FrameKind::Response);
        let mut body = vec![0; header.length as usize];
        self.io.read_exact(&mut body).await.unwrap();
        let response = TtrpcResponse::decode(&body[..]).unwrap();
        let outcome = match response.status.map_or(0, |status| status.code) {
            0 => Ok(response.payload),
            code => Err(code),
        };
        (header.stream, outcome)
    }

    async fn still_works(&mut self) {
        self.send(4_000_001, "Echo", b"alive").await;
        assert_eq!(self.answer().await, (4_000_001, Ok(b"alive".to_vec())));
    }

    async fn ends(self) -> Arc<Echo> {
        tokio::time::timeout(PATIENCE, self.server).await.unwrap().unwrap();
        self.echo
    }
}

fn header(length: u32, stream: u32, kind: u8) -> [u8; HEADER_LENGTH] {
    Header { length, stream, kind: FrameKind::Other(kind), flags: 0 }.encode()
}

#[tokio::test]
async fn calls_run_side_by_side() {
    let mut rig = rig(Limits::default());
    rig.send(1, "Park", b"late").await;
    rig.send(3, "Echo", b"early").await;
    assert_eq!(rig.answer().await, (3, Ok(b"early".to_vec())));
    rig.echo.release.add_permits(1);
    assert_eq!(rig.answer().await, (1, Ok(b"late".to_vec())));
}

#[tokio::test]
async fn a_frame_above_the_limit_is_answered_and_survived() {
    let mut rig = rig(Limits::default());
    let length = u32::try_from(MAX_BODY).unwrap() + 1;
    rig.write(&header(length, 1, 1)).await;
    assert_eq!(rig.answer().await, (1, Err(3)));
    rig.write(&vec![0; length as usize]).await;
    rig.still_works().await;
}

#[tokio::test]
async fn the_largest_frame_is_not_kept_unless_its_method_is_worth_it() {
    let mut rig = rig(Limits::default());
    rig.send(1, "CopyFile", &vec![7; MAX_BODY - 100]).await;
    assert_eq!(rig.answer().await, (1, Err(7)));
    rig.send(3, "Size", &vec![7; 900 << 10]).await;
    assert_eq!(rig.answer().await, (3, Ok(b"921600".to_vec())));
    rig.send(5, "Size", &vec![7; 2 << 20]).await;
    assert_eq!(rig.answer().await, (5, Err(7)));
    rig.still_works().await;
    let seen = rig.echo.seen.lock().unwrap().clone();
    assert_eq!(seen, ["beginning of CopyFile", "Size", "beginning of Size", "Echo"]);
}

#[tokio::test]
async fn other_frames_and_streams_are_answered_and_survived() {
    let mut rig = rig(Limits::default());
    for (stream, kind) in [(1, 0), (3, 2), (5, 3), (7, 255)] {
        rig.write(&header(3, stream, kind)).await;
        rig.write(b"abc").await;
        assert_eq!(rig.answer().await, (stream, Err(3)), "type {kind}");
    }
    for stream in [0, 2, u32::MAX - 1] {
        rig.send(stream, "Echo", b"").await;
        assert_eq!(rig.answer().await, (stream, Err(3)));
    }
    rig.write(&header(0, 9, 1)).await;
    assert_eq!(rig.answer().await, (9, Err(12)), "an empty request names no method");
    rig.write(&header(2, 11, 1)).await;
    rig.write(&[0x0a, 0xff]).await;
    assert_eq!(rig.answer().await, (11, Err(3)), "not protobuf");
    rig.still_works().await;
}

#[tokio::test]
async fn a_stream_in_use_is_not_taken_twice() {
    let mut rig = rig(Limits::default());
    rig.send(1, "Park", b"first").await;
    rig.send(1, "Echo", b"second").await;
    assert_eq!(rig.answer().await, (1, Err(3)));
    rig.echo.release.add_permits(1);
    assert_eq!(rig.answer().await, (1, Ok(b"first".to_vec())));
}

#[tokio::test]
async fn calls_at_once_are_bounded() {
    let mut rig = rig(Limits { calls: 2, ..Limits::default() });
    for stream in [1, 3, 5] {
        rig.send(stream, "Park", b"").await;
    }
    assert_eq!(rig.answer().await, (5, Err(8)));
    rig.echo.release.add_permits(2);
    let mut answered = [rig.answer().await.0, rig.answer().await.0];
    answered.sort_unstable();
    assert_eq!(answered, [1, 3]);
    rig.still_works().await;
}

#[tokio::test]
async fn a_timeout_is_honoured() {
    let mut rig = rig(Limits::default());
    rig.write(&request_frame(1, "test", "Park", Vec::new(), 1_000_000)).await;
    assert_eq!(rig.answer().await, (1, Err(4)));
    rig.write(&request_frame(3, "test", "Echo", b"x".to_vec(), i64::MIN)).await;
    assert_eq!(rig.answer().await, (3, Ok(b"x".to_vec())));
}

#[tokio::test]
async fn a_slow_frame_ends_the_connection() {
    let mut rig = rig(Limits { frame: Duration::from_millis(50), ..Limits::default() });
    rig.still_works().await;
    rig.write(&header(10, 1, 1)[..4]).await;
    rig.ends().await;
}

#[tokio::test]
async fn the_rest_of_a_frame_above_the_limit_has_a_deadline_too() {
    let mut rig = rig(Limits { frame: Duration::from_millis(50), ..Limits::default() });
    rig.write(&header(u32::MAX, 1, 1)).await;
    assert_eq!(rig.answer().await, (1, Err(3)));
    rig.ends().await;
}

#[tokio::test]
async fn silence_ends_a_connection_without_calls_only() {
    let mut rig = rig(Limits { idle: Duration::from_millis(50), ..Limits::default() });
    rig.send(1, "Park", b"").await;
    // Four times as long as silence may last without a call.
    rig.write(&request_frame(3, "test", "Park", Vec::new(), 200_000_000)).await;
    assert_eq!(rig.answer().await, (3, Err(4)));
    rig.echo.release.add_permits(1);
    assert_eq!(rig.answer().await, (1, Ok(Vec::new())));
    rig.ends().await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_left() {
    let mut rig = rig(Limits { write: Duration::from_millis(50), ..Limits::default() });
    let request = request_frame(1, "test", "Echo", vec![0; 32 << 10], 0);
    // Its own side fills up once the server has stopped reading, which is when it must give up.
    while rig.io.write_all(&request).await.is_ok() {}
    rig.ends().await;
}

#[tokio::test]
async fn answers_reach_a_peer_that_has_said_all() {
    let mut rig = rig(Limits::default());
    rig.send(1, "Echo", b"last").await;
    rig.io.shutdown().await.unwrap();
    assert_eq!(rig.answer().await, (1, Ok(b"last".to_vec())));
    rig.ends().await;
}

#[tokio::test]
async fn waiting_calls_end_with_their_connection() {
    let mut rig = rig(Limits::default());
    rig.send(1, "Park", b"").await;
    rig.still_works().await;
    drop(rig.io);
    tokio::time::timeout(PATIENCE, rig.server).await.unwrap().unwrap();
    assert_eq!(Arc::strong_count(&rig.echo), 1, "nothing of the call is left");
}

#[tokio::test]
async fn a_flood_is_read_later() {
    let mut rig = rig(Limits { calls_per_second: 2, ..Limits::default() });
    for stream in [1, 3, 5] {
        rig.send(stream, "Echo", b"").await;
    }
    for stream in [1, 3] {
        assert_eq!(rig.answer().await.0, stream);
    }
    let third = tokio::time::timeout(Duration::from_millis(50), rig.io.read_u8()).await;
    assert!(third.is_err(), "the third within a second waits");
}
