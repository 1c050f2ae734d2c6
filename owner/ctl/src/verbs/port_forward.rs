//! `postern port-forward`: TCP ports of this machine to ports of the pod.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use postern_api::owner::{PortForwardRequest, PortForwardResponse, port_forward_request::Kind};
use postern_model::PodName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    door::{Intent, Owner, Session, Subject},
    exit::Exit,
    failure::{Failure, OrFail},
    launch::parse,
    output::{self, notice},
};

/// Connections at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 64;
const PIECE: usize = 64 << 10;
const QUEUE: usize = 4;
/// How often a tunnel that has ended is noticed while nobody connects.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Listens on loopback unless an address is given; local port 0, or nothing before the colon, takes any free port.\n\nExamples:\n  postern port-forward demo 8080:80\n  postern port-forward demo :5432 0.0.0.0:8443:443"
)]
pub(crate) struct Args {
    /// Name of the pod
    #[arg(value_name = "POD", value_parser = parse::<PodName>)]
    pod: PodName,
    /// Ports: where to listen here, and the port of the pod
    #[arg(value_name = "[ADDRESS:][LOCAL:]REMOTE", required = true, value_parser = parse::<Forward>)]
    forwards: Vec<Forward>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Forward {
    local: SocketAddr,
    remote: u16,
}

impl std::str::FromStr for Forward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no forward; use for example 8080:80, :80 or 127.0.0.1:8080:80");
        let (before, remote) = text.rsplit_once(':').unwrap_or((text, text));
        let remote: u16 = remote.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let (address, local) = match before.rsplit_once(':') {
            Some((address, local)) => (address.trim_start_matches('[').trim_end_matches(']'), local),
            None => ("127.0.0.1", before),
        };
        let local: u16 = if local.is_empty() { 0 } else { local.parse().map_err(|_| wrong())? };
        Ok(Self { local: SocketAddr::new(address.parse().map_err(|_| wrong())?, local), remote })
    }
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let mut listeners = Vec::new();
    for forward in &args.forwards {
        let listener = TcpListener::bind(forward.local).await;
        let listener = listener
            .or_fail(|| format!("cannot listen on {}", forward.local))
            .map_err(|failure| failure.hint("choose another local port, or :REMOTE for any"))?;
        listeners.push((listener, forward.remote));
    }
    let session = Session::open(owner, &args.pod, Intent::Change).await?;
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut tasks = JoinSet::new();
    for (listener, remote) in listeners {
        let local = listener.local_addr().or_fail(|| "cannot tell the local port".into())?;
        output::line(&format!("forwarding {local} to {}:{remote}", args.pod))?;
        tasks.spawn(accept(listener, session.clone(), remote, Arc::clone(&slots)));
    }
    match tasks.join_next().await {
        Some(Ok(failure)) => Err(failure),
        Some(Err(_)) | None => Err(Failure::general("forwarding ended unexpectedly")),
    }
}

/// Accepts connections until the tunnel ends, and says why it did.
async fn accept(listener: TcpListener, session: Session, remote: u16, slots: Arc<Semaphore>) -> Failure {
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        // The semaphore is never closed.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return Failure::general("forwarding ended unexpectedly");
        };
        let accepted = loop {
            tokio::select! {
                accepted = listener.accept() => break accepted,
                _ = ticks.tick() => {
                    if let Some(cut) = session.cut("forward ports") {
                        return cut;
                    }
                }
            }
        };
        match accepted {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, session.clone(), remote, slot))),
            Err(error) => {
                notice(&format!("postern: cannot accept a connection: {error}"));
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, session: Session, remote: u16, _slot: OwnedSemaphorePermit) {
    let doing = format!("forward a connection to port {remote}");
    let subject = Subject { pod: session.name(), doing: &doing };
    if let Err(failure) = forward(stream, &session, subject, remote).await {
        failure.print();
    }
}

async fn forward(
    stream: TcpStream,
    session: &Session,
    subject: Subject<'_>,
    remote: u16,
) -> Result<(), Failure> {
    // Small answers must not wait for full segments; a failure costs only that.
    let _ = stream.set_nodelay(true);
    let (requests, receiver) = mpsc::channel(QUEUE);
    let first = PortForwardRequest { kind: Some(Kind::Port(remote.into())) };
    requests.try_send(first).or_fail(|| "cannot begin the stream".into())?;
    let (read, mut write) = stream.into_split();
    let mut containers = session.containers();
    let answers =
        session.open_stream(subject, containers.port_forward(ReceiverStream::new(receiver))).await?;
    let up = tokio::spawn(upload(read, requests));
    let down = download(answers, &mut write, session, subject).await;
    let _ = write.shutdown().await;
    // When the pod's side has ended nobody reads what still comes from here.
    up.abort();
    down
}

/// Local to pod; the end of the local side is passed on as such.
async fn upload(mut read: OwnedReadHalf, requests: mpsc::Sender<PortForwardRequest>) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(PIECE);
    loop {
        buffer.reserve(PIECE);
        let kind = match read.read_buf(&mut buffer).await? {
            0 => Kind::Close(true),
            _ => Kind::Data(buffer.split().freeze()),
        };
        let last = matches!(kind, Kind::Close(_));
        if requests.send(PortForwardRequest { kind: Some(kind) }).await.is_err() || last {
            // The stream stays open for what the pod still sends.
            requests.closed().await;
            return Ok(());
        }
    }
}

async fn download(
    mut answers: Streaming<PortForwardResponse>,
    write: &mut tokio::net::tcp::OwnedWriteHalf,
    session: &Session,
    subject: Subject<'_>,
) -> Result<(), Failure> {
    loop {
        let answer = answers.message().await.map_err(|status| session.failure(subject, &status))?;
        let Some(PortForwardResponse { data }) = answer else { return Ok(()) };
        if send(write, data).await.is_err() {
            // The local side has hung up; that is its right.
            return Ok(());
        }
    }
}

async fn send(write: &mut tokio::net::tcp::OwnedWriteHalf, data: Bytes) -> io::Result<()> {
    write.write_all(&data).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_read_as_written() {
        let read =
            |text: &str| text.parse::<Forward>().map(|forward| (forward.local.to_string(), forward.remote));
        assert_eq!(read("8080:80"), Ok(("127.0.0.1:8080".into(), 80)));
        assert_eq!(read("80"), Ok(("127.0.0.1:80".into(), 80)));
        assert_eq!(read(":80"), Ok(("127.0.0.1:0".into(), 80)));
        assert_eq!(read("0.0.0.0:1:2"), Ok(("0.0.0.0:1".into(), 2)));
        assert_eq!(read("[::1]:1:2"), Ok(("[::1]:1".into(), 2)));
        for text in ["", "x", "1:", "1:0", "1:99999", "host:1:2", "1:2:3:4"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
