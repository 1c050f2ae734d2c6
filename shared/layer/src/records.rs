//! The entries of a tar stream: ustar, GNU and pax, sparse files included.
//!
//! Headers are read with the `tar` crate's types; the framing around them is ours, because that crate's iterator holds
//! extension headers of any size in memory and splits pax records at newlines, and a layer is written by whoever made
//! the image. Nothing here touches a file system, so this is what a fuzzer feeds.

use std::io::{self, Read};

use tar::Header;

use crate::{
    pax::{Pax, PaxError},
    printable,
    sparse::{Segments, SparseError},
};

const BLOCK: usize = 512;
/// Bytes of one pax header: room for every attribute a file may carry in practice.
const MAX_PAX: u64 = 1 << 20;
/// Extension headers before one entry: a long name, a long link, a pax header, with room for odd writers.
const MAX_EXTENSIONS: usize = 8;

/// Why a stream is not a tar archive we take.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error("it ends in the middle of an entry")]
    Truncated,
    #[error("a header has a wrong checksum")]
    Checksum,
    #[error("a header has no valid {0}")]
    Field(&'static str),
    #[error("an extension header has {length} bytes; at most {limit} are allowed")]
    ExtensionTooLong { length: u64, limit: u64 },
    #[error("more than {MAX_EXTENSIONS} extension headers precede one entry")]
    TooManyExtensions,
    #[error("an extension header describes no entry")]
    DanglingExtension,
    #[error("a pax header is broken")]
    Pax(#[from] PaxError),
    #[error("sparse file {path:?} has a broken map")]
    Sparse { path: String, source: SparseError },
    #[error("entry {path:?} is of type {flag:?}, which is not supported")]
    Type { path: String, flag: char },
    #[error("the stream under it cannot be read")]
    Read(#[source] io::Error),
}

impl From<io::Error> for FormatError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Read(error),
        }
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    Fifo,
    Device,
}

/// One entry, its data still to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub path: Vec<u8>,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: (i64, u32),
    /// Bytes of the file, holes included.
    pub size: u64,
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A piece of a file's data.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunk {
    /// So many bytes were put into the buffer.
    Data(usize),
    /// So many zeros that are not in the archive.
    Hole(u64),
    End,
}

/// Reads a tar stream entry by entry.
#[derive(Debug)]
pub struct Records<R> {
    reader: R,
    max_link: u64,
    /// Of the entry at hand: bytes in the archive not read yet, padding behind them, and where they belong.
    stored: u64,
    padding: u64,
    segments: Segments,
    ended: bool,
}

impl<R: Read> Records<R> {
    /// Of an entry's path and link target no more than `path_bytes`, and a little, is read.
    pub fn new(reader: R, path_bytes: usize) -> Self {
        // A path one byte over the limit is refused with its length by the path's own check.
        let max_link = path_bytes as u64 + 512;
        Self { reader, max_link, stored: 0, padding: 0, segments: Segments::empty(), ended: false }
    }

    pub fn into_inner(self) -> R {
        self.reader
    }

    /// The next entry; what was not read of the one before is passed over.
    pub fn next_record(&mut self) -> Result<Option<Record>, FormatError> {
        self.skip_data()?;
        let mut extensions = Extensions::default();
        while let Some(header) = self.header()? {
            let flag = header.as_old().linkflag[0];
            match flag {
                b'L' => extensions.name = Some(without_nul(self.extension(&header, self.max_link)?)),
                b'K' => extensions.link = Some(without_nul(self.extension(&header, self.max_link)?)),
                b'x' => extensions.pax = Pax::parse(&self.extension(&header, MAX_PAX)?)?,
                // Defaults for the whole archive: nothing an unpacker of images honours.
                b'g' => {
                    self.begin(stored_size(&header)?)?;
                    self.skip_data()?;
                }
                _ => return self.entry(&header, extensions).map(Some),
            }
            extensions.count += 1;
            if extensions.count > MAX_EXTENSIONS {
                return Err(FormatError::TooManyExtensions);
            }
        }
        match extensions.count {
            0 => Ok(None),
            _ => Err(FormatError::DanglingExtension),
        }
    }

    /// The next piece of the entry's data.
    pub fn data(&mut self, buffer: &mut [u8]) -> Result<Chunk, FormatError> {
        let chunk = self.segments.next(buffer.len());
        if let Chunk::Data(wanted) = chunk {
            let read = self.reader.read(&mut buffer[..wanted])?;
            if read == 0 {
                return Err(FormatError::Truncated);
            }
            self.segments.consumed(read as u64);
            self.stored -= read as u64;
            return Ok(Chunk::Data(read));
        }
        Ok(chunk)
    }

    /// One header block; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, FormatError> {
        if self.ended {
            return Ok(None);
        }
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        // Writers exist that leave out the closing zero blocks.
        if self.reader.read(&mut block[..1])? == 0 {
            self.ended = true;
            return Ok(None);
        }
        self.reader.read_exact(&mut block[1..])?;
        if block.iter().all(|&c| c == 0) {
            self.ended = true;
            return Ok(None);
        }
        let (before, after) = (&block[..148], &block[156..]);
        let sum = before.iter().chain(after).map(|&c| i64::from(c)).sum::<i64>() + 8 * i64::from(b' ');
        match number(&header.as_old().cksum) {
            Some(expected) if expected == sum => Ok(Some(header)),
            _ => Err(FormatError::Checksum),
        }
    }

    fn extension(&mut self, header: &Header, limit: u64) -> Result<Vec<u8>, FormatError> {
        let length = stored_size(header)?;
        if length > limit {
            return Err(FormatError::ExtensionTooLong { length, limit });
        }
        self.begin(length)?;
        // Bounded by `limit`, and grown as bytes arrive.
        let mut bytes = Vec::new();
        (&mut self.reader).take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length {
            return Err(FormatError::Truncated);
        }
        self.stored = 0;
        self.skip_data()?;
        Ok(bytes)
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Record, FormatError> {
        let Extensions { name, link, mut pax, .. } = extensions;
        let path = pax
            .sparse
            .name
            .take()
            .or(pax.path.take())
            .or(name)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let target =
            || pax.link.clone().or(link).or_else(|| header.link_name_bytes().map(|l| l.into_owned()));
        let flag = header.as_old().linkflag[0];
        let kind = match flag {
            0 if path.ends_with(b"/") => Kind::Directory,
            b'0' | b'7' | b'S' | 0 => Kind::File,
            b'1' => Kind::HardLink(target().unwrap_or_default()),
            b'2' => Kind::Symlink(target().unwrap_or_default()),
            b'3' | b'4' => Kind::Device,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(FormatError::Type { path: printable(&path), flag: char::from(other) }),
        };
        let stored = match kind {
            Kind::File => match pax.size {
                Some(size) => size,
                None => stored_size(header)?,
            },
            // A size in these is a remark, not data, to every reader of images.
            _ => 0,
        };
        self.begin(stored)?;
        self.segments = match self.sparse_segments(header, flag, &kind, &pax) {
            Ok(segments) => segments,
            Err(MapError::Format(error)) => return Err(error),
            Err(MapError::Sparse(source)) => {
                return Err(FormatError::Sparse { path: printable(&path), source });
            }
        };
        let old = header.as_old();
        let field = |bytes: &[u8], name| number(bytes).ok_or(FormatError::Field(name));
        let owner = |pax: Option<u64>, bytes: &[u8], name| match pax {
            Some(id) => Ok(id),
            None => field(bytes, name).and_then(|id| u64::try_from(id).map_err(|_| FormatError::Field(name))),
        };
        Ok(Record {
            mode: (field(&old.mode, "mode")? & 0o7777) as u32,
            uid: owner(pax.uid, &old.uid, "uid")?,
            gid: owner(pax.gid, &old.gid, "gid")?,
            mtime: match pax.mtime {
                Some(mtime) => mtime,
                None => (field(&old.mtime, "mtime")?, 0),
            },
            size: self.segments.size(),
            attributes: pax.attributes,
            path,
            kind,
        })
    }

    /// Where the stored bytes belong in the file.
    fn sparse_segments(
        &mut self,
        header: &Header,
        flag: u8,
        kind: &Kind,
        pax: &Pax,
    ) -> Result<Segments, MapError> {
        if flag == b'S' {
            return self.gnu_sparse(header);
        }
        let sparse = &pax.sparse;
        match (kind, sparse.version, &sparse.map, sparse.real_size) {
            (Kind::File, Some(1), _, Some(size)) => {
                let map = Segments::read_map(&mut self.reader, &mut self.stored)?;
                Ok(Segments::new(map, size, self.stored)?)
            }
            (Kind::File, Some(0) | None, Some(map), Some(size)) => {
                Ok(Segments::new(Segments::parse_map(map)?, size, self.stored)?)
            }
            (Kind::File, Some(_), ..) => Err(MapError::Format(PaxError::SparseVersion.into())),
            _ => Ok(Segments::plain(self.stored)),
        }
    }

    fn gnu_sparse(&mut self, header: &Header) -> Result<Segments, MapError> {
        let gnu = header.as_gnu().ok_or(FormatError::Field("GNU sparse map"))?;
        let size = number(&gnu.realsize).and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or(FormatError::Field("real size"))?;
        let mut map = Vec::new();
        let mut more = gnu.isextended[0] == 1;
        Segments::push_gnu(&mut map, &gnu.sparse)?;
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            self.reader.read_exact(block.as_mut_bytes()).map_err(FormatError::from)?;
            Segments::push_gnu(&mut map, &block.sparse)?;
            more = block.isextended[0] == 1;
        }
        Ok(Segments::new(map, size, self.stored)?)
    }

    fn begin(&mut self, stored: u64) -> Result<(), FormatError> {
        self.padding =
            stored.checked_next_multiple_of(BLOCK as u64).ok_or(FormatError::Field("size"))? - stored;
        self.stored = stored;
        self.segments = Segments::empty();
        Ok(())
    }

    fn skip_data(&mut self) -> Result<(), FormatError> {
        let skipped = self.stored + self.padding;
        let passed = io::copy(&mut (&mut self.reader).take(skipped), &mut io::sink())?;
        (self.stored, self.padding, self.segments) = (0, 0, Segments::empty());
        // The last entry's padding is sometimes left out with the closing blocks; then nothing follows, and the
        // stream's digest says whether that is how it was made.
        if passed < skipped {
            return Err(FormatError::Truncated);
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Pax,
    count: usize,
}

#[derive(Debug)]
enum MapError {
    Format(FormatError),
    Sparse(SparseError),
}

impl From<FormatError> for MapError {
    fn from(error: FormatError) -> Self {
        Self::Format(error)
    }
}

impl From<SparseError> for MapError {
    fn from(error: SparseError) -> Self {
        match error {
            SparseError::Read(error) => Self::Format(error.into()),
            error => Self::Sparse(error),
        }
    }
}

fn stored_size(header: &Header) -> Result<u64, FormatError> {
    number(&header.as_old().size).and_then(|size| u64::try_from(size).ok()).ok_or(FormatError::Field("size"))
}

/// A numeric field: octal digits between blanks, none at all for 0, or GNU's base-256 with the top bit set.
pub(crate) fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Two's complement, most significant byte first; bit 6 of the first byte is the sign.
        let start = if first & 0x40 != 0 { -1 } else { 0 };
        let start = (start << 6) | i64::from(first & 0x3f);
        return rest.iter().try_fold(start, |value, &c| Some(value.checked_mul(256)? + i64::from(c)));
    }
    let end = field.iter().position(|&c| c == 0).unwrap_or(field.len());
    let digits = field[..end].trim_ascii();
    digits.iter().try_fold(0_i64, |value, c| match c {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(c - b'0')),
        _ => None,
    })
}

/// GNU long names end in a NUL.
fn without_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|&c| c == 0) {
        bytes.truncate(end);
    }
    bytes
}

#[cfg(test)]
mod tests;
