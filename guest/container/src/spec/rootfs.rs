//! What a specification needs of the root file system before the container exists: all beneath the root, whatever
//! links the image holds.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, open, openat2};

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const BENEATH: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// A root file system, held open.
#[derive(Debug)]
pub(super) struct Root {
    directory: OwnedFd,
}

impl Root {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { directory: open(path, DIRECTORY, Mode::empty())? })
    }

    pub(super) fn descriptor(&self) -> impl AsFd {
        &self.directory
    }

    /// Opens the directory at `path`, if it is there.
    pub(super) fn existing(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        match openat2(&self.directory, path, DIRECTORY, Mode::empty(), BENEATH) {
            Ok(directory) => Ok(Some(directory)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the directory at `path` with its parents; returns where it really is, without links.
    pub(super) fn make_directories(&self, path: &Path) -> io::Result<PathBuf> {
        let mut so_far = PathBuf::from("/");
        let mut current = openat2(&self.directory, "/", DIRECTORY, Mode::empty(), BENEATH)?;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            so_far.push(name);
            // Resolved from the root each time: the kernel keeps links on the way from leading out of it.
            current = match self.existing(&so_far)? {
                Some(directory) => directory,
                None => {
                    mkdirat(&current, name, Mode::from_raw_mode(0o755))?;
                    self.existing(&so_far)?.ok_or(io::ErrorKind::NotFound)?
                }
            };
        }
        let (root, place) = (path_of(&self.directory)?, path_of(&current)?);
        let inner = place.strip_prefix(&root).map_err(|_| io::Error::other("it is outside of the root"))?;
        Ok(Path::new("/").join(inner))
    }
}

fn path_of(directory: &OwnedFd) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}
