//! Unpacks a tar stream from a container below a directory of this machine. The container may be hostile: nothing is ever
//! written outside that directory, no symlink is followed, no set-id bit, owner or device is taken over.
//!
//! Every directory on the way is opened by itself without following links, so there is nothing to race. A file appears
//! under its name when it is complete, so that an interrupted copy leaves no half file there.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use postern_layer::{Chunk, FormatError, Kind, Record, Records};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, Mode, OFlags, Timespec, Timestamps},
    io::Errno,
};

use super::place::Landing;

/// Deepest directory that is made, and so the most descriptors in use.
const MAX_DEPTH: usize = 128;
/// Longest path that is read: so many names of the longest kind.
const MAX_PATH: usize = MAX_DEPTH * 256;

/// Why unpacking stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot open {}", path.display())]
    Destination { path: PathBuf, source: io::Error },
    #[error("the stream cannot be read")]
    Stream(#[from] FormatError),
    #[error("the container sent the path {0:?}, which leads out of the copy")]
    Escape(String),
    #[error("the container sent a second tree, {0:?}")]
    SecondTree(String),
    #[error("the source is not a directory")]
    NotADirectory,
    #[error(
        "the source is a link to {0:?}, which leads out of the destination; copy what it points to with -L"
    )]
    LinkOut(String),
    #[error("the container sent {} as a sparse file", .0.display())]
    Sparse(PathBuf),
    #[error("the container sent nothing")]
    Empty,
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// What was left out, and why: one line each, at most [`MAX_SKIPPED`].
    pub(crate) skipped: Vec<String>,
    pub(crate) skipped_total: u64,
}

const MAX_SKIPPED: usize = 10;

/// Unpacks `stream` at `landing`.
pub(crate) fn unpack(stream: impl Read, landing: &Landing) -> Result<Unpacked, UnpackError> {
    let root =
        rustix::fs::open(&landing.parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| UnpackError::Destination {
                path: landing.parent.clone(),
                source: errno.into(),
            })?;
    let mut unpacker =
        Unpacker { root, landing, top: None, made: BTreeMap::new(), done: Unpacked::default() };
    let mut records = Records::new(stream, MAX_PATH);
    let mut any = false;
    while let Some(record) = records.next_record()? {
        any = true;
        unpacker.entry(record, &mut records)?;
    }
    if !any {
        return Err(UnpackError::Empty);
    }
    unpacker.finish()
}

type Parts = Vec<OsString>;

struct Unpacker<'a> {
    root: OwnedFd,
    landing: &'a Landing,
    /// First name of the stream's paths; `Some(None)` for a stream without one.
    top: Option<Option<OsString>>,
    /// Directories that were made here, with the mode they get in the end.
    made: BTreeMap<Parts, (u32, u64)>,
    done: Unpacked,
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, record: Record, content: &mut Records<R>) -> Result<(), UnpackError> {
        let sent = parts(&record.path)?;
        let is_top = self.top.is_none();
        let top = self.top.get_or_insert_with(|| sent.first().cloned()).clone();
        let parts = self.place(&sent, top.as_ref())?;
        if is_top && self.landing.must_be_directory && record.kind != Kind::Directory {
            return Err(UnpackError::NotADirectory);
        }
        let mode = record.mode & 0o777;
        let mtime = u64::try_from(record.mtime.0).unwrap_or(0);
        match record.kind {
            Kind::Directory => self.directory(parts, mode, mtime),
            Kind::File => self.file(&parts, mode, mtime, content),
            Kind::Symlink(target) => self.symlink(&parts, OsStr::from_bytes(&target), is_top),
            Kind::HardLink(target) => {
                let target = self.place(&self::parts(&target)?, top.as_ref())?;
                self.hard_link(&parts, &target)
            }
            Kind::Fifo | Kind::Device => {
                self.skip(&parts, "is a device or a pipe");
                Ok(())
            }
        }
    }

    /// The path below the destination that a path of the stream stands for.
    fn place(&self, sent: &[OsString], top: Option<&OsString>) -> Result<Parts, UnpackError> {
        let below = match top {
            None => sent,
            Some(top) if sent.first() == Some(top) => &sent[1..],
            Some(_) => return Err(UnpackError::SecondTree(joined(sent).to_string_lossy().into_owned())),
        };
        let name = self.landing.name.as_ref().map(OsString::from);
        let parts: Parts = name.into_iter().chain(below.iter().cloned()).collect();
        match parts.len() > MAX_DEPTH {
            true => Err(UnpackError::Escape(joined(sent).to_string_lossy().into_owned())),
            false => Ok(parts),
        }
    }

    fn directory(&mut self, parts: Parts, mode: u32, mtime: u64) -> Result<(), UnpackError> {
        self.open_directory(&parts)?;
        if let Some(made) = self.made.get_mut(&parts) {
            *made = (mode, mtime);
        }
        Ok(())
    }

    /// Opens a directory below the root, making what is missing.
    fn open_directory(&mut self, parts: &[OsString]) -> Result<OwnedFd, UnpackError> {
        let fail = |landing: &Landing, upto: usize, errno: Errno| UnpackError::Write {
            path: landing.parent.join(joined(&parts[..upto])),
            source: match errno {
                Errno::NOTDIR | Errno::LOOP => {
                    io::Error::other("it is in the way: a file or a link, which is not followed")
                }
                errno => errno.into(),
            },
        };
        let mut fd =
            rustix::io::fcntl_dupfd_cloexec(&self.root, 0).map_err(|errno| fail(self.landing, 0, errno))?;
        for (index, part) in parts.iter().enumerate() {
            match rustix::fs::mkdirat(&fd, part, Mode::RWXU) {
                Ok(()) => drop(self.made.insert(parts[..=index].to_vec(), (0o755, 0))),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(fail(self.landing, index + 1, errno)),
            }
            fd = open_dir(&fd, part).map_err(|errno| fail(self.landing, index + 1, errno))?;
        }
        Ok(fd)
    }

    /// The open directory and the name in it of an entry that is not a directory.
    fn open_parent(&mut self, parts: &[OsString]) -> Result<(OwnedFd, OsString), UnpackError> {
        // Merging a directory's content leaves no name for a file that claims to be that directory.
        let (name, parent) = parts.split_last().ok_or(UnpackError::NotADirectory)?;
        Ok((self.open_directory(parent)?, name.clone()))
    }

    fn file(
        &mut self,
        parts: &[OsString],
        mode: u32,
        mtime: u64,
        content: &mut Records<impl Read>,
    ) -> Result<(), UnpackError> {
        let (parent, name) = self.open_parent(parts)?;
        let path = self.landing.parent.join(joined(parts));
        let write = |source: io::Error| UnpackError::Write { path: path.clone(), source };
        let temporary = Temporary::create(&parent).map_err(write)?;
        let copied = copy(content, &temporary.file, &path)?;
        rustix::fs::fchmod(&temporary.file, Mode::from_raw_mode(mode))
            .map_err(|errno| write(errno.into()))?;
        // A time that the file system cannot hold is not worth failing for.
        let _ = rustix::fs::futimens(&temporary.file, &times(mtime));
        temporary.rename(&name).map_err(write)?;
        self.done.files += 1;
        self.done.bytes += copied;
        Ok(())
    }

    fn symlink(&mut self, parts: &[OsString], target: &OsStr, is_top: bool) -> Result<(), UnpackError> {
        if !stays_inside(parts.len().saturating_sub(1), Path::new(target)) {
            let shown = target.to_string_lossy().into_owned();
            if is_top {
                return Err(UnpackError::LinkOut(shown));
            }
            self.skip(parts, &format!("is a link to {shown}, which leads out of the copy"));
            return Ok(());
        }
        let (parent, name) = self.open_parent(parts)?;
        let path = self.landing.parent.join(joined(parts));
        let write = |errno: Errno| UnpackError::Write { path: path.clone(), source: errno.into() };
        let temporary = temporary_name();
        rustix::fs::symlinkat(target, &parent, &temporary).map_err(write)?;
        rename(&parent, &temporary, &name).map_err(write)?;
        self.done.files += 1;
        Ok(())
    }

    fn hard_link(&mut self, parts: &[OsString], target: &[OsString]) -> Result<(), UnpackError> {
        let (from, from_name) = self.open_parent(target)?;
        let (parent, name) = self.open_parent(parts)?;
        let path = self.landing.parent.join(joined(parts));
        let write = |errno: Errno| UnpackError::Write { path: path.clone(), source: errno.into() };
        let temporary = temporary_name();
        rustix::fs::linkat(&from, &from_name, &parent, &temporary, AtFlags::empty()).map_err(write)?;
        rename(&parent, &temporary, &name).map_err(write)?;
        self.done.files += 1;
        Ok(())
    }

    fn skip(&mut self, parts: &[OsString], why: &str) {
        self.done.skipped_total += 1;
        if self.done.skipped.len() < MAX_SKIPPED {
            self.done.skipped.push(format!("{} {why}", joined(parts).display()));
        }
    }

    /// Directories get their modes last, deepest first: one that is read-only would have refused its own content.
    fn finish(self) -> Result<Unpacked, UnpackError> {
        for (parts, (mode, mtime)) in self.made.iter().rev() {
            let settle = || -> Result<(), Errno> {
                let mut fd = rustix::io::fcntl_dupfd_cloexec(&self.root, 0)?;
                for part in parts {
                    fd = open_dir(&fd, part)?;
                }
                // The descriptor on the way only names the directory; this one may change it.
                let dir = rustix::fs::openat(
                    &fd,
                    c".",
                    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                    Mode::empty(),
                )?;
                if *mtime != 0 {
                    let _ = rustix::fs::futimens(&dir, &times(*mtime));
                }
                rustix::fs::fchmod(&dir, Mode::from_raw_mode(*mode))
            };
            let path = || self.landing.parent.join(joined(parts));
            settle().map_err(|errno| UnpackError::Write { path: path(), source: errno.into() })?;
        }
        Ok(self.done)
    }
}

/// A path of the stream as plain names. Anything that would climb is refused, not cleaned: an honest guest sends none.
fn parts(path: &[u8]) -> Result<Parts, UnpackError> {
    let mut parts = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(UnpackError::Escape(String::from_utf8_lossy(path).into_owned())),
            part if part.contains(&0) => {
                return Err(UnpackError::Escape(String::from_utf8_lossy(path).into_owned()));
            }
            part => parts.push(OsString::from_vec(part.to_vec())),
        }
    }
    Ok(parts)
}

fn joined(parts: &[OsString]) -> PathBuf {
    parts.iter().collect()
}

/// Whether a link `depth` directories below the destination points to something below it.
fn stays_inside(depth: usize, target: &Path) -> bool {
    let mut depth = depth;
    for part in target.components() {
        match part {
            std::path::Component::Normal(_) => depth += 1,
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir if depth > 0 => depth -= 1,
            std::path::Component::ParentDir
            | std::path::Component::RootDir
            | std::path::Component::Prefix(_) => return false,
        }
    }
    true
}

fn open_dir(fd: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(fd, name, flags, Mode::empty())
}

fn times(mtime: u64) -> Timestamps {
    let moment = Timespec { tv_sec: i64::try_from(mtime).unwrap_or(0), tv_nsec: 0 };
    Timestamps { last_access: moment, last_modification: moment }
}

fn rename(parent: &OwnedFd, temporary: &str, name: &OsStr) -> Result<(), Errno> {
    rustix::fs::renameat(parent, temporary, parent, name).inspect_err(|_| {
        let _ = rustix::fs::unlinkat(parent, temporary, AtFlags::empty());
    })
}

/// Copies an entry's `content` into `file`, telling a failing stream from a failing disk.
fn copy(content: &mut Records<impl Read>, file: &File, path: &Path) -> Result<u64, UnpackError> {
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        let read = match content.data(&mut buffer)? {
            Chunk::End => return Ok(total),
            Chunk::Data(read) => read,
            // A few bytes of a sparse file would fill the disk, and no pod sends any.
            Chunk::Hole(_) => return Err(UnpackError::Sparse(path.to_owned())),
        };
        io::Write::write_all(&mut &*file, &buffer[..read])
            .map_err(|source| UnpackError::Write { path: path.to_owned(), source })?;
        total += read as u64;
    }
}

/// A file that is not there yet: unlinked when dropped without [`rename`](Self::rename).
struct Temporary<'a> {
    parent: &'a OwnedFd,
    name: String,
    file: File,
    renamed: bool,
}

impl<'a> Temporary<'a> {
    fn create(parent: &'a OwnedFd) -> io::Result<Self> {
        let name = temporary_name();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent.as_fd(), &name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Self { parent, name, file: file.into(), renamed: false })
    }

    fn rename(mut self, name: &OsStr) -> io::Result<()> {
        rustix::fs::renameat(self.parent, &self.name, self.parent, name)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = rustix::fs::unlinkat(self.parent, &self.name, AtFlags::empty());
        }
    }
}

fn temporary_name() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!(".postern-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests;
