//! Which images there are, under which names, made of which layers, used by whom. Pure bookkeeping; the disk follows.
//!
//! A layer is there while an image names it or an operation holds a pin on it. An image is there while it has a name,
//! was stored without one, or a container uses it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use oci_spec::image::ImageConfiguration;
use postern_model::{ContainerName, ImageReference, Sha256};

use super::ResolveError;
use crate::{Image, disk::Attached};

/// Digits of an image id that may stand for it, as `docker images` prints them.
const SHORT_ID: usize = 12;

#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// By manifest digest.
    images: BTreeMap<Sha256, Stored>,
    names: BTreeMap<String, (ImageReference, Sha256)>,
    /// Layers on disk, by diff id, with their bytes.
    layers: BTreeMap<Sha256, u64>,
    /// Those of them that are disks of the host's, by root hash, and take no bytes here. They end with this process.
    disks: BTreeMap<Sha256, Arc<Attached>>,
    pins: BTreeMap<Sha256, usize>,
    users: BTreeMap<ContainerName, Sha256>,
}

/// An image without its names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) manifest_digest: Sha256,
    pub(crate) config_digest: Sha256,
    /// Stays without a name, because it never had one.
    pub(crate) anonymous: bool,
    pub(crate) created_unix_millis: Option<u64>,
    pub(crate) layers: Arc<[Sha256]>,
    pub(crate) config: Arc<ImageConfiguration>,
}

/// The containers that keep an image from going.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InUse(pub(crate) Vec<ContainerName>);

impl State {
    pub(crate) fn image_count(&self) -> usize {
        self.images.len()
    }

    /// Stores an image under `names`, in place of what they named before.
    pub(crate) fn add(&mut self, image: Stored, names: &[ImageReference]) {
        let digest = image.manifest_digest;
        let anonymous = image.anonymous || self.images.get(&digest).is_some_and(|known| known.anonymous);
        for name in names {
            self.names.insert(name.to_string(), (name.clone(), digest));
        }
        self.images.insert(digest, Stored { anonymous, ..image });
        self.drop_unreachable();
    }

    /// Every image, once per name, named ones first.
    pub(crate) fn list(&self) -> Vec<Image> {
        let named: BTreeSet<_> = self.names.values().map(|(_, digest)| *digest).collect();
        let names = self
            .names
            .values()
            .filter_map(|(name, digest)| Some(self.view(self.images.get(digest)?, Some(name))));
        let others = self.images.values().filter(|image| !named.contains(&image.manifest_digest));
        names.chain(others.map(|image| self.view(image, None))).collect()
    }

    fn view(&self, image: &Stored, name: Option<&ImageReference>) -> Image {
        let unique: BTreeSet<_> = image.layers.iter().collect();
        Image {
            reference: name.cloned(),
            manifest_digest: image.manifest_digest,
            config_digest: image.config_digest,
            size: unique
                .iter()
                .filter_map(|layer| self.disks.get(layer).map(|disk| &disk.bytes).or(self.layers.get(layer)))
                .sum(),
            created_unix_millis: image.created_unix_millis,
            layers: Arc::clone(&image.layers),
            config: Arc::clone(&image.config),
        }
    }

    fn first_name(&self, manifest: &Sha256) -> Option<&ImageReference> {
        self.names.values().find(|(_, digest)| digest == manifest).map(|(name, _)| name)
    }

    /// The image `text` means, with the name it was called by.
    pub(crate) fn resolve(&self, text: &str) -> Result<Image, ResolveError> {
        let unknown = || ResolveError::Unknown(text.to_owned());
        if let Some(digits) = text.strip_prefix("sha256:") {
            let digest = Sha256::from_hex(digits).map_err(|_| ResolveError::Malformed(text.to_owned()))?;
            let image =
                self.images.values().find(|i| i.manifest_digest == digest || i.config_digest == digest);
            let image = image.ok_or_else(unknown)?;
            return Ok(self.view(image, self.first_name(&image.manifest_digest)));
        }
        let reference = text.parse::<ImageReference>();
        if let Some((name, image)) = reference.as_ref().ok().and_then(|wanted| self.by_name(wanted)) {
            return Ok(self.view(image, Some(name)));
        }
        let is_id = (SHORT_ID..=64).contains(&text.len())
            && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        let mut by_id = self.images.values().filter(|i| is_id && i.config_digest.to_hex().starts_with(text));
        match (by_id.next(), by_id.next()) {
            (Some(image), None) => Ok(self.view(image, self.first_name(&image.manifest_digest))),
            (Some(_), Some(_)) => Err(ResolveError::Ambiguous(text.to_owned())),
            _ => match reference {
                Ok(_) => Err(unknown()),
                Err(_) => Err(ResolveError::Malformed(text.to_owned())),
            },
        }
    }

    fn by_name(&self, wanted: &ImageReference) -> Option<(&ImageReference, &Stored)> {
        let found = self.names.get(&wanted.to_string()).or_else(|| {
            // `name@digest` means that content, under whatever tag it came.
            let digest = wanted.digest()?;
            self.names.values().find(|(name, manifest)| {
                *manifest == digest
                    && name.registry() == wanted.registry()
                    && name.repository() == wanted.repository()
            })
        });
        found.and_then(|(name, digest)| Some((name, self.images.get(digest)?)))
    }

    /// Takes away the name that `image` was resolved by; without one, or with its last one, the image.
    pub(crate) fn remove(&mut self, image: &Image, whole: bool) -> Result<(), InUse> {
        let digest = image.manifest_digest;
        let names = self.names.values().filter(|(_, named)| *named == digest).count();
        let only_name = image.reference.as_ref().filter(|_| !whole && names > 1);
        if let Some(name) = only_name {
            self.names.remove(&name.to_string());
            return Ok(());
        }
        let users: Vec<_> =
            self.users.iter().filter(|(_, used)| **used == digest).map(|(user, _)| user.clone()).collect();
        if !users.is_empty() {
            return Err(InUse(users));
        }
        self.names.retain(|_, (_, named)| *named != digest);
        self.images.remove(&digest);
        Ok(())
    }

    /// Notes that `container` uses an image; false if the container has one or the image is gone.
    pub(crate) fn use_image(&mut self, container: &ContainerName, manifest: Sha256) -> bool {
        if self.users.contains_key(container) || !self.images.contains_key(&manifest) {
            return false;
        }
        self.users.insert(container.clone(), manifest);
        true
    }

    pub(crate) fn is_used_by(&self, container: &ContainerName) -> bool {
        self.users.contains_key(container)
    }

    pub(crate) fn end_use(&mut self, container: &ContainerName) {
        self.users.remove(container);
        self.drop_unreachable();
    }

    /// Images whose last name was given to another one.
    fn drop_unreachable(&mut self) {
        let reachable: BTreeSet<_> =
            self.names.values().map(|(_, digest)| *digest).chain(self.users.values().copied()).collect();
        self.images.retain(|digest, image| image.anonymous || reachable.contains(digest));
    }

    pub(crate) fn has_layer(&self, diff_id: &Sha256) -> bool {
        self.layers.contains_key(diff_id)
    }

    pub(crate) fn add_layer(&mut self, diff_id: Sha256, bytes: u64) {
        self.layers.insert(diff_id, bytes);
    }

    pub(crate) fn add_disk(&mut self, root_hash: Sha256, disk: Attached) {
        self.layers.insert(root_hash, 0);
        self.disks.insert(root_hash, Arc::new(disk));
    }

    pub(crate) fn pin(&mut self, diff_id: Sha256) {
        *self.pins.entry(diff_id).or_default() += 1;
    }

    pub(crate) fn unpin(&mut self, diff_id: &Sha256) {
        if let Some(count) = self.pins.get_mut(diff_id) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(diff_id);
            }
        }
    }

    /// Forgets the layers nobody needs and says which they were, with their bytes.
    pub(crate) fn take_orphans(&mut self) -> Vec<(Sha256, u64)> {
        let needed: BTreeSet<_> =
            self.images.values().flat_map(|image| image.layers.iter().copied()).collect();
        let pins = &self.pins;
        let orphan = |diff_id: &Sha256| !needed.contains(diff_id) && !pins.contains_key(diff_id);
        let orphans: Vec<_> =
            self.layers.iter().filter(|(id, _)| orphan(id)).map(|(id, bytes)| (*id, *bytes)).collect();
        for (diff_id, _) in &orphans {
            self.layers.remove(diff_id);
            // Unmounted by that; its directory is empty then.
            self.disks.remove(diff_id);
        }
        orphans
    }

    /// What an index file holds: images with their names, and the bytes of layers.
    pub(crate) fn images(&self) -> impl Iterator<Item = (&Stored, Vec<&ImageReference>)> {
        let whole = |image: &&Stored| !image.layers.iter().any(|layer| self.disks.contains_key(layer));
        self.images.values().filter(whole).map(|image| {
            let names = self.names.values().filter(|(_, digest)| *digest == image.manifest_digest);
            (image, names.map(|(name, _)| name).collect())
        })
    }

    pub(crate) fn layers(&self) -> impl Iterator<Item = (&Sha256, u64)> {
        let kept = self.layers.iter().filter(|(diff_id, _)| !self.disks.contains_key(diff_id));
        kept.map(|(diff_id, bytes)| (diff_id, *bytes))
    }
}

#[cfg(test)]
mod tests;
