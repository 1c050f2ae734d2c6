//! gRPC over one tunnel that is attested already. When the tunnel ends, the channel ends: nothing reconnects, because a
//! new connection would have to be verified anew.

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::{body::Body, codegen::http};

/// Bytes of one stream, and of all streams together, that may be under way to us: more than a loopback or a data centre
/// keeps in flight, so that windows never limit a copy.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Largest frame we accept: few headers for bulk data, still small beside a window.
const FRAME: u32 = 256 << 10;
const SEND_BUFFER: usize = 1 << 20;
/// A silent peer is asked for a sign of life, and given up without one.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// Sends requests into the tunnel. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Channel {
    requests: http2::SendRequest<Body>,
    end: Arc<OnceLock<String>>,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("end", &self.end.get()).finish_non_exhaustive()
    }
}

impl Channel {
    /// Begins HTTP/2 on `io`.
    pub(crate) async fn open<IO>(io: IO) -> Result<Self, hyper::Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (requests, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(TokioIo::new(io))
            .await?;
        let end = Arc::new(OnceLock::new());
        let told = Arc::clone(&end);
        tokio::spawn(async move {
            let reason = match connection.await {
                Ok(()) => "the pod closed it".to_owned(),
                Err(error) if error.is_timeout() => "nothing came back any more".to_owned(),
                Err(error) if is_abrupt(&error) => "it ended without a word".to_owned(),
                Err(error) => chain(&error),
            };
            let _ = told.set(reason);
        });
        Ok(Self { requests, end })
    }

    /// Why the tunnel ended, once it has.
    pub(crate) fn end(&self) -> Option<&str> {
        self.end.get().map(String::as_str)
    }
}

/// Whether the other end went away, or was taken away, in the middle.
fn is_abrupt(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::UnexpectedEof)
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = error.source();
    }
    text
}

impl tower::Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.requests.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.requests.send_request(request))
    }
}
