//! Packing a file or directory of a container into an archive.
//!
//! The container may change the tree meanwhile: every step is from an open directory to a name in it, without following
//! links, and a file that shrinks is filled up with zeros, so that the archive stays whole. Devices, pipes and sockets
//! have no content and are counted instead; the kernel's own file systems are not entered. Content goes from the page
//! cache into the pipe without passing through this process.

use std::{
    ffi::{CStr, OsStr},
    fs::File,
    io::{self, BufWriter, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstatfs, openat, openat2, readlinkat,
    statat,
};
use tar::{Builder, EntryType, Header};

use super::{
    answer,
    channel::Attached,
    confined::{enter_container, explain},
    pages::into_pipe,
    protocol::{CopyOutRequest, Reply},
};
use crate::runtime::{CopySummary, Failure, FailureKind};

/// Deepest tree that is packed: each level holds a descriptor.
const MAX_DEPTH: usize = 512;
/// Headers and names are gathered in this much; content goes past it.
const BUFFER: usize = 64 * 1024;
/// Content is padded to this (tar(5)).
const BLOCK: u64 = 512;
/// Magic numbers (linux/magic.h) of file systems that show the kernel's state: proc, sysfs, cgroup v1 and v2, devpts,
/// securityfs, debugfs, bpf, mqueue.
const KERNELS: [u64; 9] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x7363_6673,
    0x6462_6720,
    0xcafe_4a11,
    0x1980_0202,
];

pub(super) fn copy_out(
    socket: &OwnedFd,
    request: CopyOutRequest,
    mut attached: Attached,
) -> Result<(), Failure> {
    let mut next = || attached.fd().map_err(|error| Failure::system("request", error));
    let (root, data) = (next()?, next()?);
    enter_container(request.root, &root, request.cgroup.as_ref())?;
    drop(root);
    let start = Start::find(&request).map_err(|error| explain(request.path.display(), &error))?;
    let mut counter = Counter::default();
    start.visit(&mut counter).map_err(|error| explain(request.path.display(), &error))?;
    let begin = Reply::CopyBegin { total_bytes: counter.bytes, is_directory: start.is_directory() };
    answer(socket, &begin, &[], &[])?;
    let mut packer = Packer {
        archive: Builder::new(BufWriter::with_capacity(BUFFER, File::from(data))),
        summary: CopySummary::default(),
    };
    start
        .visit(&mut packer)
        .and_then(|()| packer.archive.into_inner())
        .and_then(|mut writer| writer.flush())
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => {
                Failure::new(FailureKind::System, "nobody reads the archive any more")
            }
            _ => explain(request.path.display(), &error),
        })?;
    answer(socket, &Reply::CopyDone(packer.summary), &[], &[])
}

/// What was asked for: a name in an open directory.
struct Start {
    parent: OwnedFd,
    name: PathBuf,
    /// Name in the archive.
    shown: PathBuf,
    stat: Stat,
}

impl Start {
    fn find(request: &CopyOutRequest) -> io::Result<Self> {
        let follow = if request.follow_link { OFlags::empty() } else { OFlags::NOFOLLOW };
        let place = openat2(
            CWD,
            &request.path,
            OFlags::PATH | OFlags::CLOEXEC | follow,
            Mode::empty(),
            ResolveFlags::NO_MAGICLINKS,
        )?;
        let stat = rustix::fs::fstat(&place)?;
        let shown = request.path.file_name().map_or_else(|| PathBuf::from("."), PathBuf::from);
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(Self { parent: place, name: PathBuf::from("."), shown, stat });
        }
        // A file is named by its directory, so that it can be opened without following anything.
        let path = match request.follow_link {
            true => std::fs::canonicalize(&request.path)?,
            false => request.path.clone(),
        };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = openat2(CWD, parent, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?;
        Ok(Self { stat: statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?, parent, name: name.into(), shown })
    }

    fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }

    /// Shows everything to `visitor`, directories before what is in them.
    fn visit(&self, visitor: &mut impl Visitor) -> io::Result<()> {
        visitor.entry(self.parent.as_fd(), &self.name, &self.shown, &self.stat)?;
        if !self.is_directory() {
            return Ok(());
        }
        let top = Level::open(self.parent.as_fd(), &self.name, self.shown.clone())?;
        if top.is_kernels()? {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        let mut open = vec![top];
        while let Some(level) = open.last_mut() {
            let Some(entry) = level.entries.next() else {
                open.pop();
                continue;
            };
            let entry = entry?;
            let name = os_path(entry.file_name());
            if name == Path::new(".") || name == Path::new("..") {
                continue;
            }
            let stat = match statat(&level.directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Removed meanwhile.
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            let shown = level.shown.join(&name);
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            visitor.entry(level.directory.as_fd(), &name, &shown, &stat)?;
            if is_directory {
                let next = Level::open(level.directory.as_fd(), &name, shown)?;
                if next.is_kernels()? {
                    continue;
                }
                if open.len() == MAX_DEPTH {
                    return Err(io::Error::other(format!("directories are nested deeper than {MAX_DEPTH}")));
                }
                open.push(next);
            }
        }
        Ok(())
    }
}

fn os_path(name: &CStr) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(name.to_bytes()))
}

struct Level {
    directory: OwnedFd,
    entries: Dir,
    shown: PathBuf,
}

impl Level {
    fn open(parent: impl AsFd, name: &Path, shown: PathBuf) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(parent, name, flags, Mode::empty())?;
        Ok(Self { entries: Dir::read_from(&directory)?, directory, shown })
    }

    fn is_kernels(&self) -> io::Result<bool> {
        Ok(KERNELS.contains(&(fstatfs(&self.directory)?.f_type as u64)))
    }
}

trait Visitor {
    fn entry(&mut self, parent: impl AsFd, name: &Path, shown: &Path, stat: &Stat) -> io::Result<()>;
}

#[derive(Default)]
struct Counter {
    bytes: u64,
}

impl Visitor for Counter {
    fn entry(&mut self, _: impl AsFd, _: &Path, _: &Path, stat: &Stat) -> io::Result<()> {
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            self.bytes = self.bytes.saturating_add(stat.st_size.unsigned_abs());
        }
        Ok(())
    }
}

struct Packer {
    archive: Builder<BufWriter<File>>,
    summary: CopySummary,
}

impl Visitor for Packer {
    fn entry(&mut self, parent: impl AsFd, name: &Path, shown: &Path, stat: &Stat) -> io::Result<()> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let mut header = header(stat, EntryType::Directory);
                self.archive.append_data(&mut header, shown, io::empty())?;
            }
            FileType::RegularFile => match open_file(parent, name)? {
                Some((file, stat)) => self.append_file(&file, shown, &stat)?,
                None => {
                    self.summary.skipped += 1;
                    return Ok(());
                }
            },
            FileType::Symlink => {
                let target = readlinkat(parent, name, Vec::new())?;
                self.archive.append_link(&mut header(stat, EntryType::Symlink), shown, os_path(&target))?;
            }
            _ => {
                self.summary.skipped += 1;
                return Ok(());
            }
        }
        self.summary.entries += 1;
        Ok(())
    }
}

impl Packer {
    fn append_file(&mut self, file: &File, shown: &Path, stat: &Stat) -> io::Result<()> {
        let size = stat.st_size.unsigned_abs();
        let mut header = header(stat, EntryType::Regular);
        header.set_size(size);
        self.archive.append_data(&mut header, shown, io::empty())?;
        let out = self.archive.get_mut();
        out.flush()?;
        let moved = into_pipe(file, out.get_ref(), size)?;
        // Exactly as many bytes as announced, whatever the file does meanwhile, up to a whole block.
        io::copy(&mut io::repeat(0).take(size.next_multiple_of(BLOCK) - moved), out)?;
        self.summary.bytes += size;
        Ok(())
    }
}

/// Opens a regular file; `None` if it is not there any more, or is something else by now.
fn open_file(parent: impl AsFd, name: &Path) -> io::Result<Option<(File, Stat)>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(parent, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stat = rustix::fs::fstat(&file)?;
    let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    Ok(is_regular.then(|| (File::from(file), stat)))
}

fn header(stat: &Stat, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header
}
