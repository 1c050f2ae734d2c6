//! Accepts owners: TCP, then the tunnel's handshake, then HTTP/2. Nothing a peer does ends the loop.
//!
//! Every number that a stranger could drive up is bounded here: connections, handshakes at once, streams, header and
//! frame sizes. Windows are wide enough for bulk data and cost memory only while data is in flight.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use postern_api::owner::{
    containers_server::ContainersServer, images_server::ImagesServer, pod_server::PodServer,
};
use postern_tunnel::server::Acceptor;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::sleep,
};
use tonic::{body::Body, codegen::Service as _};
use tracing::debug;

use super::{
    bulk::Call,
    session::{Session, Shared},
};

/// Connections at once, authenticated or not.
const MAX_CONNECTIONS: usize = 64;
/// Connections at once from inside the pod, beside those: a workload must not take the owner's places.
const MAX_INSIDE: usize = 8;
/// Handshakes at once: each costs a signature and a look at the TEE.
const MAX_HANDSHAKES: usize = 32;
const MAX_STREAMS: u32 = 128;
const MAX_HEADER_LIST: u32 = 16 << 10;
const MAX_FRAME: u32 = 256 << 10;
/// A message on the wire, either way: a chunk of a stream, or a specification.
pub(super) const MAX_MESSAGE: usize = 4 << 20;
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Bytes of output that HTTP/2 may hold back for one stream.
const SEND_BUFFER: usize = 1 << 20;
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long connections may finish what they are doing when the pod ends.
const DRAIN: Duration = Duration::from_secs(2);
/// After accept() fails for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound endpoint, not serving yet.
#[derive(Debug)]
pub struct Endpoint {
    listener: TcpListener,
}

impl Endpoint {
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Serves owners until `stop` turns true, then lets connections finish for a moment.
pub async fn serve(endpoint: Endpoint, acceptor: Acceptor, shared: Arc<Shared>, stop: watch::Receiver<bool>) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let inside = Arc::new(Semaphore::new(MAX_INSIDE));
    // An agent that listens on the loopback alone is no pod's: everybody comes from there.
    let has_outside = !endpoint.address().is_ok_and(|address| address.ip().is_loopback());
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let mut stopping = stop.clone();
    loop {
        let slot = tokio::select! {
            () = stopped(&mut stopping) => break,
            // The semaphore is never closed.
            Ok(slot) = Arc::clone(&connections).acquire_owned() => slot,
        };
        let accepted = tokio::select! {
            () = stopped(&mut stopping) => break,
            accepted = endpoint.listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let slot = match has_outside && is_inside(peer, &stream) {
                    false => slot,
                    true => match Arc::clone(&inside).try_acquire_owned() {
                        Ok(slot) => slot,
                        Err(_) => continue,
                    },
                };
                let connection = Connection {
                    acceptor: acceptor.clone(),
                    handshakes: Arc::clone(&handshakes),
                    shared: Arc::clone(&shared),
                    stop: stop.clone(),
                };
                tokio::spawn(connection.run(stream, slot));
            }
            // A peer that left before it was accepted, or a shortage. The door stays open either way.
            Err(error) => {
                debug!(kind = ?error.kind(), "accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(endpoint);
    let _ = tokio::time::timeout(DRAIN, connections.acquire_many(MAX_CONNECTIONS as u32)).await;
}

/// Whether this machine's own address is at the other end.
fn is_inside(peer: SocketAddr, stream: &TcpStream) -> bool {
    let peer = peer.ip().to_canonical();
    peer.is_loopback() || stream.local_addr().is_ok_and(|local| local.ip().to_canonical() == peer)
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone stops as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

struct Connection {
    acceptor: Acceptor,
    handshakes: Arc<Semaphore>,
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
}

impl Connection {
    async fn run(self, stream: TcpStream, slot: OwnedSemaphorePermit) {
        let housekeeper = self.shared.pod.housekeeper().clone();
        // Without it small answers wait for the peer's acknowledgement; a failure costs only that.
        let _ = stream.set_nodelay(true);
        let Ok(turn) = self.handshakes.acquire().await else { return };
        let accepted = self.acceptor.accept(stream).await;
        drop(turn);
        match accepted {
            Ok((stream, peer)) => {
                let session = Session::new(Arc::clone(&self.shared), peer);
                serve_http(TokioIo::new(stream), session, self.stop).await;
            }
            // What a stranger sent is of no interest to the console, which the host reads.
            Err(_) => debug!("handshake failed"),
        }
        drop(slot);
        // What the connection moved need not stay resident.
        housekeeper.call();
    }
}

async fn serve_http<I>(io: I, session: Session, mut stop: watch::Receiver<bool>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let pod = PodServer::new(session.clone()).max_decoding_message_size(MAX_MESSAGE);
    let containers = ContainersServer::new(session.clone()).max_decoding_message_size(MAX_MESSAGE);
    let images = ImagesServer::new(session.clone()).max_decoding_message_size(MAX_MESSAGE);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (mut pod, mut containers, mut images) = (pod.clone(), containers.clone(), images.clone());
        let session = session.clone();
        async move {
            let path = request.uri().path();
            if let Some(call) = Call::at(path) {
                return Ok(call.serve(&session, request).await);
            }
            let service = path.strip_prefix("/postern.v1.").and_then(|rest| rest.split_once('/'));
            match service.map(|(service, _)| service) {
                Some("Pod") => pod.call(request).await,
                Some("Containers") => containers.call(request).await,
                Some("Images") => images.call(request).await,
                Some(_) | None => Ok::<_, Infallible>(unknown_method()),
            }
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_frame_size(MAX_FRAME)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(io, service);
    tokio::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => {
            if result.is_err() {
                debug!("connection broke");
            }
        }
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(DRAIN, connection).await;
        }
    }
}

fn unknown_method() -> hyper::Response<Body> {
    tonic::Status::unimplemented("no such service; this is postern.v1 with Pod, Containers and Images")
        .into_http()
}
