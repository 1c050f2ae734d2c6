//! Reads beneath TLS in large pieces while data flows.
//!
//! The TLS library asks its transport for 4 KiB at a time; bulk data would cost a system call for each. An idle
//! connection holds no buffer: one is made when a read came back full, and goes when one did not.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What one read asks for: a few TLS records, and still well within a processor's second cache.
const PIECE: usize = 64 << 10;

/// A transport that reads ahead. Writes go straight through.
#[derive(Debug)]
pub struct ReadAhead<IO> {
    io: IO,
    /// Empty, or of [`PIECE`] bytes.
    buffer: Vec<u8>,
    /// What of the buffer has not been taken yet.
    start: usize,
    end: usize,
    /// The last read was all that was asked for: there is more.
    flowing: bool,
}

impl<IO> ReadAhead<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self { io, buffer: Vec::new(), start: 0, end: 0, flowing: false }
    }
}

impl<IO: AsyncRead + Unpin> ReadAhead<IO> {
    /// Passes a read through, as long as reads are small.
    fn poll_direct(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, out))?;
        self.flowing = out.filled().len() > before && out.remaining() == 0;
        Poll::Ready(Ok(()))
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; PIECE];
        }
        let mut piece = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut piece))?;
        (self.start, self.end) = (0, piece.filled().len());
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for ReadAhead<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.start == this.end {
            if !this.flowing || out.remaining() >= PIECE {
                return this.poll_direct(cx, out);
            }
            match this.poll_fill(cx) {
                Poll::Ready(filled) => filled?,
                // Nothing is under way: whoever waits holds no buffer.
                Poll::Pending => {
                    (this.buffer, this.flowing) = (Vec::new(), false);
                    return Poll::Pending;
                }
            }
        }
        let taken = out.remaining().min(this.end - this.start);
        out.put_slice(&this.buffer[this.start..this.start + taken]);
        this.start += taken;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for ReadAhead<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn everything_arrives_in_order_whatever_the_sizes() {
        let data: Vec<u8> = (0..1_000_003u32).map(|at| (at % 251) as u8).collect();
        for size in [1, 100, 4096, PIECE - 1, PIECE, PIECE + 1] {
            let (mut writer, reader) = tokio::io::duplex(300_000);
            let sent = data.clone();
            let writing = tokio::spawn(async move { writer.write_all(&sent).await });
            let mut reader = ReadAhead::new(reader);
            let (mut read, mut piece) = (Vec::new(), vec![0; size]);
            while let count @ 1.. = reader.read(&mut piece).await.unwrap() {
                read.extend_from_slice(&piece[..count]);
            }
            writing.await.unwrap().unwrap();
            assert!(read == data, "{size}");
        }
    }

    #[tokio::test]
    async fn an_idle_connection_holds_no_buffer() {
        let (mut writer, reader) = tokio::io::duplex(300_000);
        let mut reader = ReadAhead::new(reader);
        let mut piece = vec![0; 4096];
        writer.write_all(&[7; 100]).await.unwrap();
        assert_eq!(reader.read(&mut piece).await.unwrap(), 100);
        assert!(reader.buffer.is_empty(), "a small read needs none");
        writer.write_all(&[7; 50_000]).await.unwrap();
        reader.read_exact(&mut [0; 50_000]).await.unwrap();
        let mut context = Context::from_waker(std::task::Waker::noop());
        for _ in 0..3 {
            let mut out = ReadBuf::new(&mut piece);
            assert!(Pin::new(&mut reader).poll_read(&mut context, &mut out).is_pending());
        }
        assert!(reader.buffer.is_empty(), "nothing flows");
        drop(writer);
        assert_eq!(reader.read(&mut piece).await.unwrap(), 0);
    }
}
