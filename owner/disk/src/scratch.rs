//! The bytes of all files of an image, one after the other in a temporary file, until it is known which of them stay.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    os::unix::fs::FileExt,
    path::Path,
};

/// Where a file's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    offset: u64,
    pub(crate) size: u64,
}

pub(crate) struct Scratch {
    file: BufWriter<File>,
    length: u64,
}

impl Scratch {
    /// A file without a name in `directory`, gone when it is dropped.
    pub(crate) fn new(directory: &Path) -> io::Result<Self> {
        let file = tempfile::tempfile_in(directory)?;
        Ok(Self { file: BufWriter::with_capacity(256 << 10, file), length: 0 })
    }

    pub(crate) fn append(&mut self, content: impl Read) -> io::Result<Extent> {
        let mut extent = Extent { offset: self.length, size: 0 };
        self.extend(&mut extent, content)?;
        Ok(extent)
    }

    /// Adds to what was appended last.
    pub(crate) fn extend(&mut self, extent: &mut Extent, mut content: impl Read) -> io::Result<()> {
        debug_assert!(extent.offset + extent.size == self.length);
        let size = io::copy(&mut content, &mut self.file)?;
        extent.size += size;
        self.length += size;
        Ok(())
    }

    pub(crate) fn finish(self) -> io::Result<Stored> {
        Ok(Stored(self.file.into_inner().map_err(io::IntoInnerError::into_error)?))
    }
}

/// A scratch file that is complete.
pub(crate) struct Stored(File);

impl Stored {
    /// Bytes of `extent` from `from` on, as many as `buffer` takes.
    pub(crate) fn read(&self, extent: Extent, from: u64, buffer: &mut [u8]) -> io::Result<()> {
        debug_assert!(from + buffer.len() as u64 <= extent.size);
        self.0.read_exact_at(buffer, extent.offset + from)
    }

    /// Copies the first `length` bytes of `extent`.
    pub(crate) fn copy(&self, extent: Extent, length: u64, out: &mut impl Write) -> io::Result<()> {
        let mut buffer = vec![0; 128 << 10];
        let mut done = 0;
        while done < length {
            let piece = usize::try_from(length - done).map_or(buffer.len(), |left| left.min(buffer.len()));
            self.read(extent, done, &mut buffer[..piece])?;
            out.write_all(&buffer[..piece])?;
            done += piece as u64;
        }
        Ok(())
    }
}

/// For [`Scratch::append`]: reading stops with an error once there is more than `limit`.
pub(crate) struct Bounded<R> {
    pub(crate) inner: R,
    pub(crate) left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::FileTooLarge, "it unpacks to more than is allowed")
        })?;
        Ok(read)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An extent for those who do not look at the bytes.
    pub(crate) fn extent(size: u64) -> Extent {
        Extent { offset: 0, size }
    }

    #[test]
    fn gives_back_what_it_took() {
        let mut scratch = Scratch::new(&std::env::temp_dir()).unwrap();
        scratch.append(&b"first"[..]).unwrap();
        let second = scratch.append(&b"second"[..]).unwrap();
        let stored = scratch.finish().unwrap();
        let mut out = Vec::new();
        stored.copy(second, 6, &mut out).unwrap();
        assert_eq!(out, b"second");
    }

    #[test]
    fn stops_at_its_bound() {
        let read = |left| io::copy(&mut Bounded { inner: &b"12345"[..], left }, &mut io::sink());
        assert_eq!(read(5).unwrap(), 5);
        assert_eq!(read(4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
