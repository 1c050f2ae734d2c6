//! An image on a disk of the host's: mounted where its layer would be, and stored like any other.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use postern_model::{ImageReference, Sha256};
use ring::digest::{SHA256, digest};

use super::{Inner, StoreError, state::Stored};
use crate::{AttachError, DiskImage, Image, disk::Attached, image::unix_millis, manifest::configuration};

/// The host serves the disk, and may not.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

pub(super) async fn attach(
    store: Arc<Inner>,
    image: DiskImage,
    names: Vec<ImageReference>,
) -> Result<Image, AttachError> {
    let attaching = tokio::task::spawn_blocking(move || {
        let root = image.disk.root_hash();
        // Until an image names it, it would be one that nobody needs.
        store.state().pin(root);
        let attached = store.attach(&image, &names);
        store.state().unpin(&root);
        store.sweep();
        attached
    });
    match tokio::time::timeout(ANSWERS_WITHIN, attaching).await {
        Ok(attached) => attached.map_err(|_| StoreError::Stopped)?,
        Err(_) => Err(AttachError::Silent(ANSWERS_WITHIN.as_secs())),
    }
}

impl Inner {
    fn attach(&self, image: &DiskImage, names: &[ImageReference]) -> Result<Image, AttachError> {
        let _one_at_a_time = self.attaching.lock().unwrap_or_else(PoisonError::into_inner);
        let (config, _) = configuration(&image.config, &self.limits)?;
        // What came by another way stays as it is: containers may use it.
        let known = self.state().resolve(&image.manifest_digest.to_string()).ok();
        let layers = match known {
            Some(known) => known.layers,
            None => self.mounted(image)?,
        };
        let mut config_digest = [0; Sha256::LENGTH];
        config_digest.copy_from_slice(digest(&SHA256, &image.config).as_ref());
        let stored = Stored {
            manifest_digest: image.manifest_digest,
            config_digest: Sha256::new(config_digest),
            anonymous: names.is_empty(),
            created_unix_millis: config.created().as_deref().and_then(unix_millis),
            layers,
            config: Arc::new(config),
        };
        Ok(self.keep(stored, names)?)
    }

    /// The disk as the image's one layer.
    fn mounted(&self, image: &DiskImage) -> Result<Arc<[Sha256]>, AttachError> {
        let root = image.disk.root_hash();
        if !self.state().has_layer(&root) {
            let target = self.area.mount_point(&root).map_err(AttachError::Directory)?;
            let attached = Attached::mount(&image.disk, target)?;
            self.state().add_disk(root, attached);
        }
        Ok([root].into())
    }
}
