//! Reads one frame in bounded memory: small ones whole, large ones whole only when their method is worth it.

use std::io;

use postern_api::ttrpc::{Envelope, FrameKind, HEADER_LENGTH, Header, MAX_BODY};
use postern_model::Sha256;
use ring::digest::{Context, SHA256};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{
    Broken, Incoming, Shared,
    pace::{UNIT, units},
};

/// A body up to this size is read whole whatever it is.
pub(super) const FIRST_BUFFER: usize = 64 << 10;
/// Largest body that is kept at all. An OCI specification of a Kubernetes pod is some tens of kilobytes.
const LARGEST_KEPT: usize = 1 << 20;

/// One frame, and the memory it was read into.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) stream: u32,
    /// SHA-256 of the body as it came in; of the header where the body is not read.
    pub(super) digest: Sha256,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Whole(Vec<u8>),
    Beginning(Vec<u8>),
    Broken(Broken),
}

impl Frame {
    pub(super) fn incoming(&self) -> Incoming<'_> {
        match &self.body {
            Body::Whole(bytes) => match Envelope::decode(bytes) {
                Ok(envelope) => Incoming::Request(envelope),
                Err(_) => Incoming::Broken(Broken::Unreadable),
            },
            Body::Beginning(bytes) => Incoming::Beginning(Envelope::peek(bytes)),
            Body::Broken(broken) => Incoming::Broken(*broken),
        }
    }
}

/// What a frame reader needs to know of its surroundings.
#[derive(Debug)]
pub(super) struct FrameReader<'a, K> {
    /// Says whether a large request of this service and method is kept.
    pub(super) keeps: K,
    pub(super) shared: &'a Shared,
}

impl<K: Fn(&str, &str) -> bool> FrameReader<'_, K> {
    /// Reads the rest of a frame whose header's first byte has come; gives also how many bytes of it are left to skip.
    pub(super) async fn read<R: AsyncRead + Unpin>(&self, first: u8, io: &mut R) -> io::Result<(Frame, u64)> {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[0] = first;
        io.read_exact(&mut bytes[1..]).await?;
        self.shared.pace.turn(1).await;
        let header = Header::decode(&bytes);
        let length = header.length as usize;
        let broken = if length > MAX_BODY {
            Some(Broken::TooLong)
        } else if header.kind != FrameKind::Request {
            Some(Broken::NotARequest)
        } else {
            None
        };
        if let Some(broken) = broken {
            let frame = Frame { stream: header.stream, digest: digest(&bytes), body: Body::Broken(broken) };
            return Ok((frame, length as u64));
        }
        let (body, digest) = self.body(length, io).await?;
        Ok((Frame { stream: header.stream, digest, body }, 0))
    }

    async fn body<R: AsyncRead + Unpin>(&self, length: usize, io: &mut R) -> io::Result<(Body, Sha256)> {
        let mut hash = Context::new(&SHA256);
        let mut bytes = vec![0; length.min(FIRST_BUFFER)];
        self.shared.pace.turn(units(bytes.len())).await;
        io.read_exact(&mut bytes).await?;
        hash.update(&bytes);
        if length <= FIRST_BUFFER {
            return Ok((Body::Whole(bytes), finish(hash)));
        }
        let named = Envelope::peek(&bytes);
        if length <= LARGEST_KEPT
            && (self.keeps)(named.service, named.method)
            && let Ok(_kept) = self.shared.large.try_acquire()
        {
            self.shared.pace.turn(units(length - FIRST_BUFFER)).await;
            bytes.resize(length, 0);
            io.read_exact(&mut bytes[FIRST_BUFFER..]).await?;
            hash.update(&bytes[FIRST_BUFFER..]);
            return Ok((Body::Whole(bytes), finish(hash)));
        }
        self.skip(io, (length - FIRST_BUFFER) as u64, |passed| hash.update(passed)).await?;
        Ok((Body::Beginning(bytes), finish(hash)))
    }

    /// Reads past `length` bytes.
    pub(super) async fn skip<R: AsyncRead + Unpin>(
        &self,
        io: &mut R,
        mut length: u64,
        mut passed: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut buffer = vec![0; UNIT];
        while length > 0 {
            self.shared.pace.turn(1).await;
            let wanted = buffer.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            let read = io.read_exact(&mut buffer[..wanted]).await?;
            passed(&buffer[..read]);
            length -= read as u64;
        }
        Ok(())
    }
}

fn digest(bytes: &[u8]) -> Sha256 {
    let mut hash = Context::new(&SHA256);
    hash.update(bytes);
    finish(hash)
}

fn finish(hash: Context) -> Sha256 {
    let mut bytes = [0; Sha256::LENGTH];
    bytes.copy_from_slice(hash.finish().as_ref());
    Sha256::new(bytes)
}
