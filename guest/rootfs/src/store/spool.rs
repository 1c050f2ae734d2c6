//! The files of an image archive, kept aside until it is known what they are.
//!
//! Archives come in any order: the manifest is often last. So every file goes to disk once, hashed on the way, and a
//! layer gives its room back while it is read. That way an archive needs little more room than the larger of its two
//! forms.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError},
};

use postern_layer::{Chunk, FormatError, Kind, Records, printable};
use postern_model::Sha256;
use ring::digest;
use rustix::{
    fs::{FallocateFlags, Mode, OFlags, fallocate, openat},
    io::{Errno, write},
};

use super::area::Temporary;
use crate::{
    Limits,
    budget::{Charge, NoSpace},
    limits::ENTRY_COST,
    stream::Decoder,
    unpack::{EntryPath, PathError},
};

const BUFFER: usize = 128 << 10;
/// A layer's room is given back in pieces of this size.
const PUNCH: u64 = 1 << 20;
/// Bytes of a file's name in an archive: all names are held in memory at once.
const MAX_NAME: usize = 512;
/// Symbolic links between an archive's files that are followed (`docker save` makes one per repeated layer).
const MAX_LINKS: usize = 8;

/// Why an archive's files could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("it is not a valid tar archive")]
    Format(#[from] FormatError),
    #[error("it has more than {0} entries")]
    TooManyEntries(usize),
    #[error("the name {name:?} in it cannot be used")]
    Name { name: String, source: PathError },
    #[error("its file {name:?} has the digest {found}")]
    Digest { name: String, found: Sha256 },
    #[error("there is no space for it")]
    NoSpace(#[from] NoSpace),
    #[error("its file {name:?} cannot be stored ({errno})")]
    Write { name: String, errno: Errno },
    #[error("its stream cannot be decompressed")]
    Decompress(#[source] io::Error),
}

#[derive(Debug)]
pub(crate) struct Spool {
    directory: Temporary,
    entries: BTreeMap<Vec<u8>, Entry>,
    charge: Arc<Mutex<Charge>>,
}

#[derive(Debug)]
enum Entry {
    File(SpooledFile),
    Link(Vec<u8>),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct SpooledFile {
    number: usize,
    pub(crate) size: u64,
    pub(crate) digest: Sha256,
}

impl Spool {
    /// Reads the whole archive. Blocks.
    pub(crate) fn fill(
        archive: impl Read,
        directory: Temporary,
        charge: Charge,
        limits: &Limits,
    ) -> Result<Self, SpoolError> {
        let decoder = Decoder::new(archive).map_err(SpoolError::Decompress)?;
        let limits = &Limits { path_bytes: MAX_NAME, ..limits.clone() };
        let mut records = Records::new(decoder, limits.path_bytes);
        let mut spool = Self { directory, entries: BTreeMap::new(), charge: Arc::new(Mutex::new(charge)) };
        let mut count = 0;
        while let Some(record) = records.next_record()? {
            count += 1;
            if count > limits.archive_entries {
                return Err(SpoolError::TooManyEntries(limits.archive_entries));
            }
            let path = EntryPath::parse(&record.path, limits)
                .map_err(|source| SpoolError::Name { name: printable(&record.path), source })?;
            let entry = match record.kind {
                Kind::File => Entry::File(spool.store(count, path.as_bytes(), &mut records)?),
                Kind::Symlink(target) => Entry::Link(beside(path.parent(), &target)),
                Kind::HardLink(target) => Entry::Link(beside(b"", &target)),
                Kind::Directory | Kind::Fifo | Kind::Device => continue,
            };
            spool.take(ENTRY_COST)?;
            spool.entries.insert(path.as_bytes().to_vec(), entry);
        }
        // What follows is drained so that the sender can finish.
        io::copy(&mut records.into_inner(), &mut io::sink()).map_err(FormatError::from)?;
        Ok(spool)
    }

    fn store<R: Read>(
        &self,
        number: usize,
        name: &[u8],
        records: &mut Records<R>,
    ) -> Result<SpooledFile, SpoolError> {
        let failed = |errno| match errno {
            Errno::NOSPC | Errno::DQUOT => SpoolError::NoSpace(self.charge().budget().full()),
            errno => SpoolError::Write { name: printable(name), errno },
        };
        let file = self.open(number, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL).map_err(failed)?;
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut buffer = vec![0; BUFFER];
        let mut size = 0;
        loop {
            let data = match records.data(&mut buffer)? {
                Chunk::Data(length) => &buffer[..length],
                // A sparse file: nobody packs images so, but it is well defined.
                Chunk::Hole(mut length) => {
                    while length > 0 {
                        let piece = length.min(BUFFER as u64) as usize;
                        buffer[..piece].fill(0);
                        self.append(&file, &buffer[..piece], &mut hash)
                            .map_err(|e| e.map_or_else(failed, Into::into))?;
                        size += piece as u64;
                        length -= piece as u64;
                    }
                    continue;
                }
                Chunk::End => break,
            };
            self.append(&file, data, &mut hash).map_err(|e| e.map_or_else(failed, Into::into))?;
            size += data.len() as u64;
        }
        let mut bytes = [0; Sha256::LENGTH];
        bytes.copy_from_slice(hash.finish().as_ref());
        let digest = Sha256::new(bytes);
        if let Some(named) = name.strip_prefix(b"blobs/sha256/")
            && named != digest.to_hex().as_bytes()
        {
            return Err(SpoolError::Digest { name: printable(name), found: digest });
        }
        Ok(SpooledFile { number, size, digest })
    }

    fn append(&self, file: &File, mut data: &[u8], hash: &mut digest::Context) -> Result<(), AppendError> {
        self.take(data.len() as u64).map_err(AppendError::NoSpace)?;
        hash.update(data);
        while !data.is_empty() {
            let written = write(file, data).map_err(AppendError::Write)?;
            data = &data[written..];
        }
        Ok(())
    }

    fn take(&self, bytes: u64) -> Result<(), NoSpace> {
        self.charge().take(bytes)
    }

    fn charge(&self) -> std::sync::MutexGuard<'_, Charge> {
        self.charge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, number: usize, flags: OFlags) -> Result<File, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = self.directory.open()?;
        Ok(File::from(openat(&directory, number.to_string(), flags, Mode::RUSR | Mode::WUSR)?))
    }

    /// The file called `name`, through links between the archive's own files.
    pub(crate) fn file(&self, name: &str) -> Option<SpooledFile> {
        let mut name = name.strip_prefix("./").unwrap_or(name).as_bytes();
        for _ in 0..MAX_LINKS {
            match self.entries.get(name)? {
                Entry::File(file) => return Some(*file),
                Entry::Link(target) => name = target,
            }
        }
        None
    }

    pub(crate) fn blob(&self, digest: &Sha256) -> Option<SpooledFile> {
        self.file(&format!("blobs/sha256/{}", digest.to_hex()))
    }

    /// The whole of a file that is known to be small.
    pub(crate) fn read(&self, file: SpooledFile) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(file.number, OFlags::RDONLY)?.take(file.size).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A layer, which is gone once it is read.
    pub(crate) fn consume(&self, file: SpooledFile) -> io::Result<Consume> {
        let open = self.open(file.number, OFlags::RDWR)?;
        Ok(Consume { file: open, position: 0, given_back: 0, charge: Arc::clone(&self.charge) })
    }
}

enum AppendError {
    NoSpace(NoSpace),
    Write(Errno),
}

impl AppendError {
    fn map_or_else(
        self,
        write: impl Fn(Errno) -> SpoolError,
        no_space: impl Fn(NoSpace) -> SpoolError,
    ) -> SpoolError {
        match self {
            Self::NoSpace(error) => no_space(error),
            Self::Write(errno) => write(errno),
        }
    }
}

/// Reads a file and frees what it has read.
#[derive(Debug)]
pub(crate) struct Consume {
    file: File,
    position: u64,
    given_back: u64,
    charge: Arc<Mutex<Charge>>,
}

impl Read for Consume {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        self.position += length as u64;
        let due = self.position - self.given_back;
        if due >= PUNCH {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // A file system that cannot frees the file as a whole later.
            if fallocate(&self.file, hole, self.given_back, due).is_ok() {
                self.charge.lock().unwrap_or_else(PoisonError::into_inner).give_back(due);
            }
            self.given_back = self.position;
        }
        Ok(length)
    }
}

/// `target` as a link in `directory` means it, by text alone; what leads out of the archive names nothing in it.
fn beside(directory: &[u8], target: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = directory.split(|&c| c == b'/').filter(|part| !part.is_empty()).collect();
    for part in target.split(|&c| c == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_as_text() {
        for (directory, target, expected) in [
            ("a", "../b/layer.tar", "b/layer.tar"),
            ("", "x", "x"),
            ("a/b", "../../../../etc/passwd", "etc/passwd"),
        ] {
            assert_eq!(beside(directory.as_bytes(), target.as_bytes()), expected.as_bytes());
        }
    }
}
