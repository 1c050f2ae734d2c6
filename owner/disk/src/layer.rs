//! One layer: decompressed, checked against both of its digests, and laid over what is there.
//!
//! Read by the code that a pod's own store reads it with, and as there: device nodes and attributes that mean nothing in a guest are left out, attributes with which
//! an image could speak to overlayfs are refused.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read},
};

use postern_layer::{Chunk, Disposition, FormatError, Kind, Record, Records, disposition, printable};
use postern_model::Sha256;
use ring::digest::{Context, SHA256};

use crate::{
    scratch::{Bounded, Extent, Scratch},
    tree::{Change, MAX_PATH, Meta, PlaceError, Tree},
};

/// Bytes of one layer once it is decompressed, and of its files, as a pod's own store bounds them.
const MAX_LAYER: u64 = 16 << 30;
const BUFFER: usize = 128 << 10;

/// Why a layer was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    #[error("it is not a valid tar archive")]
    Format(#[from] FormatError),
    #[error("entry {path:?} is refused")]
    Entry { path: String, source: PlaceError },
    #[error("its files have more than {MAX_LAYER} bytes")]
    TooLarge,
    #[error("its files cannot be kept aside")]
    Keep(#[source] io::Error),
    #[error("its content has the digest {found}; the manifest says {expected}")]
    Digest { expected: Sha256, found: Sha256 },
    #[error("it unpacks to the diff id {found}; the image's configuration says {expected}")]
    DiffId { expected: Sha256, found: Sha256 },
}

/// A layer as it is stored.
pub struct LayerBlob<'a> {
    pub content: Box<dyn Read + 'a>,
    /// Of the bytes as they are stored; an archive of `docker save` does not say.
    pub digest: Option<Sha256>,
    /// Of the bytes once they are decompressed.
    pub diff_id: Sha256,
}

impl std::fmt::Debug for LayerBlob<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerBlob").field("digest", &self.digest).field("diff_id", &self.diff_id).finish()
    }
}

/// Lays `layer` over `tree`, its files' bytes into `scratch`.
pub(crate) fn apply(layer: LayerBlob<'_>, tree: &mut Tree, scratch: &mut Scratch) -> Result<(), LayerError> {
    let LayerBlob { content, digest, diff_id } = layer;
    let mut stored = BufReader::with_capacity(128 << 10, Hashed::new(content));
    let magic = stored.fill_buf()?;
    let unpacked: Box<dyn Read + '_> = match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(&mut stored)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(&mut stored)?),
        _ => Box::new(&mut stored),
    };
    let mut bounded = Hashed::new(Bounded { inner: unpacked, left: MAX_LAYER });
    Unpacker { tree, scratch, left: MAX_LAYER, buffer: vec![0; BUFFER] }.unpack(&mut bounded)?;
    // The digests cover what follows the archive's end, too.
    io::copy(&mut bounded, &mut io::sink())?;
    let found = bounded.finish();
    io::copy(&mut stored, &mut io::sink())?;
    let blob = stored.into_inner().finish();
    match digest {
        Some(expected) if expected != blob => Err(LayerError::Digest { expected, found: blob }),
        _ if found != diff_id => Err(LayerError::DiffId { expected: diff_id, found }),
        _ => Ok(()),
    }
}

struct Unpacker<'a> {
    tree: &'a mut Tree,
    scratch: &'a mut Scratch,
    /// Bytes that files may still take, holes of sparse ones included.
    left: u64,
    buffer: Vec<u8>,
}

impl Unpacker<'_> {
    fn unpack(&mut self, stream: impl Read) -> Result<(), LayerError> {
        let mut records = Records::new(stream, MAX_PATH);
        while let Some(mut record) = records.next_record()? {
            let refused = |path: &[u8], source| LayerError::Entry { path: printable(path), source };
            let meta = meta(&mut record).map_err(|source| refused(&record.path, source))?;
            let change = match record.kind {
                Kind::Directory => Change::Directory(meta),
                Kind::File => Change::File(meta, self.content(record.size, &mut records)?),
                Kind::Symlink(target) => Change::Symlink(meta, target),
                Kind::HardLink(target) => Change::HardLink(target),
                Kind::Fifo => Change::Fifo(meta),
                // A container gets its own.
                Kind::Device => continue,
            };
            self.tree.apply(&record.path, change).map_err(|source| refused(&record.path, source))?;
        }
        Ok(())
    }

    /// The bytes of the file at hand, holes as the zeros they stand for.
    fn content(&mut self, size: u64, records: &mut Records<impl Read>) -> Result<Extent, LayerError> {
        self.left = self.left.checked_sub(size).ok_or(LayerError::TooLarge)?;
        let mut extent = self.scratch.append(io::empty()).map_err(LayerError::Keep)?;
        loop {
            let kept = match records.data(&mut self.buffer)? {
                Chunk::Data(length) => self.scratch.extend(&mut extent, &self.buffer[..length]),
                Chunk::Hole(length) => self.scratch.extend(&mut extent, io::repeat(0).take(length)),
                Chunk::End => return Ok(extent),
            };
            kept.map_err(LayerError::Keep)?;
        }
    }
}

fn meta(record: &mut Record) -> Result<Meta, PlaceError> {
    // The last id means "no change" to Linux.
    let id = |id: u64| u32::try_from(id).ok().filter(|&id| id != u32::MAX).ok_or(PlaceError::Owner(id));
    let mut attributes = BTreeMap::new();
    for (name, value) in record.attributes.drain(..) {
        match disposition(&name) {
            Disposition::Keep | Disposition::KeepIfPossible => drop(attributes.insert(name, value)),
            Disposition::Skip => {}
            Disposition::Refuse => return Err(PlaceError::Attribute(printable(&name))),
        }
    }
    Ok(Meta {
        // Twelve bits fit.
        mode: u16::try_from(record.mode & 0o7777).unwrap_or_default(),
        uid: id(record.uid)?,
        gid: id(record.gid)?,
        mtime: record.mtime,
        attributes,
    })
}

/// A reader that knows the digest of what went through.
struct Hashed<R> {
    inner: R,
    context: Context,
}

impl<R: Read> Hashed<R> {
    fn new(inner: R) -> Self {
        Self { inner, context: Context::new(&SHA256) }
    }

    fn finish(self) -> Sha256 {
        crate::verity::sha256_of(self.context)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.context.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
