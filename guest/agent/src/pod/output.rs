//! Reads what a process prints, in pieces as large as it prints them, and knows when it has all been read.
//!
//! What a process wrote before it ended is in its pipes when its end is known. A child that it left behind may hold the
//! pipes open for ever; so after the end no more than a pipe's worth is read, and no longer than data keeps coming.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use postern_container::{Exit, ProcessOutput};
use postern_model::ExitStatus;
use tokio::{io::AsyncReadExt, time::timeout};

use super::log::Stream;

const FIRST_READ: usize = 4 << 10;
/// As much as one message to the owner should carry.
const LARGEST_READ: usize = 256 << 10;
/// What a pipe may still hold when its writer has ended.
const PIPE: usize = 1 << 20;
/// Readiness for bytes that are in the pipe already comes with the next look at the event queue.
const QUIET: Duration = Duration::from_millis(30);

/// A piece of output, or the end of the process; nothing comes after the end.
#[derive(Debug)]
pub(crate) enum Piece {
    Output(Stream, Bytes),
    End(ExitStatus),
}

/// One process's outputs.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: Source,
    stderr: Source,
    exit: Exit,
    ended: Option<ExitStatus>,
}

impl Output {
    pub(crate) fn new(stdout: Option<ProcessOutput>, stderr: Option<ProcessOutput>, exit: Exit) -> Self {
        Self { stdout: Source::new(stdout), stderr: Source::new(stderr), exit, ended: None }
    }

    /// The next piece. Must not be called after the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Piece {
        if self.ended.is_none() {
            // In no order: a flood on one output must not hide the other. An output that ends leaves the rest to go on.
            tokio::select! {
                Some(bytes) = self.stdout.read(), if self.stdout.is_open() => {
                    return Piece::Output(Stream::Stdout, bytes);
                }
                Some(bytes) = self.stderr.read(), if self.stderr.is_open() => {
                    return Piece::Output(Stream::Stderr, bytes);
                }
                status = self.exit.wait() => self.ended = Some(status),
            }
        }
        self.rest().await
    }

    async fn rest(&mut self) -> Piece {
        for (stream, source) in [(Stream::Stdout, &mut self.stdout), (Stream::Stderr, &mut self.stderr)] {
            if source.is_open() && source.left_after_end > 0 {
                if let Ok(Some(bytes)) = timeout(QUIET, source.read()).await {
                    source.left_after_end = source.left_after_end.saturating_sub(bytes.len());
                    return Piece::Output(stream, bytes);
                }
                source.pipe = None;
            }
        }
        Piece::End(self.ended.unwrap_or(ExitStatus::Signalled(9)))
    }
}

#[derive(Debug)]
struct Source {
    pipe: Option<ProcessOutput>,
    buffer: BytesMut,
    next_read: usize,
    left_after_end: usize,
}

impl Source {
    fn new(pipe: Option<ProcessOutput>) -> Self {
        Self { pipe, buffer: BytesMut::new(), next_read: FIRST_READ, left_after_end: PIPE }
    }

    fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// `None` at the end of the stream, however it came about.
    async fn read(&mut self) -> Option<Bytes> {
        let pipe = self.pipe.as_mut()?;
        self.buffer.reserve(self.next_read);
        match pipe.read_buf(&mut self.buffer).await {
            Ok(count @ 1..) => {
                // Grows while reads come back full, so that a quiet container costs little and a busy one is fast.
                self.next_read = match count {
                    _ if count >= self.next_read => (self.next_read * 4).min(LARGEST_READ),
                    _ if count < self.next_read / 8 => (self.next_read / 2).max(FIRST_READ),
                    _ => self.next_read,
                };
                Some(self.buffer.split().freeze())
            }
            Ok(0) | Err(_) => {
                self.pipe = None;
                None
            }
        }
    }
}
