//! The directory a layer is unpacked into, and the only way to touch what is in it.
//!
//! Every path is resolved by the kernel beneath the layer's root, with no symbolic link followed anywhere: a link an
//! image planted leads nowhere. Directories keep the modification times they were given, whatever is put into them
//! later.

use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT, XattrFlags,
        fchmod, fsetxattr, fstat, futimens, makedev, mkdirat, mknodat, openat, openat2, statat, unlinkat,
    },
    io::Errno,
};

use super::path::EntryPath;
use crate::remove::remove_tree;

/// overlayfs' mark of a directory that hides the one below it (Linux, overlayfs, "whiteouts and opaque directories").
const OPAQUE: &str = "trusted.overlay.opaque";
/// Mode of a directory no entry describes.
const IMPLIED_MODE: Mode = Mode::from_raw_mode(0o755);

/// Why an entry cannot be put where it wants to be.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("its path leads through a symbolic link of the same layer")]
    BelowSymlink,
    #[error("its path leads through something that is no directory")]
    BelowFile,
    #[error("the system refused ({0})")]
    System(Errno),
}

impl From<Errno> for PlaceError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::LOOP => Self::BelowSymlink,
            Errno::NOTDIR => Self::BelowFile,
            errno => Self::System(errno),
        }
    }
}

/// What is already at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Present {
    Nothing,
    Directory,
    Whiteout,
    Other,
}

#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
    /// The directory of the entry at hand: most entries are in the one before's.
    parent: Option<Parent>,
    /// Directories made though no entry describes them.
    implied: u64,
}

#[derive(Debug)]
struct Parent {
    path: Vec<u8>,
    directory: OwnedFd,
    mtime: Timespec,
}

impl Tree {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self { root, parent: None, implied: 0 }
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Makes the directory `path` is in, with those above it, if need be; says how many that were.
    pub(crate) fn make_parent_of(&mut self, path: &EntryPath) -> Result<u64, PlaceError> {
        let before = self.implied;
        self.enter(path.parent())?;
        Ok(self.implied - before)
    }

    /// The directory `path` is in.
    pub(crate) fn parent_of(&mut self, path: &EntryPath) -> Result<BorrowedFd<'_>, PlaceError> {
        self.enter(path.parent())
    }

    /// The directory of `path` if it is there; makes nothing.
    pub(crate) fn existing_parent_of(&self, path: &EntryPath) -> Result<OwnedFd, PlaceError> {
        Ok(open_beneath(self.root.as_fd(), path.parent())?)
    }

    fn enter(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, PlaceError> {
        if self.parent.as_ref().is_none_or(|parent| parent.path != path) {
            self.leave()?;
            let directory = match open_beneath(self.root.as_fd(), path) {
                Err(Errno::NOENT | Errno::NOTDIR) => self.make_path(path)?,
                directory => directory?,
            };
            let mtime = modified(&fstat(&directory)?);
            self.parent = Some(Parent { path: path.to_vec(), directory, mtime });
        }
        match &self.parent {
            Some(parent) => Ok(parent.directory.as_fd()),
            // Set above.
            None => Err(PlaceError::System(Errno::NOENT)),
        }
    }

    /// Gives the directory at hand its time back and lets go of it. Due before it may itself be changed or removed,
    /// and at the end.
    pub(crate) fn leave(&mut self) -> Result<(), PlaceError> {
        match self.parent.take() {
            Some(parent) => Ok(set_modified(parent.directory.as_fd(), parent.mtime)?),
            None => Ok(()),
        }
    }

    /// Makes the directories of `path` that are missing, one by one from the root.
    fn make_path(&mut self, path: &[u8]) -> Result<OwnedFd, PlaceError> {
        let mut at = open_beneath(self.root.as_fd(), b"")?;
        for part in path.split(|&c| c == b'/') {
            let missing = match open_beneath(at.as_fd(), part) {
                Err(Errno::NOENT) => Present::Nothing,
                Err(Errno::NOTDIR) => match present(at.as_fd(), part)? {
                    Present::Whiteout => Present::Whiteout,
                    _ => return Err(PlaceError::BelowFile),
                },
                directory => {
                    at = directory?;
                    continue;
                }
            };
            at = make_directory(at.as_fd(), part, missing)?;
            self.implied += 1;
        }
        Ok(at)
    }
}

/// Makes a directory where `present` says what was found; one that takes a whiteout's place hides what is below.
fn make_directory(parent: BorrowedFd<'_>, name: &[u8], present: Present) -> Result<OwnedFd, Errno> {
    let mtime = modified(&fstat(parent)?);
    if present == Present::Whiteout {
        unlinkat(parent, name, AtFlags::empty())?;
    }
    mkdirat(parent, name, IMPLIED_MODE)?;
    let directory = open_beneath(parent, name)?;
    fchmod(&directory, IMPLIED_MODE)?;
    if present == Present::Whiteout {
        set_opaque(directory.as_fd())?;
    }
    set_modified(parent, mtime)?;
    Ok(directory)
}

/// Makes or keeps a directory; anything else in its place goes.
pub(crate) fn place_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, PlaceError> {
    match mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => return Ok(open_beneath(parent, name)?),
        Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    match present(parent, name)? {
        Present::Directory => Ok(open_beneath(parent, name)?),
        found => {
            unlinkat(parent, name, AtFlags::empty())?;
            mkdirat(parent, name, Mode::RWXU)?;
            let directory = open_beneath(parent, name)?;
            if found == Present::Whiteout {
                set_opaque(directory.as_fd())?;
            }
            Ok(directory)
        }
    }
}

/// Makes something that must be new, and clears its place if it is taken.
pub(crate) fn place<T>(
    parent: BorrowedFd<'_>,
    name: &[u8],
    make: impl Fn() -> Result<T, Errno>,
) -> Result<T, PlaceError> {
    match make() {
        Err(Errno::EXIST) => {
            clear(parent, name)?;
            Ok(make()?)
        }
        made => Ok(made?),
    }
}

/// A new file, open for writing.
pub(crate) fn create_file(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(parent, name, flags, Mode::RUSR | Mode::WUSR, RESOLVE)
}

pub(crate) fn clear(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), PlaceError> {
    let name = CString::new(name).map_err(|_| PlaceError::System(Errno::INVAL))?;
    Ok(remove_tree(parent, &name)?)
}

/// Hides `name` of the layers below.
pub(crate) fn whiteout(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), PlaceError> {
    match present(parent, name)? {
        Present::Nothing => {
            Ok(mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), makedev(0, 0))?)
        }
        // What the same layer brings stays; of a directory only what lies below it goes.
        Present::Directory => Ok(set_opaque(open_beneath(parent, name)?.as_fd())?),
        Present::Whiteout | Present::Other => Ok(()),
    }
}

/// Hides everything the layers below have in this directory.
pub(crate) fn set_opaque(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty())
}

pub(crate) fn present(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Present, Errno> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(Present::Nothing),
        Err(error) => Err(error),
        Ok(stat) => Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Present::Directory,
            FileType::CharacterDevice if stat.st_rdev == makedev(0, 0) => Present::Whiteout,
            _ => Present::Other,
        }),
    }
}

pub(crate) fn set_modified(file: BorrowedFd<'_>, mtime: Timespec) -> Result<(), Errno> {
    futimens(file, &timestamps(mtime))
}

pub(crate) fn timestamps(mtime: Timespec) -> Timestamps {
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: mtime }
}

fn modified(stat: &Stat) -> Timespec {
    Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ }
}

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// A directory below `root`; the empty path is `root` itself.
pub(crate) fn open_beneath(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match path {
        b"" => openat(root, c".", flags, Mode::empty()),
        path => openat2(root, path, flags, Mode::empty(), RESOLVE),
    }
}
