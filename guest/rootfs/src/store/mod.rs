//! The images of one guest, on one directory.

mod archive;
mod area;
mod attach;
mod import;
mod index;
mod operation;
mod overlay;
mod pull;
mod rootfs;
mod spool;
mod state;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use postern_model::{ContainerName, ImageReference};
use rustix::{io::Errno, mount::UnmountFlags};
use tokio::{io::AsyncRead, sync::Semaphore};

pub use archive::ArchiveError;
pub use import::ImportError;
pub use index::IndexError;
pub use operation::StoreError;
pub use pull::PullError;
pub use rootfs::{PrepareError, Rootfs, RootfsError};
pub use spool::SpoolError;

use self::{area::Area, operation::Operation, state::State};
use crate::{
    AttachError, Auth, DiskImage, Image, Limits, ProgressSender, Transport, budget::Budget, registry::Roots,
    remove::remove_tree,
};

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("image store {0:?} is in use by another process")]
    InUse(String),
    #[error("image store {path:?} cannot be opened ({errno})")]
    Directory { path: String, errno: Errno },
    #[error("what an earlier process left in the image store cannot be deleted ({0})")]
    CleanUp(Errno),
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Why a text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error("no image {0:?} in this pod; push or pull it first")]
    Unknown(String),
    #[error("image id {0:?} fits several images; use more digits")]
    Ambiguous(String),
    #[error("{0:?} is neither an image reference, nor a digest, nor 12 or more digits of an image id")]
    Malformed(String),
}

/// Why an image was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("image {image} is in use by {}; remove {} first", names(.containers), if .containers.len() == 1 { "it" } else { "them" })]
    InUse { image: String, containers: Vec<ContainerName> },
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("the thread that removed it ended early")]
    Stopped,
}

fn names(containers: &[ContainerName]) -> String {
    let names: Vec<_> = containers.iter().map(ContainerName::as_str).collect();
    format!("container{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "))
}

/// The images of one guest. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    area: Area,
    limits: Limits,
    budget: Budget,
    state: Mutex<State>,
    turns: Arc<Semaphore>,
    /// Held while a disk is attached: one at a time.
    attaching: Mutex<()>,
    roots: Roots,
}

impl Store {
    /// Opens the store in `directory`, which is made if it does not exist, and takes away what an earlier process left
    /// unfinished. Blocks.
    pub fn open(directory: &Path, limits: Limits) -> Result<Self, OpenError> {
        Self::open_with_roots(directory, limits, Roots::Public)
    }

    fn open_with_roots(directory: &Path, limits: Limits, roots: Roots) -> Result<Self, OpenError> {
        let path = || directory.display().to_string();
        let area = Area::open(directory).map_err(|errno| match errno {
            Errno::WOULDBLOCK => OpenError::InUse(path()),
            errno => OpenError::Directory { path: path(), errno },
        })?;
        let state = index::read(&area, &limits)?;
        for name in area.container_names().map_err(OpenError::CleanUp)? {
            let mount =
                area.path().join("containers").join(name.to_string_lossy().as_ref()).join(rootfs::MERGED);
            // Most are not mounted any more.
            let _ = rustix::mount::unmount(mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
            remove_tree(area.containers(), &name).map_err(OpenError::CleanUp)?;
        }
        let known: Vec<_> = state.layers().map(|(diff_id, _)| diff_id.to_hex()).collect();
        for name in area.layer_names().map_err(OpenError::CleanUp)? {
            if !known.iter().any(|known| known.as_bytes() == name.as_bytes()) {
                area.take_layer(&name).map_err(OpenError::CleanUp)?;
            }
        }
        let root = area.root().try_clone_to_owned().map_err(|error| OpenError::Directory {
            path: path(),
            errno: Errno::from_io_error(&error).unwrap_or(Errno::MFILE),
        })?;
        let budget = Budget::new(root, limits.total_bytes, limits.reserve_bytes);
        state.layers().for_each(|(_, bytes)| budget.add_kept(bytes));
        let turns = Arc::new(Semaphore::new(operation::CONCURRENT));
        let inner = Inner {
            area,
            limits,
            budget,
            state: Mutex::new(state),
            turns,
            attaching: Mutex::default(),
            roots,
        };
        inner.sweep();
        Ok(Self(Arc::new(inner)))
    }

    /// Reads an image archive: an OCI layout or what `docker save` writes, plain or compressed. Without a reference the
    /// image takes the names the archive gives it, if any.
    ///
    /// Dropping the future cancels; nothing of the image stays.
    pub async fn import<R: AsyncRead + Send + Unpin>(
        &self,
        archive: R,
        reference: Option<&ImageReference>,
        progress: &ProgressSender,
    ) -> Result<Image, ImportError> {
        let operation = Operation::begin(&self.0).await?;
        let imported = import::import(&operation, &self.0, archive, reference, progress).await;
        operation.end().await;
        imported
    }

    /// Fetches an image from its registry. Dropping the future cancels; nothing of the image stays.
    pub async fn pull(
        &self,
        reference: &ImageReference,
        auth: Auth,
        transport: Transport,
        progress: &ProgressSender,
    ) -> Result<Image, PullError> {
        let operation = Operation::begin(&self.0).await?;
        let pulled = pull::pull(&operation, &self.0, reference, auth, transport, progress).await;
        operation.end().await;
        pulled
    }

    /// Takes an image that is on a disk of the host's. Nothing is copied: what is read is checked when it is read.
    pub async fn attach(
        &self,
        image: DiskImage,
        reference: Option<&ImageReference>,
    ) -> Result<Image, AttachError> {
        let (store, names) = (Arc::clone(&self.0), reference.cloned().into_iter().collect());
        attach::attach(store, image, names).await
    }

    /// Every image, once for each of its names, in order of name.
    pub fn list(&self) -> Vec<Image> {
        self.0.state().list()
    }

    /// Finds an image by reference, manifest digest, image id, or 12 or more digits of the id.
    pub fn resolve(&self, text: &str) -> Result<Image, ResolveError> {
        self.0.state().resolve(text)
    }

    /// Takes away a name, and with the last one the image; by digest or id, the image with all its names. What it was
    /// is returned.
    pub async fn remove(&self, text: &str) -> Result<Image, RemoveError> {
        let store = Arc::clone(&self.0);
        let text = text.to_owned();
        tokio::task::spawn_blocking(move || store.remove(&text)).await.map_err(|_| RemoveError::Stopped)?
    }

    /// Mounts `image` for `container`: its layers below, a directory of the container's own above.
    pub async fn prepare(&self, image: &Image, container: &ContainerName) -> Result<Rootfs, PrepareError> {
        let store = Arc::clone(&self.0);
        let (image, container) = (image.clone(), container.clone());
        tokio::task::spawn_blocking(move || Rootfs::prepare(&store, &image, &container))
            .await
            .map_err(|_| PrepareError::Stopped)?
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // Changes are made to a copy and moved in, or are one step: no panic leaves half of one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, text: &str) -> Result<Image, RemoveError> {
        let mut state = self.state();
        let image = state.resolve(text)?;
        let by_name = image.reference.as_ref().is_some_and(|name| {
            text.parse::<ImageReference>().is_ok_and(|wanted| wanted.repository() == name.repository())
        });
        state.remove(&image, !by_name).map_err(|state::InUse(containers)| RemoveError::InUse {
            image: image.to_string(),
            containers,
        })?;
        drop(state);
        // Layers first: on a full store the index has no room before.
        self.sweep();
        index::write(&self.area, &self.state())?;
        Ok(image)
    }

    /// Deletes the layers nobody needs.
    fn sweep(&self) {
        let mut state = self.state();
        let mut taken = Vec::new();
        for (diff_id, bytes) in state.take_orphans() {
            self.budget.release(bytes);
            // Hexadecimal digits hold no NUL.
            match self.area.take_layer(&std::ffi::CString::new(diff_id.to_hex()).unwrap_or_default()) {
                Ok(layer) => taken.push(layer),
                Err(errno) => tracing::error!(%errno, "a layer nobody needs could not be deleted"),
            }
        }
        drop(state);
        // Deleting takes time; the lock is free by now.
        drop(taken);
    }
}

#[cfg(test)]
mod tests;
