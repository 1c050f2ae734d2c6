//! One layer: decompressed, checked against both of its digests, and laid over what is there.
//!
//! As in a pod's own store: device nodes and attributes that mean nothing in a guest are left out, attributes with which
//! an image could speak to overlayfs are refused.

mod pax;

use std::io::{self, BufRead, BufReader, Read};

use postern_model::Sha256;
use ring::digest::{Context, SHA256};
use tar::EntryType;

use self::pax::Pax;
pub use self::pax::PaxError;
use crate::{
    scratch::{Bounded, Scratch},
    tree::{Change, Meta, PlaceError, Tree},
};

/// Bytes of one layer once it is decompressed, as a pod's own store bounds them.
const MAX_LAYER: u64 = 16 << 30;
/// Bytes of an extended header, or of a long name.
const MAX_HEADER: u64 = 1 << 20;

/// Why a layer was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    #[error("entry {path:?} has an extended header that is not valid")]
    Pax { path: String, source: PaxError },
    #[error("entry {path:?} is refused")]
    Entry { path: String, source: PlaceError },
    #[error("entry {path:?} is a sparse file of a kind that is not supported; push the image instead")]
    Sparse { path: String },
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
    Unpacker { tree, scratch, long: Long::default() }.unpack(&mut bounded)?;
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
    long: Long,
}

/// What headers before an entry say of it.
#[derive(Default)]
struct Long {
    pax: Pax,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Unpacker<'_> {
    fn unpack(&mut self, stream: impl Read) -> Result<(), LayerError> {
        let mut archive = tar::Archive::new(stream);
        // Raw, because the library reads extended headers line by line, and a file capability may hold a newline.
        for entry in archive.entries()?.raw(true) {
            self.entry(entry?)?;
        }
        Ok(())
    }

    fn entry(&mut self, mut entry: tar::Entry<'_, impl Read>) -> Result<(), LayerError> {
        let kind = entry.header().entry_type();
        let extension = matches!(kind, EntryType::XHeader | EntryType::GNULongName | EntryType::GNULongLink);
        if extension {
            let mut bytes = Vec::new();
            Bounded { inner: &mut entry, left: MAX_HEADER }.read_to_end(&mut bytes)?;
            match kind {
                EntryType::XHeader => {
                    let path = || entry.path_bytes().escape_ascii().to_string();
                    self.long.pax =
                        Pax::parse(&bytes).map_err(|source| LayerError::Pax { path: path(), source })?;
                }
                EntryType::GNULongName => self.long.path = Some(until_nul(bytes)),
                _ => self.long.link = Some(until_nul(bytes)),
            }
            return Ok(());
        }
        let Long { pax, path, link } = std::mem::take(&mut self.long);
        let path = pax.path.clone().or(path).unwrap_or_else(|| entry.path_bytes().into_owned());
        let shown = || path.escape_ascii().to_string();
        if kind == EntryType::GNUSparse || pax.sparse || pax.size.is_some_and(|size| size != entry.size()) {
            return Err(LayerError::Sparse { path: shown() });
        }
        let refused = |source| LayerError::Entry { path: shown(), source };
        let meta = meta(&entry, &pax).map_err(|error| match error {
            MetaError::Place(source) => refused(source),
            MetaError::Read(error) => error.into(),
        })?;
        let link = pax.link.or(link).or_else(|| entry.link_name_bytes().map(std::borrow::Cow::into_owned));
        let link = link.unwrap_or_default();
        let change = match kind {
            // A directory in the oldest archives is a file whose name ends so.
            EntryType::Regular if path.ends_with(b"/") => Change::Directory(meta),
            EntryType::Regular | EntryType::Continuous => {
                Change::File(meta, self.scratch.append(&mut entry)?)
            }
            EntryType::Directory => Change::Directory(meta),
            EntryType::Symlink => Change::Symlink(meta, link),
            EntryType::Link => Change::HardLink(link),
            EntryType::Fifo => Change::Fifo(meta),
            // Devices: a container gets its own. Global headers and unknown kinds describe no file.
            _ => return Ok(()),
        };
        self.tree.apply(&path, change).map_err(refused)
    }
}

enum MetaError {
    Place(PlaceError),
    Read(io::Error),
}

impl From<io::Error> for MetaError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

fn meta(entry: &tar::Entry<'_, impl Read>, pax: &Pax) -> Result<Meta, MetaError> {
    let header = entry.header();
    // Tools leave a field empty that is zero.
    let plain = |field: std::ops::Range<usize>, read: io::Result<u64>| {
        let empty = header.as_bytes()[field].iter().all(|c| matches!(c, 0 | b' '));
        if empty { Ok(0) } else { read }
    };
    let id = |extended: Option<u64>, plain: io::Result<u64>| -> io::Result<u32> {
        let id = extended.map_or(plain, Ok)?;
        // The last id means "no change" to Linux.
        u32::try_from(id).ok().filter(|&id| id != u32::MAX).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("owner {id} is no user or group of Linux"))
        })
    };
    let mut attributes = std::collections::BTreeMap::new();
    for (name, value) in &pax.attributes {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") || name.contains(&0) {
            return Err(MetaError::Place(PlaceError::Attribute(name.escape_ascii().to_string())));
        }
        if name == b"security.capability" || name.starts_with(b"user.") {
            attributes.insert(name.clone(), value.clone());
        }
    }
    Ok(Meta {
        // Twelve bits fit.
        mode: u16::try_from(plain(100..108, header.mode().map(u64::from))? & 0o7777).unwrap_or_default(),
        uid: id(pax.uid, plain(108..116, header.uid()))?,
        gid: id(pax.gid, plain(116..124, header.gid()))?,
        mtime: match pax.mtime {
            Some(mtime) => mtime,
            None => (i64::try_from(plain(136..148, header.mtime())?).unwrap_or_default(), 0),
        },
        attributes,
    })
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|&c| c == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
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
