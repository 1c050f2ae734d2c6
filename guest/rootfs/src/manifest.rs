//! The documents that describe an image: index, manifest and configuration (OCI image-spec 1.1; Docker's schema 2).
//!
//! Pure: bytes in, a [`Plan`] of what to unpack out. Digests are checked by who fetched the bytes.

use std::{collections::BTreeMap, sync::Arc};

use oci_spec::image::ImageConfiguration;
use postern_layer::printable;
use postern_model::{DigestError, Sha256};
use serde::Deserialize;

use crate::{
    Limits,
    image::{GUEST_PLATFORM, platform_text},
};

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYERS: [&str; 7] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.diff.tar+zstd",
];
/// Platforms listed in an error.
const SHOWN: usize = 20;

/// Why an image's documents were not taken.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("{what} is not valid")]
    Malformed { what: &'static str, source: serde_json::Error },
    #[error("manifest has schema version {0}; only 2 is supported")]
    Schema(u64),
    #[error("manifest is neither clearly an image manifest nor clearly an index")]
    Ambiguous,
    #[error("index refers to no image")]
    EmptyIndex,
    #[error("index holds no image for {GUEST_PLATFORM}; it has: {}", .0.join(", "))]
    Platforms(Vec<String>),
    #[error("index holds {} images for {GUEST_PLATFORM}; name one of: {}", .0.len(), .0.join(", "))]
    Several(Vec<String>),
    #[error("index refers to itself or is nested too deep")]
    Nesting,
    #[error("image is for {0}; this pod runs {GUEST_PLATFORM}")]
    Platform(String),
    #[error("this is not a container image but an artifact of type {0:?}")]
    Artifact(String),
    #[error("image has no layers, so there is nothing to run")]
    NoLayers,
    #[error("image has {count} layers; at most {limit} are allowed")]
    TooManyLayers { count: usize, limit: usize },
    #[error("manifest has {layers} layers and the configuration {diff_ids} diff ids")]
    LayerCount { layers: usize, diff_ids: usize },
    #[error("layer {index} is of type {media_type:?}, which is not supported")]
    LayerType { index: usize, media_type: String },
    #[error("diff id {index} of the configuration is not valid")]
    DiffId { index: usize, source: DigestError },
    #[error("image has {size} bytes of layers; the store takes at most {limit}")]
    TooLarge { size: u64, limit: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Sha256,
    pub(crate) size: u64,
    platform: Option<Platform>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Descriptor {
    fn platform_text(&self) -> Option<String> {
        self.platform.as_ref().map(|p| platform_text(&p.os, &p.architecture, p.variant.as_deref()))
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// The name an archive gives this image; a bare tag is not one.
    pub(crate) fn name(&self) -> Option<&str> {
        let full = self.annotation("io.containerd.image.name");
        full.or_else(|| {
            self.annotation("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':']))
        })
    }
}

#[derive(Debug)]
pub(crate) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u64,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

impl Document {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let malformed = |source| ManifestError::Malformed { what: "manifest", source };
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            schema_version: u64,
        }
        // First, because older schemas lack what `Raw` needs.
        let version: Version = serde_json::from_slice(bytes).map_err(malformed)?;
        if version.schema_version != 2 {
            return Err(ManifestError::Schema(version.schema_version));
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(malformed)?;
        debug_assert_eq!(raw.schema_version, 2);
        // A document that could be read as both has two meanings under one digest.
        match (raw.manifests, raw.config, raw.layers, raw.media_type.as_deref()) {
            (Some(manifests), None, None, None | Some(OCI_INDEX | DOCKER_LIST)) => Ok(Self::Index(manifests)),
            (None, Some(config), Some(layers), None | Some(OCI_MANIFEST | DOCKER_MANIFEST)) => {
                Ok(Self::Manifest(Manifest { config, layers }))
            }
            _ => Err(ManifestError::Ambiguous),
        }
    }
}

/// The image of an index that is meant: the one called `wanted`, or the one for this guest's platform.
pub(crate) fn choose<'a>(
    index: &'a [Descriptor],
    wanted: Option<&str>,
) -> Result<&'a Descriptor, ManifestError> {
    let is_image = |d: &&Descriptor| {
        matches!(d.media_type.as_str(), "" | OCI_INDEX | DOCKER_LIST | OCI_MANIFEST | DOCKER_MANIFEST)
    };
    let images: Vec<_> = index.iter().filter(is_image).collect();
    let named = |d: &&&Descriptor| {
        d.name()
            .and_then(|name| name.parse().ok())
            .map(|name: postern_model::ImageReference| name.to_string())
            .as_deref()
            == wanted
    };
    let candidates: Vec<_> = match images.iter().filter(named).copied().collect::<Vec<_>>() {
        named if wanted.is_some() && !named.is_empty() => named,
        _ => images,
    };
    match candidates.as_slice() {
        [] => return Err(ManifestError::EmptyIndex),
        // Its configuration is asked later.
        [only] if only.platform.is_none() => return Ok(only),
        _ => {}
    }
    let fits = |d: &&&Descriptor| match &d.platform {
        Some(platform) => format!("{}/{}", platform.os, platform.architecture) == GUEST_PLATFORM,
        None => true,
    };
    let mut fitting: Vec<_> = candidates.iter().filter(fits).copied().collect();
    // The lowest variant runs on every processor; with the same platform twice it is not clear which is meant.
    fitting.sort_by_key(|d| d.platform.as_ref().and_then(|platform| platform.variant.as_deref()));
    match fitting.as_slice() {
        [] => Err(ManifestError::Platforms(shown(candidates.iter().filter_map(|d| d.platform_text())))),
        [first, second, ..] if first.digest != second.digest && first.platform == second.platform => {
            Err(ManifestError::Several(shown(
                fitting.iter().map(|d| d.name().map_or_else(|| d.digest.to_string(), printable_name)),
            )))
        }
        [first, ..] => Ok(first),
    }
}

fn printable_name(name: &str) -> String {
    printable(name.as_bytes())
}

fn shown(items: impl Iterator<Item = String>) -> Vec<String> {
    items.take(SHOWN).map(|text| printable(text.as_bytes())).collect()
}

/// One layer to unpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlannedLayer {
    pub(crate) blob: Sha256,
    pub(crate) size: u64,
    pub(crate) diff_id: Sha256,
}

/// An image whose documents hold together.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) manifest_digest: Sha256,
    pub(crate) config_digest: Sha256,
    pub(crate) config: Arc<ImageConfiguration>,
    pub(crate) layers: Vec<PlannedLayer>,
}

impl Plan {
    pub(crate) fn new(
        manifest_digest: Sha256,
        manifest: &Manifest,
        config: &[u8],
        limits: &Limits,
    ) -> Result<Self, ManifestError> {
        if !matches!(manifest.config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
            return Err(ManifestError::Artifact(printable(manifest.config.media_type.as_bytes())));
        }
        let (config, diff_ids) = configuration(config, limits)?;
        // Without this an image could run on whatever lies below an empty overlay (as in CVE-2026-24054).
        if diff_ids.is_empty() || manifest.layers.is_empty() {
            return Err(ManifestError::NoLayers);
        }
        if diff_ids.len() != manifest.layers.len() {
            return Err(ManifestError::LayerCount {
                layers: manifest.layers.len(),
                diff_ids: diff_ids.len(),
            });
        }
        let mut size = 0_u64;
        for (index, layer) in manifest.layers.iter().enumerate() {
            if !LAYERS.contains(&layer.media_type.as_str()) {
                return Err(ManifestError::LayerType {
                    index,
                    media_type: printable(layer.media_type.as_bytes()),
                });
            }
            size = size.saturating_add(layer.size);
        }
        if size > limits.total_bytes {
            return Err(ManifestError::TooLarge { size, limit: limits.total_bytes });
        }
        let layers = manifest.layers.iter().zip(diff_ids);
        Ok(Self {
            manifest_digest,
            config_digest: manifest.config.digest,
            config: Arc::new(config),
            layers: layers
                .map(|(blob, diff_id)| PlannedLayer { blob: blob.digest, size: blob.size, diff_id })
                .collect(),
        })
    }
}

/// A configuration for this guest, and its diff ids.
pub(crate) fn configuration(
    bytes: &[u8],
    limits: &Limits,
) -> Result<(ImageConfiguration, Vec<Sha256>), ManifestError> {
    let config: ImageConfiguration = serde_json::from_slice(bytes)
        .map_err(|source| ManifestError::Malformed { what: "image configuration", source })?;
    let platform = platform_text(&config.os().to_string(), &config.architecture().to_string(), None);
    if platform != GUEST_PLATFORM {
        return Err(ManifestError::Platform(printable(platform.as_bytes())));
    }
    let count = config.rootfs().diff_ids().len();
    if count > limits.layers_per_image {
        return Err(ManifestError::TooManyLayers { count, limit: limits.layers_per_image });
    }
    let parse = |(index, text): (usize, &String)| {
        text.parse().map_err(|source| ManifestError::DiffId { index, source })
    };
    let diff_ids = config.rootfs().diff_ids().iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
    Ok((config, diff_ids))
}

#[cfg(test)]
mod tests;
