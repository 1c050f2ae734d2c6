//! A container's root file system: the layers of its image, and a directory of its own above them.

use std::{
    ffi::CString,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use postern_model::ContainerName;
use rustix::{
    fs::{Mode, OFlags, mkdirat, openat},
    io::Errno,
    mount::{UnmountFlags, unmount},
};

use super::{Inner, overlay::mount_overlay};
use crate::{Image, remove::remove_tree};

/// Where the whole is mounted, below the container's directory.
pub(super) const MERGED: &str = "rootfs";
const UPPER: &str = "upper";
const WORK: &str = "work";

/// Why a root file system could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error("image {0} is no longer in this pod")]
    NoImage(String),
    #[error("container {0} has a root file system already")]
    Exists(ContainerName),
    #[error("the directory for container {container} cannot be made ({errno})")]
    Directory { container: ContainerName, errno: Errno },
    #[error("the {layers} layers of image {image} cannot be mounted ({errno})")]
    Mount { image: String, layers: usize, errno: Errno },
    #[error("the thread that mounted it ended early")]
    Stopped,
}

/// Why a root file system could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    #[error("the root file system of container {container} cannot be unmounted ({errno})")]
    Unmount { container: ContainerName, errno: Errno },
    #[error("what container {container} wrote cannot be deleted ({errno})")]
    Delete { container: ContainerName, errno: Errno },
    #[error("the thread that removed it ended early")]
    Stopped,
}

/// A mounted root file system. Dropping the last of its handles removes it as [`remove`](Self::remove) does.
#[derive(Debug)]
pub struct Rootfs(Arc<Mounted>);

impl Rootfs {
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Unmounts it and deletes what the container wrote. Doing so twice is no error.
    pub async fn remove(&self) -> Result<(), RootfsError> {
        let mounted = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || mounted.remove()).await.map_err(|_| RootfsError::Stopped)?
    }

    pub(super) fn prepare(
        store: &Arc<Inner>,
        image: &Image,
        container: &ContainerName,
    ) -> Result<Self, PrepareError> {
        {
            let mut state = store.state();
            if state.is_used_by(container) {
                return Err(PrepareError::Exists(container.clone()));
            }
            if !state.use_image(container, image.manifest_digest) {
                return Err(PrepareError::NoImage(image.to_string()));
            }
        }
        // From here on dropping it undoes what was done.
        let mounted = Mounted {
            store: Arc::clone(store),
            container: container.clone(),
            path: store.area.path().join("containers").join(container.as_str()).join(MERGED),
            removed: Mutex::new(false),
        };
        let (upper, work) = mounted
            .make()
            .map_err(|errno| PrepareError::Directory { container: container.clone(), errno })?;
        let layers = image.layers.iter().map(|layer| store.area.layer(layer)).collect::<Result<Vec<_>, _>>();
        layers.and_then(|layers| mount_overlay(&layers, &upper, &work, &mounted.path)).map_err(|errno| {
            PrepareError::Mount { image: image.to_string(), layers: image.layers.len(), errno }
        })?;
        Ok(Self(Arc::new(mounted)))
    }
}

#[derive(Debug)]
struct Mounted {
    store: Arc<Inner>,
    container: ContainerName,
    path: PathBuf,
    removed: Mutex<bool>,
}

impl Mounted {
    fn make(&self) -> Result<(OwnedFd, OwnedFd), Errno> {
        let containers = self.store.area.containers();
        mkdirat(containers, self.container.as_str(), Mode::RWXU)?;
        let own = open(containers, self.container.as_str())?;
        for name in [UPPER, WORK, MERGED] {
            // The container sees the upper directory's mode on its root.
            mkdirat(&own, name, Mode::from_raw_mode(0o755))?;
        }
        Ok((open(own.as_fd(), UPPER)?, open(own.as_fd(), WORK)?))
    }

    fn remove(&self) -> Result<(), RootfsError> {
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        if *removed {
            return Ok(());
        }
        let container = || self.container.clone();
        match unmount(&self.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Not mounted, or never made.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(RootfsError::Unmount { container: container(), errno }),
        }
        // A label holds no NUL.
        let name = CString::new(self.container.as_str()).unwrap_or_default();
        remove_tree(self.store.area.containers(), &name)
            .map_err(|errno| RootfsError::Delete { container: container(), errno })?;
        self.store.state().end_use(&self.container);
        self.store.sweep();
        *removed = true;
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Not the error: it names the container, and logs may be seen by the host.
        if self.remove().is_err() {
            tracing::error!("a root file system stays behind");
        }
    }
}

fn open(parent: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    openat(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}
