//! A ttRPC server for peers that mean harm: every buffer, queue and wait is bounded, and what cannot be read is answered
//! and survived.
//!
//! It knows frames and calls; what a call means is the [`Service`]'s. One connection is one task that reads and writes,
//! plus one task for each call that has to wait.

mod connection;
mod frame;
mod listener;
mod pace;

#[cfg(test)]
mod tests;

use std::{pin::Pin, sync::Arc, time::Duration};

use postern_api::ttrpc::Envelope;
use postern_model::Sha256;
use tokio::{sync::Semaphore, task::JoinSet};

pub use self::listener::HostListener;
use self::pace::Pace;
use super::status::{Answer, Status};

/// Bounds of the server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; more are closed as they come.
    pub connections: usize,
    /// Calls at once on one connection. A shim parks three for each container.
    pub calls: usize,
    /// Calls a second, over all connections, once a burst of one second's worth is used up. Bytes count too.
    pub calls_per_second: u32,
    /// How long a frame may take from its first byte to its last.
    pub frame: Duration,
    /// How long a connection may stay silent with no call under way.
    pub idle: Duration,
    /// How long a peer may take to read an answer.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 32,
            calls: 128,
            calls_per_second: 2000,
            frame: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            write: Duration::from_secs(10),
        }
    }
}

/// What came in on a connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Incoming<'a> {
    /// A request, whole.
    Request(Envelope<'a>),
    /// The beginning of a request that was not worth keeping; enough to name its method.
    Beginning(Envelope<'a>),
    /// Something that will not be treated as a request.
    Broken(Broken),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    TooLong,
    NotARequest,
    BadStream,
    Unreadable,
    Crowded,
}

impl Broken {
    pub(super) fn status(self) -> Status {
        match self {
            Self::TooLong => Status::TOO_LARGE,
            Self::NotARequest => Status::NOT_A_REQUEST,
            Self::BadStream => Status::BAD_STREAM,
            Self::Unreadable => Status::MALFORMED,
            Self::Crowded => Status::CROWDED,
        }
    }
}

/// An answer, now or when it comes.
pub(super) enum Reply {
    Now(Answer),
    Later(LaterAnswer),
}

pub(super) type LaterAnswer = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What stands behind the server.
pub(super) trait Service: Send + Sync + 'static {
    /// What belongs to one connection.
    type Session: Send + Sync + 'static;

    fn open(&self) -> Self::Session;

    /// Called once for everything that comes in. Must not block.
    fn call(self: &Arc<Self>, session: &Arc<Self::Session>, incoming: Incoming<'_>, digest: Sha256) -> Reply;

    /// Whether a request of this name that does not fit the first buffer shall be kept.
    fn may_be_large(&self, service: &str, method: &str) -> bool;

    /// A connection was closed because there were too many.
    fn turned_away(&self);
}

/// How many large requests may be in memory at once.
const LARGE_REQUESTS: usize = 2;

/// What all connections have to share.
#[derive(Debug)]
struct Shared {
    limits: Limits,
    pace: Pace,
    large: Semaphore,
}

impl Shared {
    fn new(limits: Limits) -> Arc<Self> {
        let pace = Pace::new(limits.calls_per_second);
        Arc::new(Self { limits, pace, large: Semaphore::new(LARGE_REQUESTS) })
    }
}

/// Serves `listener` until dropped; that ends every connection and call.
pub(super) async fn serve<S: Service>(mut listener: HostListener, service: Arc<S>, limits: Limits) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let shared = Shared::new(limits);
    let mut connections = JoinSet::new();
    loop {
        let stream = listener.accept().await;
        while connections.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            service.turned_away();
            continue;
        };
        let (service, shared) = (service.clone(), shared.clone());
        connections.spawn(async move {
            connection::run(stream, service, shared).await;
            drop(slot);
        });
    }
}
