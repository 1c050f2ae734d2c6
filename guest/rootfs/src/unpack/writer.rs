//! Puts the entries of a layer on disk, one by one, within the limits.

use std::{
    io::Read,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use postern_layer::{Chunk, Disposition, FormatError, Kind, Record, Records, disposition, printable};
use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, Timespec, Uid, XattrFlags, chmodat, chownat, fchmod, fchown, fsetxattr,
        ftruncate, linkat, mknodat, symlinkat, utimensat,
    },
    io::{Errno, pwrite},
};

use super::{
    path::{EntryPath, PathError},
    tree::{self, PlaceError, Present, Tree},
};
use crate::{
    Limits,
    budget::{Charge, NoSpace},
    limits::ENTRY_COST,
};

const BUFFER: usize = 128 << 10;
/// Zeros of this length, aligned, become a hole.
const HOLE: usize = 4096;
/// Times beyond are some tool's mistake; tmpfs keeps any, other file systems do not.
const MAX_TIME: i64 = 1 << 40;

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("layer is not a valid tar archive")]
    Format(#[from] FormatError),
    #[error("entry {path:?} of the layer is refused")]
    Entry { path: String, source: EntryProblem },
    #[error("layer has more than {0} entries")]
    TooManyEntries(u64),
    #[error("layer unpacks to more than {0} bytes")]
    TooLarge(u64),
    #[error("no space for the layer")]
    NoSpace(#[from] NoSpace),
}

/// What is wrong with one entry.
#[derive(Debug, thiserror::Error)]
pub enum EntryProblem {
    #[error("its path cannot be used")]
    Path(#[source] PathError),
    #[error("its link target cannot be used")]
    Target(#[source] PathError),
    #[error("it links to {0:?}, which is no file of the same layer")]
    NoTarget(String),
    #[error("its link target is empty")]
    EmptyTarget,
    #[error("it cannot be put in its place")]
    Place(#[source] PlaceError),
    #[error("it has {size} bytes; at most {limit} are allowed")]
    FileTooLarge { size: u64, limit: u64 },
    #[error("its owner {0} is no user or group of Linux")]
    Owner(u64),
    #[error("it would replace the root directory")]
    Root,
    #[error("it is a whiteout of nothing that can be named")]
    Whiteout,
    #[error("it carries the attribute {0:?}, with which a layer could forge overlayfs' own marks")]
    Attribute(String),
    #[error("its attribute {name:?} cannot be set ({errno})")]
    SetAttribute { name: String, errno: Errno },
    #[error("the system refused ({0})")]
    System(Errno),
}

impl From<Errno> for EntryProblem {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

impl From<PlaceError> for EntryProblem {
    fn from(error: PlaceError) -> Self {
        Self::Place(error)
    }
}

/// What became of a layer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) entries: u64,
    pub(crate) skipped_devices: u64,
    pub(crate) skipped_attributes: u64,
}

/// Unpacks `stream` into `root`, which is empty, charging what it writes. Reads up to the end of the archive; what may
/// follow stays in the stream, which is handed back.
pub(crate) fn unpack<R: Read>(
    stream: R,
    root: OwnedFd,
    limits: &Limits,
    charge: &mut Charge,
) -> Result<(Unpacked, R), UnpackError> {
    let mut writer = Writer {
        tree: Tree::new(root),
        limits,
        charge,
        unpacked: Unpacked::default(),
        bytes: 0,
        buffer: vec![0; BUFFER],
    };
    let mut records = Records::new(stream, limits.path_bytes);
    while let Some(record) = records.next_record()? {
        writer.apply(&record, &mut records).map_err(|error| writer.explain(error, &record))?;
    }
    writer.tree.leave().map_err(|error| UnpackError::Entry { path: "/".into(), source: error.into() })?;
    Ok((writer.unpacked, records.into_inner()))
}

struct Writer<'a> {
    tree: Tree,
    limits: &'a Limits,
    charge: &'a mut Charge,
    unpacked: Unpacked,
    /// Bytes of all files, holes included.
    bytes: u64,
    buffer: Vec<u8>,
}

/// A failure before it is known which entry it belongs to.
enum Failure {
    Layer(UnpackError),
    Entry(EntryProblem),
}

impl<E: Into<EntryProblem>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Entry(error.into())
    }
}

impl Writer<'_> {
    fn explain(&self, failure: Failure, record: &Record) -> UnpackError {
        let full = [Errno::NOSPC, Errno::DQUOT];
        match failure {
            Failure::Layer(error) => error,
            Failure::Entry(EntryProblem::System(errno) | EntryProblem::Place(PlaceError::System(errno)))
                if full.contains(&errno) =>
            {
                self.charge.budget().full().into()
            }
            Failure::Entry(source) => UnpackError::Entry { path: printable(&record.path), source },
        }
    }

    fn apply<R: Read>(&mut self, record: &Record, records: &mut Records<R>) -> Result<(), Failure> {
        self.count(1)?;
        let path = EntryPath::parse(&record.path, self.limits).map_err(EntryProblem::Path)?;
        // A deep path makes many directories, and they cost as much as if they were written out.
        let implied = self.tree.make_parent_of(&path)?;
        self.count(implied)?;
        if let Some(hidden) = path.name().strip_prefix(b".wh.") {
            return self.whiteout(&path, hidden);
        }
        let owner = (Uid::from_raw(id(record.uid)?), Gid::from_raw(id(record.gid)?));
        match &record.kind {
            Kind::Directory => self.directory(&path, record, owner),
            _ if path.is_root() => Err(EntryProblem::Root.into()),
            Kind::File => self.file(&path, record, owner, records),
            Kind::Symlink(target) => self.symlink(&path, target, record, owner),
            Kind::HardLink(target) => self.hard_link(&path, target),
            Kind::Fifo => self.fifo(&path, record, owner),
            Kind::Device => {
                self.unpacked.skipped_devices += 1;
                Ok(())
            }
        }
    }

    fn whiteout(&mut self, path: &EntryPath, hidden: &[u8]) -> Result<(), Failure> {
        match hidden {
            b".wh..opq" => Ok(tree::set_opaque(self.tree.parent_of(path)?)?),
            // Bookkeeping of AUFS, for which this format was made.
            hidden if hidden.starts_with(b".wh.") => Ok(()),
            b"" | b"." | b".." => Err(EntryProblem::Whiteout.into()),
            hidden => Ok(tree::whiteout(self.tree.parent_of(path)?, hidden)?),
        }
    }

    fn directory(&mut self, path: &EntryPath, record: &Record, owner: (Uid, Gid)) -> Result<(), Failure> {
        let directory = match path.is_root() {
            true => tree::open_beneath(self.tree.root(), b"")?,
            false => tree::place_directory(self.tree.parent_of(path)?, path.name())?,
        };
        if path.is_root() {
            // It may be the one at hand, whose time would be put back to what it was.
            self.tree.leave()?;
        }
        fchown(&directory, Some(owner.0), Some(owner.1))?;
        fchmod(&directory, Mode::from_raw_mode(record.mode))?;
        self.attributes(directory.as_fd(), record)?;
        Ok(tree::set_modified(directory.as_fd(), time(record))?)
    }

    fn file<R: Read>(
        &mut self,
        path: &EntryPath,
        record: &Record,
        owner: (Uid, Gid),
        records: &mut Records<R>,
    ) -> Result<(), Failure> {
        if record.size > self.limits.file_bytes {
            return Err(
                EntryProblem::FileTooLarge { size: record.size, limit: self.limits.file_bytes }.into()
            );
        }
        // Neither term exceeds its limit, so the sum cannot overflow.
        self.bytes += record.size;
        if self.bytes > self.limits.layer_bytes {
            return Err(Failure::Layer(UnpackError::TooLarge(self.limits.layer_bytes)));
        }
        let parent = self.tree.parent_of(path)?;
        let file = tree::place(parent, path.name(), || tree::create_file(parent, path.name()))?;
        self.content(file.as_fd(), record.size, records)?;
        // Changing the owner drops set-id bits and capabilities: those come after.
        fchown(&file, Some(owner.0), Some(owner.1))?;
        fchmod(&file, Mode::from_raw_mode(record.mode))?;
        self.attributes(file.as_fd(), record)?;
        Ok(tree::set_modified(file.as_fd(), time(record))?)
    }

    fn content<R: Read>(
        &mut self,
        file: BorrowedFd<'_>,
        size: u64,
        records: &mut Records<R>,
    ) -> Result<(), Failure> {
        let mut offset = 0;
        loop {
            let (length, then) = fill(records, &mut self.buffer)?;
            self.take(length as u64)?;
            write_at(file, &self.buffer[..length], offset)?;
            offset += length as u64;
            match then {
                None | Some(Chunk::Data(_)) => {}
                Some(Chunk::Hole(hole)) => offset += hole,
                Some(Chunk::End) => break,
            }
        }
        // A hole at the end was written by nobody.
        Ok(ftruncate(file, size)?)
    }

    fn symlink(
        &mut self,
        path: &EntryPath,
        target: &[u8],
        record: &Record,
        owner: (Uid, Gid),
    ) -> Result<(), Failure> {
        check_target(target, self.limits)?;
        let parent = self.tree.parent_of(path)?;
        let name = path.name();
        tree::place(parent, name, || symlinkat(target, parent, name))?;
        chownat(parent, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
        utimensat(parent, name, &tree::timestamps(time(record)), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    fn hard_link(&mut self, path: &EntryPath, target: &[u8]) -> Result<(), Failure> {
        check_target(target, self.limits)?;
        let missing = || EntryProblem::NoTarget(printable(target));
        let target = EntryPath::parse(target, self.limits).map_err(EntryProblem::Target)?;
        if target.is_root() || target == *path || target.name().starts_with(b".wh.") {
            return Err(missing().into());
        }
        let source = match self.tree.existing_parent_of(&target) {
            Err(PlaceError::System(Errno::NOENT) | PlaceError::BelowFile) => return Err(missing().into()),
            directory => directory?,
        };
        if tree::present(source.as_fd(), target.name())? != Present::Other {
            return Err(missing().into());
        }
        let parent = self.tree.parent_of(path)?;
        let name = path.name();
        let link = || linkat(&source, target.name(), parent, name, AtFlags::empty());
        match tree::place(parent, name, link) {
            // Clearing the place took the target with it: it was below.
            Err(PlaceError::System(Errno::NOENT)) => Err(missing().into()),
            placed => Ok(placed?),
        }
    }

    fn fifo(&mut self, path: &EntryPath, record: &Record, owner: (Uid, Gid)) -> Result<(), Failure> {
        let parent = self.tree.parent_of(path)?;
        let name = path.name();
        tree::place(parent, name, || mknodat(parent, name, FileType::Fifo, Mode::RUSR, 0))?;
        chownat(parent, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
        // The name was made here a moment ago and nobody else writes to this tree, so it is no link.
        chmodat(parent, name, Mode::from_raw_mode(record.mode), AtFlags::empty())?;
        utimensat(parent, name, &tree::timestamps(time(record)), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    fn attributes(&mut self, file: BorrowedFd<'_>, record: &Record) -> Result<(), Failure> {
        for (name, value) in &record.attributes {
            let disposition = disposition(name);
            match disposition {
                Disposition::Refuse => return Err(EntryProblem::Attribute(printable(name)).into()),
                Disposition::Skip => self.unpacked.skipped_attributes += 1,
                Disposition::Keep | Disposition::KeepIfPossible => {
                    self.take(value.len() as u64)?;
                    match fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
                        Ok(()) => {}
                        Err(Errno::OPNOTSUPP | Errno::PERM) if disposition == Disposition::KeepIfPossible => {
                            self.unpacked.skipped_attributes += 1;
                        }
                        Err(errno) => {
                            return Err(EntryProblem::SetAttribute { name: printable(name), errno }.into());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, entries: u64) -> Result<(), Failure> {
        self.unpacked.entries += entries;
        if self.unpacked.entries > self.limits.entries_per_layer {
            return Err(Failure::Layer(UnpackError::TooManyEntries(self.limits.entries_per_layer)));
        }
        self.take(entries * ENTRY_COST)
    }

    fn take(&mut self, bytes: u64) -> Result<(), Failure> {
        self.charge.take(bytes).map_err(|error| Failure::Layer(error.into()))
    }
}

/// Fills the buffer with data; also what ended it early, if something did.
fn fill<R: Read>(records: &mut Records<R>, buffer: &mut [u8]) -> Result<(usize, Option<Chunk>), Failure> {
    let mut length = 0;
    while length < buffer.len() {
        match records.data(&mut buffer[length..]).map_err(|error| Failure::Layer(error.into()))? {
            Chunk::Data(read) => length += read,
            other => return Ok((length, Some(other))),
        }
    }
    Ok((length, None))
}

/// Writes all of `bytes` but leaves out aligned runs of zeros.
fn write_at(file: BorrowedFd<'_>, bytes: &[u8], offset: u64) -> Result<(), Errno> {
    let mut start = 0;
    while start < bytes.len() {
        let pieces = bytes[start..].chunks(HOLE);
        let zero = pieces.clone().take_while(|piece| piece.len() == HOLE && is_zero(piece)).count() * HOLE;
        if zero > 0 {
            start += zero;
            continue;
        }
        let data: usize =
            pieces.take_while(|piece| piece.len() < HOLE || !is_zero(piece)).map(<[u8]>::len).sum();
        let end = start + data;
        while start < end {
            let written = pwrite(file, &bytes[start..end], offset + start as u64)?;
            if written == 0 {
                return Err(Errno::NOSPC);
            }
            start += written;
        }
    }
    Ok(())
}

fn is_zero(piece: &[u8]) -> bool {
    piece.iter().all(|&c| c == 0)
}

fn check_target(target: &[u8], limits: &Limits) -> Result<(), EntryProblem> {
    match target {
        b"" => Err(EntryProblem::EmptyTarget),
        target if target.contains(&0) => Err(EntryProblem::Target(PathError::Nul)),
        target if target.len() > limits.path_bytes => {
            Err(EntryProblem::Target(PathError::TooLong { length: target.len(), limit: limits.path_bytes }))
        }
        _ => Ok(()),
    }
}

/// The last id means "no change" to Linux.
fn id(id: u64) -> Result<u32, EntryProblem> {
    u32::try_from(id).ok().filter(|&id| id != u32::MAX).ok_or(EntryProblem::Owner(id))
}

fn time(record: &Record) -> Timespec {
    let (seconds, nanos) = record.mtime;
    Timespec { tv_sec: seconds.clamp(-MAX_TIME, MAX_TIME), tv_nsec: nanos.into() }
}

#[cfg(test)]
mod tests;
