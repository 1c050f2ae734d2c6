//! From an async task to a blocking one: a bounded queue of chunks that is read like a file.
//!
//! The end has to be said. A writer that just goes away (its task was cancelled, its connection broke) leaves the
//! reader with an error and never with what looks like a short file.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

/// Chunks on their way; with reads of some tens of KiB this is under a MiB.
const DEPTH: usize = 16;

pub(crate) fn pipe() -> (PipeWriter, PipeReader) {
    let (sender, receiver) = mpsc::channel(DEPTH);
    (PipeWriter { sender }, PipeReader { receiver, chunk: Bytes::new(), ended: false })
}

#[derive(Debug)]
pub(crate) struct PipeWriter {
    /// `None` is the end.
    sender: mpsc::Sender<Option<Bytes>>,
}

/// The reader has gone: it failed, and says why elsewhere.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReaderGone;

impl PipeWriter {
    pub(crate) async fn send(&self, chunk: Bytes) -> Result<(), ReaderGone> {
        if chunk.is_empty() {
            return Ok(());
        }
        self.sender.send(Some(chunk)).await.map_err(|_| ReaderGone)
    }

    pub(crate) async fn finish(self) -> Result<(), ReaderGone> {
        self.sender.send(None).await.map_err(|_| ReaderGone)
    }
}

/// Reads what the writer sends. Only for threads that may block.
#[derive(Debug)]
pub(crate) struct PipeReader {
    receiver: mpsc::Receiver<Option<Bytes>>,
    chunk: Bytes,
    ended: bool,
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Some(chunk)) => self.chunk = chunk,
                Some(None) => self.ended = true,
                None => {
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the transfer was cut off"));
                }
            }
        }
        let length = self.chunk.len().min(buffer.len());
        self.chunk.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn carries_bytes_and_their_end() {
        let (writer, mut reader) = pipe();
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map(|_| bytes)
        });
        for chunk in ["ab", "", "c"] {
            writer.send(Bytes::from_static(chunk.as_bytes())).await.unwrap();
        }
        writer.finish().await.unwrap();
        assert_eq!(read.await.unwrap().unwrap(), b"abc");
    }

    #[tokio::test]
    async fn a_writer_that_goes_away_is_no_end() {
        let (writer, mut reader) = pipe();
        writer.send(Bytes::from_static(b"ab")).await.unwrap();
        drop(writer);
        let read = tokio::task::spawn_blocking(move || reader.read_to_end(&mut Vec::new()));
        assert_eq!(read.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_stops_the_writer() {
        let (writer, reader) = pipe();
        drop(reader);
        assert_eq!(writer.send(Bytes::from_static(b"a")).await, Err(ReaderGone));
    }
}
