//! Unpacking an archive below a directory of a container, and nowhere else.
//!
//! Every name is resolved by the kernel beneath that directory (openat2, RESOLVE_BENEATH), so neither the archive's
//! `..`, links and absolute names nor links that the container has put there, or puts there meanwhile, lead out of it.
//! Devices, pipes and sparse files are refused: the first are nobody's to make here, the last would let a small archive
//! fill the disk. Set-user-id bits are kept: they are the owner's to set, and without effect in a container, all of
//! whose processes have no-new-privileges.

use std::{
    cell::RefCell,
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, RawMode, ResolveFlags, Timespec, Timestamps, chownat, fchmod,
        fchown, fstat, futimens, linkat, mkdirat, openat, openat2, symlinkat, unlinkat,
    },
    process::{Gid, Uid},
};
use tar::{Archive, Entry, EntryType, Header};

use super::{
    answer,
    channel::Attached,
    confined::{enter_container, explain},
    pages::IntoFiles,
    protocol::{CopyInRequest, Reply},
};
use crate::runtime::{CopySummary, Failure, FailureKind};

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);
/// Headers are read through a buffer; content goes past it.
const HEADER_BUFFER: usize = 64 * 1024;

pub(super) fn copy_in(
    socket: &OwnedFd,
    request: CopyInRequest,
    mut attached: Attached,
) -> Result<(), Failure> {
    let mut next = || attached.fd().map_err(|error| Failure::system("request", error));
    let (root, data) = (next()?, next()?);
    let source = IntoFiles::new(File::from(data)).map_err(|error| Failure::system("request", error))?;
    let source = RefCell::new(Source::new(source));
    enter_container(request.root, &root, request.cgroup.as_ref())?;
    drop(root);
    let directory = openat2(CWD, &request.directory, DIRECTORY, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
        .map_err(|error| explain(request.directory.display(), &error.into()))?;
    let mut unpacker = Unpacker {
        directory,
        owner: request.owner,
        parent: None,
        source: &source,
        summary: CopySummary::default(),
    };
    let mut archive = Archive::new(Through(&source));
    let broken = |error: io::Error| Failure::new(FailureKind::Archive, format!("archive: {error}"));
    for entry in archive.entries().map_err(broken)? {
        unpacker.unpack(entry.map_err(broken)?)?;
    }
    // What follows the end of the archive is padding; whoever writes it must not fail.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(broken)?;
    answer(socket, &Reply::CopyDone(unpacker.summary), &[], &[])
}

/// The archive as it comes through the pipe. Content of files is taken out beneath the archive's reader, from the pipe
/// into the file without passing through this process; the reader then skips what it believes to be still there.
struct Source {
    pipe: IntoFiles,
    buffer: Vec<u8>,
    /// What of the buffer has not been read yet.
    start: usize,
    end: usize,
    /// Bytes that were taken out, and that the reader has yet to skip.
    taken: u64,
}

impl Source {
    fn new(pipe: IntoFiles) -> Self {
        Self { pipe, buffer: vec![0; HEADER_BUFFER], start: 0, end: 0, taken: 0 }
    }

    /// Moves the next `size` bytes into `file`; returns how many there were. Nothing may have been read of them.
    fn take_out(&mut self, file: &File, size: u64) -> io::Result<u64> {
        let ahead =
            usize::try_from(size).map_or(self.end, |size| self.end.min(self.start.saturating_add(size)));
        let mut out = file;
        out.write_all(&self.buffer[self.start..ahead])?;
        let mut moved = (ahead - self.start) as u64;
        self.start = ahead;
        moved += self.pipe.pass_on(file, size - moved)?;
        self.taken += moved;
        Ok(moved)
    }

    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken > 0 {
            // Skipped, not looked at: the reader is told how many there were, and its buffer stays as it is.
            let skipped = usize::try_from(self.taken).map_or(out.len(), |taken| taken.min(out.len()));
            self.taken -= skipped as u64;
            return Ok(skipped);
        }
        if self.start == self.end {
            (self.start, self.end) = (0, self.pipe.source().read(&mut self.buffer)?);
        }
        let count = out.len().min(self.end - self.start);
        out[..count].copy_from_slice(&self.buffer[self.start..self.start + count]);
        self.start += count;
        Ok(count)
    }
}

/// The source, for the archive's reader.
struct Through<'a>(&'a RefCell<Source>);

impl Read for Through<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(out)
    }
}

struct Unpacker<'a> {
    directory: OwnedFd,
    owner: Option<(u32, u32)>,
    /// Directory of the last entry: the next one is usually in it too.
    parent: Option<(PathBuf, OwnedFd)>,
    source: &'a RefCell<Source>,
    summary: CopySummary,
}

impl Unpacker<'_> {
    fn unpack(&mut self, entry: Entry<'_, impl Read>) -> Result<(), Failure> {
        let name = entry.path().map_err(|error| explain("name in the archive", &error))?.into_owned();
        let shown = name.display().to_string();
        let refused = |why: &str| Failure::new(FailureKind::Archive, format!("{shown}: {why}"));
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let Some(place) = below(&name) else { return Err(refused("leads out of the directory")) };
        let link = |entry: &Entry<'_, _>| -> Result<PathBuf, Failure> {
            let target = entry.link_name().map_err(|error| explain(&shown, &error))?;
            target.map(|target| target.into_owned()).ok_or_else(|| refused("link without a target"))
        };
        let done = match kind {
            EntryType::Directory => self.make_directory(&place, entry.header()),
            EntryType::Regular | EntryType::Continuous => self.write_file(&place, entry),
            EntryType::Symlink => {
                let target = link(&entry)?;
                self.make_symlink(&place, &target, entry.header())
            }
            EntryType::Link => {
                let target = below(&link(&entry)?).ok_or_else(|| refused("links out of the directory"))?;
                self.make_hard_link(&place, &target)
            }
            EntryType::Char | EntryType::Block => return Err(refused("devices are not unpacked")),
            EntryType::Fifo => return Err(refused("pipes are not unpacked")),
            EntryType::GNUSparse => return Err(refused("sparse files are not unpacked")),
            _ => return Err(refused("this kind of entry is not unpacked")),
        };
        self.summary.entries += 1;
        done.map_err(|error| explain(shown, &error))
    }

    /// The directory in which `place` is to be, made if missing, and its name there. `None` for the top itself.
    fn locate<'p>(&mut self, place: &'p Path) -> io::Result<Option<(&OwnedFd, &'p OsStr)>> {
        let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else { return Ok(None) };
        if self.parent.as_ref().is_none_or(|(known, _)| known != parent) {
            let directory = self.open_directory(parent)?;
            self.parent = Some((parent.to_owned(), directory));
        }
        Ok(self.parent.as_ref().map(|(_, directory)| (directory, name)))
    }

    fn open_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut so_far = PathBuf::from(".");
        let mut current = openat2(&self.directory, ".", DIRECTORY, Mode::empty(), BENEATH)?;
        for component in path.components() {
            so_far.push(component);
            current = match openat2(&self.directory, &so_far, DIRECTORY, Mode::empty(), BENEATH) {
                Ok(directory) => directory,
                Err(rustix::io::Errno::NOENT) => {
                    mkdirat(&current, component.as_os_str(), Mode::from_raw_mode(0o755))?;
                    let made = openat2(&self.directory, &so_far, DIRECTORY, Mode::empty(), BENEATH)?;
                    let (uid, gid) = self.owner.unwrap_or((0, 0));
                    chownat(
                        &made,
                        "",
                        Some(Uid::from_raw(uid)),
                        Some(Gid::from_raw(gid)),
                        AtFlags::EMPTY_PATH,
                    )?;
                    made
                }
                Err(error) => return Err(error.into()),
            };
        }
        Ok(current)
    }

    fn owner(&self, header: &Header) -> io::Result<(Option<Uid>, Option<Gid>)> {
        let number =
            |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or(io::ErrorKind::InvalidData);
        let (uid, gid) = match self.owner {
            Some(owner) => owner,
            None => (number(header.uid()?)?, number(header.gid()?)?),
        };
        Ok((Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))
    }

    /// A directory that is there already stays as it is.
    fn make_directory(&mut self, place: &Path, header: &Header) -> io::Result<()> {
        let (uid, gid) = self.owner(header)?;
        let mode = mode(header)?;
        let Some((parent, name)) = self.locate(place)? else { return Ok(()) };
        match mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return self.open_directory(place).map(drop),
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(parent, name, flags, Mode::empty())?;
        fchown(&made, uid, gid)?;
        Ok(fchmod(&made, mode)?)
    }

    fn write_file(&mut self, place: &Path, entry: Entry<'_, impl Read>) -> io::Result<()> {
        let header = entry.header();
        let ((uid, gid), mode, modified) = (self.owner(header)?, mode(header)?, header.mtime()?);
        let size = entry.size();
        let (parent, name) = self.locate(place)?.ok_or(io::ErrorKind::IsADirectory)?;
        let file = File::from(open_for_writing(parent, name)?);
        if self.source.borrow_mut().take_out(&file, size)? != size {
            let error = "the archive ends in the middle of the file";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, error));
        }
        self.summary.bytes += size;
        // Owner first: changing it clears set-user-id bits.
        fchown(&file, uid, gid)?;
        fchmod(&file, mode)?;
        let modified = Timespec { tv_sec: i64::try_from(modified).unwrap_or(0), tv_nsec: 0 };
        Ok(futimens(&file, &Timestamps { last_access: modified, last_modification: modified })?)
    }

    fn make_symlink(&mut self, place: &Path, target: &Path, header: &Header) -> io::Result<()> {
        let (uid, gid) = self.owner(header)?;
        let (parent, name) = self.locate(place)?.ok_or(io::ErrorKind::IsADirectory)?;
        remove_if_there(parent, name)?;
        symlinkat(target, parent, name)?;
        Ok(chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn make_hard_link(&mut self, place: &Path, target: &Path) -> io::Result<()> {
        let (target_parent, target_name) = match (target.parent(), target.file_name()) {
            (Some(parent), Some(name)) => (self.open_directory(parent)?, name),
            _ => return Err(io::ErrorKind::IsADirectory.into()),
        };
        let (parent, name) = self.locate(place)?.ok_or(io::ErrorKind::IsADirectory)?;
        remove_if_there(parent, name)?;
        // Without AT_SYMLINK_FOLLOW: a link there is linked, not followed.
        Ok(linkat(target_parent, target_name, parent, name, AtFlags::empty())?)
    }
}

/// `path` relative, without `.`; `None` if it climbs.
fn below(path: &Path) -> Option<PathBuf> {
    let mut place = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => place.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(place)
}

fn mode(header: &Header) -> io::Result<Mode> {
    Ok(Mode::from_raw_mode(RawMode::from(header.mode()? & 0o7777)))
}

/// Opens the regular file `name`, emptied, or makes it. An existing file is kept and overwritten (it may be a mount, and
/// others may have it open); anything else that is no directory makes way.
fn open_for_writing(parent: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    let private = Mode::from_raw_mode(0o600);
    match openat(&parent, name, flags, private) {
        Ok(file) if FileType::from_raw_mode(fstat(&file)?.st_mode) == FileType::RegularFile => {
            rustix::fs::ftruncate(&file, 0)?;
            return Ok(file);
        }
        Ok(_) | Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO | rustix::io::Errno::TXTBSY) => {}
        Err(error) => return Err(error.into()),
    }
    unlinkat(&parent, name, AtFlags::empty())?;
    Ok(openat(&parent, name, flags | OFlags::EXCL, private)?)
}

fn remove_if_there(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_never_climb() {
        assert_eq!(below(Path::new("./a//b/.")), Some(PathBuf::from("a/b")));
        assert_eq!(below(Path::new("/etc/passwd")), Some(PathBuf::from("etc/passwd")));
        for climbing in ["..", "a/../b", "../a", "/..", "a/.."] {
            assert_eq!(below(Path::new(climbing)), None, "{climbing}");
        }
    }
}
