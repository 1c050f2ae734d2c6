//! Images: the store does the work, the pod says whether, and tells what happened.

use postern_model::{ImageReference, OperationKind};
use postern_policy::Permit;
use postern_rootfs::{Auth, DiskImage, Image, ProgressSender, Transport, progress};
use tokio::io::AsyncRead;

use super::{PodError, PodHandle};

impl PodHandle {
    /// Reads an image archive to its end. Dropping this leaves nothing behind.
    pub async fn push<R>(
        &self,
        permit: Permit,
        archive: R,
        reference: Option<&ImageReference>,
    ) -> Result<Image, PodError>
    where
        R: AsyncRead + Send + Unpin,
    {
        self.check(&permit, OperationKind::PushImage)?;
        let image = self.shared.engine.store.import(archive, reference, &progress::unwatched()).await;
        let image = image.map_err(PodError::failed("reading the image archive"))?;
        self.housekeeper().call();
        self.shared.events.tell("push", image.to_string());
        Ok(image)
    }

    /// Takes an image that is on a disk of the host's.
    pub async fn push_disk(
        &self,
        permit: Permit,
        disk: DiskImage,
        reference: Option<&ImageReference>,
    ) -> Result<Image, PodError> {
        self.check(&permit, OperationKind::PushImage)?;
        let image = self.shared.engine.store.attach(disk, reference).await;
        let image = image.map_err(PodError::failed("using the image disk"))?;
        self.shared.events.tell("push", image.to_string());
        Ok(image)
    }

    pub async fn pull(
        &self,
        permit: Permit,
        reference: &ImageReference,
        auth: Auth,
        transport: Transport,
        progress: &ProgressSender,
    ) -> Result<Image, PodError> {
        self.check(&permit, OperationKind::PullImage)?;
        let image = self.shared.engine.store.pull(reference, auth, transport, progress).await;
        let image = image.map_err(PodError::failed("pulling the image"))?;
        self.housekeeper().call();
        self.shared.events.tell("pull", image.to_string());
        Ok(image)
    }

    pub fn images(&self, permit: Permit) -> Result<Vec<Image>, PodError> {
        self.check(&permit, OperationKind::ListImages)?;
        Ok(self.shared.engine.store.list())
    }

    pub async fn remove_image(&self, permit: Permit, name: &str) -> Result<(), PodError> {
        self.check(&permit, OperationKind::RemoveImage)?;
        let image = self.shared.engine.store.remove(name).await?;
        self.shared.events.tell("remove-image", image.to_string());
        Ok(())
    }
}
