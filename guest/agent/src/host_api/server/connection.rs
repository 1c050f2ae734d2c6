//! One connection: frames in, answers out, calls that wait in between.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use postern_api::ttrpc::response_frame;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, WriteHalf},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Answer, Broken, Incoming, LaterAnswer, Reply, Service, Shared, Status,
    frame::{Frame, FrameReader},
};

/// Answers that wait for the peer to read them.
const OUTBOX: usize = 16;

/// Serves one connection to its end.
pub(super) async fn run<IO, S>(io: IO, service: Arc<S>, shared: Arc<Shared>)
where
    IO: AsyncRead + AsyncWrite,
    S: Service,
{
    let (reader, writer) = tokio::io::split(io);
    let (answers, outbox) = mpsc::channel(OUTBOX);
    let writing = write(writer, outbox, shared.limits.write);
    let connection = Connection {
        session: Arc::new(service.open()),
        service,
        shared,
        answers,
        streams: Arc::default(),
        waiting: JoinSet::new(),
    };
    tokio::pin!(writing);
    tokio::select! {
        // The reader takes its senders and its waiting calls with it, so that the writer ends once it is through.
        () = connection.read(BufReader::new(reader)) => writing.await,
        () = &mut writing => {}
    }
}

async fn write<W: AsyncWrite>(mut io: WriteHalf<W>, mut outbox: mpsc::Receiver<Vec<u8>>, deadline: Duration) {
    while let Some(answer) = outbox.recv().await {
        match timeout(deadline, io.write_all(&answer)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

struct Connection<S: Service> {
    service: Arc<S>,
    session: Arc<S::Session>,
    shared: Arc<Shared>,
    answers: mpsc::Sender<Vec<u8>>,
    streams: Arc<Streams>,
    waiting: JoinSet<()>,
}

impl<S: Service> Connection<S> {
    /// Reads frames until the peer ends, breaks the framing, falls silent or is too slow.
    async fn read<R: AsyncRead + Unpin>(mut self, mut io: R) {
        let (service, shared) = (self.service.clone(), self.shared.clone());
        let keeps = |of: &str, method: &str| service.may_be_large(of, method);
        let frames = FrameReader { keeps, shared: &shared };
        while let Some(first) = self.first_byte(&mut io).await {
            let deadline = Instant::now() + self.shared.limits.frame;
            let Ok(Ok((frame, rest))) = timeout_at(deadline, frames.read(first, &mut io)).await else {
                return;
            };
            if !self.take(frame).await {
                return;
            }
            if rest > 0
                && !matches!(timeout_at(deadline, frames.skip(&mut io, rest, |_| {})).await, Ok(Ok(())))
            {
                return;
            }
        }
    }

    /// The first byte of the next frame; `None` when there will be none.
    async fn first_byte<R: AsyncRead + Unpin>(&self, io: &mut R) -> Option<u8> {
        let mut byte = [0];
        loop {
            match timeout(self.shared.limits.idle, io.read(&mut byte)).await {
                Ok(Ok(1)) => return Some(byte[0]),
                Ok(Ok(_)) | Ok(Err(_)) => return None,
                Err(_) if self.streams.is_empty() => return None,
                Err(_) => {}
            }
        }
    }

    /// Hands one frame to the service. False when the peer takes no more answers.
    async fn take(&mut self, frame: Frame) -> bool {
        while self.waiting.try_join_next().is_some() {}
        let slot = Streams::enter(&self.streams, frame.stream, self.shared.limits.calls);
        let incoming = match (frame.incoming(), &slot) {
            (Incoming::Broken(broken), _) => Incoming::Broken(broken),
            (_, Err(broken)) => Incoming::Broken(*broken),
            (readable, Ok(_)) => readable,
        };
        let deadline = match incoming {
            Incoming::Request(envelope) => u64::try_from(envelope.timeout_nano).unwrap_or(0),
            Incoming::Beginning(_) | Incoming::Broken(_) => 0,
        };
        match self.service.call(&self.session, incoming, frame.digest) {
            Reply::Now(answer) => self.answers.send(encode(frame.stream, answer)).await.is_ok(),
            Reply::Later(answer) => {
                let (answers, stream) = (self.answers.clone(), frame.stream);
                self.waiting.spawn(async move {
                    let answer = within(Duration::from_nanos(deadline), answer).await;
                    // A peer that is gone needs no answer.
                    let _ = answers.send(encode(stream, answer)).await;
                    drop(slot);
                });
                true
            }
        }
    }
}

/// Waits for an answer for as long as its caller wanted; zero is for ever, which the connection's end bounds.
async fn within(deadline: Duration, answer: LaterAnswer) -> Answer {
    match deadline.is_zero() {
        true => answer.await,
        false => timeout(deadline, answer).await.unwrap_or(Err(Status::TIMED_OUT)),
    }
}

fn encode(stream: u32, answer: Answer) -> Vec<u8> {
    response_frame(stream, answer.map_err(|status| (status.code as i32, status.text.to_owned())))
}

/// The stream ids of calls under way on one connection.
#[derive(Debug, Default)]
struct Streams {
    in_use: Mutex<HashSet<u32>>,
}

/// Holds a stream id until its answer is out.
#[derive(Debug)]
struct Slot {
    streams: Arc<Streams>,
    id: u32,
}

impl Streams {
    /// Client streams are odd and not in use (containerd/ttrpc, PROTOCOL.md). Increasing order is not asked for:
    /// clients that number calls before they queue them send some out of order.
    fn enter(this: &Arc<Self>, id: u32, limit: usize) -> Result<Slot, Broken> {
        let mut in_use = this.lock();
        if id.is_multiple_of(2) || in_use.contains(&id) {
            return Err(Broken::BadStream);
        }
        if in_use.len() >= limit {
            return Err(Broken::Crowded);
        }
        in_use.insert(id);
        Ok(Slot { streams: this.clone(), id })
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<u32>> {
        // A set of numbers is whole after any panic.
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.streams.lock().remove(&self.id);
    }
}
