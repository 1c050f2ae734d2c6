//! The images of one guest, on one directory.

use std::path::Path;

use postern_model::{ContainerName, ImageReference};
use tokio::io::AsyncRead;

use crate::{Auth, Image, Limits, ProgressSender, Transport};

#[derive(Debug, thiserror::Error)]
#[error("image store cannot be opened")]
pub struct OpenError;
#[derive(Debug, thiserror::Error)]
#[error("image cannot be imported")]
pub struct ImportError;
#[derive(Debug, thiserror::Error)]
#[error("image cannot be pulled")]
pub struct PullError;
#[derive(Debug, thiserror::Error)]
#[error("no such image")]
pub struct ResolveError;
#[derive(Debug, thiserror::Error)]
#[error("image cannot be removed")]
pub struct RemoveError;
#[derive(Debug, thiserror::Error)]
#[error("root file system cannot be prepared")]
pub struct PrepareError;
#[derive(Debug, thiserror::Error)]
#[error("root file system cannot be removed")]
pub struct RootfsError;

/// The images of one guest. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {}

impl Store {
    /// Opens the store in `directory`, which is made if it does not exist, and takes away what an earlier process left
    /// unfinished. Blocks.
    pub fn open(_directory: &Path, _limits: Limits) -> Result<Self, OpenError> {
        Ok(Self {})
    }

    /// Reads an image archive: an OCI layout or what `docker save` writes, plain or gzip.
    pub async fn import<R: AsyncRead + Send + Unpin>(
        &self,
        _archive: R,
        _reference: Option<&ImageReference>,
        _progress: &ProgressSender,
    ) -> Result<Image, ImportError> {
        Err(ImportError)
    }

    /// Fetches an image from its registry.
    pub async fn pull(
        &self,
        _reference: &ImageReference,
        _auth: Auth,
        _transport: Transport,
        _progress: &ProgressSender,
    ) -> Result<Image, PullError> {
        Err(PullError)
    }

    /// Every image, once for each of its names, in order of name.
    pub fn list(&self) -> Vec<Image> {
        Vec::new()
    }

    /// Finds an image by reference, manifest digest, image id, or 12 or more digits of the id.
    pub fn resolve(&self, _text: &str) -> Result<Image, ResolveError> {
        Err(ResolveError)
    }

    /// Takes away a name, and with the last one the image.
    pub async fn remove(&self, _text: &str) -> Result<Image, RemoveError> {
        Err(RemoveError)
    }

    /// Mounts `image` for `container`: its layers below, a directory of the container's own above.
    pub async fn prepare(&self, _image: &Image, _container: &ContainerName) -> Result<Rootfs, PrepareError> {
        Err(PrepareError)
    }
}

/// A mounted root file system.
#[derive(Debug)]
pub struct Rootfs {
    path: std::path::PathBuf,
}

impl Rootfs {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts it and deletes what the container wrote. Doing so twice is no error.
    pub async fn remove(&self) -> Result<(), RootfsError> {
        Ok(())
    }
}
