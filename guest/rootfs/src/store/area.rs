//! The store's directory: `layers/<diff id>`, `containers/<name>`, `tmp/`, and the index.
//!
//! What is being made lives below `tmp` and is moved into place when it is whole; what is being deleted is moved there
//! first. So whatever happens, `layers` holds whole layers only, and `tmp` can be emptied at any start.

use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use postern_model::Sha256;
use rustix::{
    fs::{Dir, FlockOperation, Mode, OFlags, flock, mkdirat, openat, renameat},
    io::{Errno, Result},
};

use crate::remove::remove_tree;

pub(crate) const INDEX: &str = "index.json";
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

#[derive(Debug, Clone)]
pub(crate) struct Area(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    root: OwnedFd,
    layers: OwnedFd,
    containers: OwnedFd,
    tmp: OwnedFd,
    next: AtomicU64,
    /// Holds the lock that says one process owns this store.
    #[cfg_attr(not(test), expect(dead_code, reason = "held, not used"))]
    lock: OwnedFd,
}

impl Area {
    /// Opens or makes the directory. `Errno::WOULDBLOCK` says that another process has it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).map_err(|_| Errno::INVAL)?;
        std::fs::create_dir_all(&path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let root = openat(rustix::fs::CWD, &path, DIRECTORY & !OFlags::NOFOLLOW, Mode::empty())?;
        // Images hold set-id programs; nobody but the store's owner may reach them here.
        rustix::fs::fchmod(&root, Mode::RWXU)?;
        let lock =
            openat(&root, "lock", OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            // A specialised guest's kernel may leave locks out, and nobody else is in there.
            Ok(()) | Err(Errno::NOSYS) => {}
            Err(error) => return Err(error),
        }
        let [layers, containers, tmp] =
            ["layers", "containers", "tmp"].map(|name| directory(root.as_fd(), name));
        let (layers, containers, tmp) = (layers?, containers?, tmp?);
        let area =
            Self(Arc::new(Inner { path, root, layers, containers, tmp, next: AtomicU64::new(0), lock }));
        area.empty(area.0.tmp.as_fd())?;
        Ok(area)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.0.root.as_fd()
    }

    pub(crate) fn containers(&self) -> BorrowedFd<'_> {
        self.0.containers.as_fd()
    }

    #[cfg(test)]
    pub(crate) fn lock(&self) -> BorrowedFd<'_> {
        self.0.lock.as_fd()
    }

    /// A new directory that is deleted when it is dropped.
    pub(crate) fn temporary(&self) -> Result<Temporary> {
        loop {
            let name = self.unused_name();
            match mkdirat(&self.0.tmp, &name, Mode::from_raw_mode(0o755)) {
                Ok(()) => return Ok(Temporary { area: self.clone(), name }),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes a whole layer of `made`. If another made the same one first, that one stays.
    pub(crate) fn commit(&self, made: &Temporary, diff_id: &Sha256) -> Result<()> {
        match renameat(&self.0.tmp, &made.name, &self.0.layers, diff_id.to_hex()) {
            Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(()),
            renamed => renamed,
        }
    }

    /// An empty directory for a layer that is mounted.
    pub(crate) fn mount_point(&self, layer: &Sha256) -> Result<PathBuf> {
        match mkdirat(&self.0.layers, layer.to_hex(), Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Ok(self.0.path.join("layers").join(layer.to_hex())),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn layer(&self, diff_id: &Sha256) -> Result<OwnedFd> {
        openat(&self.0.layers, diff_id.to_hex(), DIRECTORY, Mode::empty())
    }

    /// Names of all layer directories, and of anything else somebody put beside them.
    pub(crate) fn layer_names(&self) -> Result<Vec<CString>> {
        names(self.0.layers.as_fd())
    }

    pub(crate) fn container_names(&self) -> Result<Vec<CString>> {
        names(self.0.containers.as_fd())
    }

    /// Takes a layer out of sight at once; it is deleted when the result is dropped.
    pub(crate) fn take_layer(&self, name: &CString) -> Result<Temporary> {
        let moved = Temporary { area: self.clone(), name: self.unused_name() };
        renameat(&self.0.layers, name, &self.0.tmp, &moved.name)?;
        Ok(moved)
    }

    fn unused_name(&self) -> CString {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        // Decimal digits hold no NUL.
        CString::new(number.to_string()).unwrap_or_default()
    }

    fn empty(&self, directory: BorrowedFd<'_>) -> Result<()> {
        names(directory)?.iter().try_for_each(|name| remove_tree(directory, name))
    }
}

/// A directory below `tmp`.
#[derive(Debug)]
pub(crate) struct Temporary {
    area: Area,
    name: CString,
}

impl Temporary {
    pub(crate) fn open(&self) -> Result<OwnedFd> {
        openat(&self.area.0.tmp, &self.name, DIRECTORY, Mode::empty())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(errno) = remove_tree(self.area.0.tmp.as_fd(), &self.name) {
            tracing::warn!(%errno, "a temporary directory of the image store could not be deleted");
        }
    }
}

fn directory(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    match mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => openat(parent, name, DIRECTORY, Mode::empty()),
        Err(error) => Err(error),
    }
}

fn names(directory: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
