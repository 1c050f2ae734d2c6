//! Bridges between tar, which blocks, and the tunnel, which does not: bounded, and each end notices when the other is gone.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::mpsc;

/// Bytes per message; a message crosses the tunnel as a whole.
pub(crate) const PIECE: usize = 256 << 10;
const QUEUE: usize = 8;

/// A blocking writer whose pieces an async task takes to the tunnel.
pub(crate) fn to_tunnel() -> (PipeWriter, mpsc::Receiver<Bytes>) {
    let (pieces, receiver) = mpsc::channel(QUEUE);
    (PipeWriter { buffer: BytesMut::with_capacity(PIECE), pieces }, receiver)
}

/// A blocking reader of what an async task takes from the tunnel.
pub(crate) fn from_tunnel() -> (mpsc::Sender<io::Result<Bytes>>, PipeReader) {
    let (pieces, receiver) = mpsc::channel(QUEUE);
    (pieces, PipeReader { current: Bytes::new(), pieces: receiver, ended: false })
}

#[derive(Debug)]
pub(crate) struct PipeWriter {
    buffer: BytesMut,
    pieces: mpsc::Sender<Bytes>,
}

impl PipeWriter {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = self.buffer.split().freeze();
        self.buffer.reserve(PIECE);
        self.pieces.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == PIECE {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

#[derive(Debug)]
pub(crate) struct PipeReader {
    current: Bytes,
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    ended: bool,
}

impl Read for PipeReader {
    /// The sender says the end with an empty piece; one that just goes away has been cut off.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.pieces.blocking_recv() {
                Some(piece) => {
                    self.current = piece?;
                    self.ended = self.current.is_empty();
                }
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the copy was interrupted")),
            }
        }
        let taken = out.len().min(self.current.len());
        self.current.copy_to_slice(&mut out[..taken]);
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_arrive_whole_and_in_order() {
        let (mut writer, mut receiver) = to_tunnel();
        let data: Vec<u8> = (0..PIECE * 3 + 17).map(|i| (i % 251) as u8).collect();
        let sent = data.clone();
        std::thread::spawn(move || writer.write_all(&sent).and_then(|()| writer.flush()));
        let (pieces, mut reader) = from_tunnel();
        let reading = std::thread::spawn(move || {
            let mut out = Vec::new();
            reader.read_to_end(&mut out).map(|_| out)
        });
        while let Some(piece) = receiver.recv().await {
            pieces.send(Ok(piece)).await.unwrap();
        }
        pieces.send(Ok(Bytes::new())).await.unwrap();
        assert_eq!(tokio::task::spawn_blocking(|| reading.join()).await.unwrap().unwrap().unwrap(), data);
    }

    #[tokio::test]
    async fn a_sender_that_vanishes_is_no_end_of_file() {
        let (pieces, mut reader) = from_tunnel();
        pieces.send(Ok(Bytes::from_static(b"half"))).await.unwrap();
        drop(pieces);
        let read = tokio::task::spawn_blocking(move || reader.read_to_end(&mut Vec::new())).await.unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_receiver_that_vanishes_stops_the_writer() {
        let (mut writer, receiver) = to_tunnel();
        drop(receiver);
        let written = tokio::task::spawn_blocking(move || writer.write_all(&[0; PIECE])).await.unwrap();
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
