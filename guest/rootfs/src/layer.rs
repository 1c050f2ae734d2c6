//! One layer from its bytes to its directory: counted, decompressed, hashed on both sides, unpacked.
//!
//! Nothing of it counts before the end: the directory becomes a layer only when both digests are right.

use std::{
    cell::RefCell,
    io::{self, Read},
    os::fd::OwnedFd,
    rc::Rc,
};

use postern_layer::FormatError;
use postern_model::Sha256;
use rustix::io::Errno;

use crate::{
    Limits,
    budget::Charge,
    limits::ENTRY_COST,
    stream::{Compression, Decoder, Hashed},
    unpack::{UnpackError, Unpacked, unpack},
};

/// Why a layer was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("it ends after {received} of {expected} bytes")]
    Truncated { received: u64, expected: u64 },
    #[error("it has more than the {expected} bytes its manifest says")]
    TooLong { expected: u64 },
    #[error("its content has the digest {found}; the manifest says {expected}")]
    Digest { expected: Sha256, found: Sha256 },
    #[error("it unpacks to the diff id {found}; the image's configuration says {expected}")]
    DiffId { expected: Sha256, found: Sha256 },
    #[error("it grows more than {ratio} times when decompressed, which is what a decompression bomb does")]
    Expansion { ratio: u64 },
    #[error("it decompresses to more than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("it is not a valid {compression} stream")]
    Compression { compression: &'static str, source: io::Error },
    #[error("its transfer was cut off")]
    CutOff,
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error("its directory cannot be made ({0})")]
    Directory(#[from] Errno),
    #[error("the thread that unpacked it ended early")]
    Stopped,
}

/// What a layer has to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// Of the bytes as they are stored; an archive of `docker save` names neither.
    pub(crate) blob: Option<(Sha256, u64)>,
    pub(crate) diff_id: Sha256,
}

/// Unpacks `stream` into the empty directory `root`.
pub(crate) fn ingest(
    stream: impl Read,
    expected: &Expected,
    root: OwnedFd,
    limits: &Limits,
    charge: &mut Charge,
) -> Result<Unpacked, LayerError> {
    let watch = Rc::new(RefCell::new(Watch::default()));
    let size = expected.blob.map(|(_, size)| size);
    let mut compressed = Hashed::new(Stored { inner: stream, size, watch: Rc::clone(&watch) });
    let decoder = Decoder::new(&mut compressed);
    let compression = decoder.as_ref().map_or(Compression::None, Decoder::compression);
    let done = decoder.map_err(|error| UnpackError::Format(error.into())).and_then(|decoder| {
        let bounded = Expanded { inner: decoder, count: 0, limits, watch: Rc::clone(&watch) };
        let (unpacked, mut content) = unpack(Hashed::new(bounded), root, limits, charge)?;
        // The diff id covers what follows the archive's end, too.
        io::copy(&mut content, &mut io::sink()).map_err(FormatError::from)?;
        Ok((unpacked, content.finish().0))
    });
    let (unpacked, diff_id) = done.map_err(|error| explain(error, &watch, compression))?;
    io::copy(&mut compressed, &mut io::sink())
        .map_err(|error| explain(FormatError::from(error).into(), &watch, compression))?;
    let (digest, _) = compressed.finish();
    match expected.blob {
        Some((expected, _)) if expected != digest => Err(LayerError::Digest { expected, found: digest }),
        _ if expected.diff_id != diff_id => {
            Err(LayerError::DiffId { expected: expected.diff_id, found: diff_id })
        }
        _ => Ok(unpacked),
    }
}

/// What the readers saw. Decoders in between pass on an `io::Error` at most.
#[derive(Debug, Default)]
struct Watch {
    received: u64,
    fault: Option<LayerError>,
}

impl Watch {
    fn fail(&mut self, fault: LayerError) -> io::Error {
        self.fault = Some(fault);
        io::Error::other("stopped")
    }
}

fn explain(error: UnpackError, watch: &RefCell<Watch>, compression: Compression) -> LayerError {
    if let Some(fault) = watch.borrow_mut().fault.take() {
        return fault;
    }
    match error {
        UnpackError::Format(FormatError::Read(source)) => {
            LayerError::Compression { compression: compression.as_str(), source }
        }
        UnpackError::Format(FormatError::Truncated) if compression != Compression::None => {
            LayerError::Compression {
                compression: compression.as_str(),
                source: io::ErrorKind::UnexpectedEof.into(),
            }
        }
        error => error.into(),
    }
}

/// The bytes as they are stored, held to the size they should have.
struct Stored<R> {
    inner: R,
    size: Option<u64>,
    watch: Rc<RefCell<Watch>>,
}

impl<R: Read> Read for Stored<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut watch = self.watch.borrow_mut();
        let length = match self.inner.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
                return Err(watch.fail(LayerError::CutOff));
            }
            read => read?,
        };
        watch.received += length as u64;
        let received = watch.received;
        match self.size {
            Some(expected) if received > expected => Err(watch.fail(LayerError::TooLong { expected })),
            Some(expected) if length == 0 && !buffer.is_empty() && received < expected => {
                Err(watch.fail(LayerError::Truncated { received, expected }))
            }
            _ => Ok(length),
        }
    }
}

/// The decompressed bytes, held to what a layer may become.
struct Expanded<'a, R> {
    inner: R,
    count: u64,
    limits: &'a Limits,
    watch: Rc<RefCell<Watch>>,
}

impl<R: Read> Read for Expanded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.count += length as u64;
        let mut watch = self.watch.borrow_mut();
        let Limits { expansion_ratio: ratio, expansion_floor, layer_bytes, entries_per_layer, .. } =
            *self.limits;
        // Headers come on top of the files' bytes.
        let limit = layer_bytes.saturating_add(entries_per_layer.saturating_mul(2 * ENTRY_COST));
        if self.count > limit {
            return Err(watch.fail(LayerError::TooLarge { limit }));
        }
        if self.count > expansion_floor && self.count / ratio > watch.received {
            return Err(watch.fail(LayerError::Expansion { ratio }));
        }
        Ok(length)
    }
}
