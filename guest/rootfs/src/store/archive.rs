//! What a spooled archive holds: an OCI image layout, or what `docker save` wrote before it wrote one.

use std::io;

use postern_model::{ImageReference, Sha256};
use serde::Deserialize;
use serde_json::json;

use super::spool::{Spool, SpooledFile};
use crate::{
    Limits,
    layer::Expected,
    manifest::{
        Descriptor, Document, Manifest, ManifestError, OCI_CONFIG, OCI_MANIFEST, Plan, PlannedLayer, choose,
        configuration,
    },
    stream::sha256,
};

/// Indexes within indexes that are followed.
const MAX_NESTING: usize = 4;
const SHOWN: usize = 20;

/// Why an archive holds no image we take.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error(
        "it has neither index.json nor manifest.json, so it is neither an OCI image layout nor what docker save writes"
    )]
    NoImage,
    #[error("it lacks the file {0:?}, which the image needs")]
    Missing(String),
    #[error("it lacks layer {blob}, and this pod has no layer with the diff id {diff_id}")]
    LeftOut { blob: Sha256, diff_id: Sha256 },
    #[error("its file {name:?} has {found} bytes; the manifest says {expected}")]
    Size { name: String, expected: u64, found: u64 },
    #[error("its file {name:?} has {size} bytes; at most {limit} are allowed for a document")]
    DocumentTooLarge { name: String, size: u64, limit: u64 },
    #[error("its file {name:?} is not valid")]
    Malformed { name: String, source: serde_json::Error },
    #[error("its file {name:?} has the digest {found}, not the one it is named for")]
    Digest { name: String, found: Sha256 },
    #[error("its file {name:?} cannot be read back")]
    Read { name: String, source: io::Error },
    #[error("it holds {count} images; name one of: {names}")]
    Several { count: usize, names: String },
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// An image of an archive, with where each of its layers is. Blobs of layers that the store has may have been left out.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) plan: Plan,
    pub(crate) sources: Vec<(Option<SpooledFile>, Expected)>,
    pub(crate) names: Vec<ImageReference>,
}

/// Finds the image, the one called `wanted` if there are several.
pub(crate) fn find(
    spool: &Spool,
    wanted: Option<&ImageReference>,
    limits: &Limits,
) -> Result<Found, ArchiveError> {
    let archive = Archive { spool, limits, wanted: wanted.map(ToString::to_string) };
    if spool.file("index.json").is_some() {
        return archive.oci();
    }
    if spool.file("manifest.json").is_some() {
        return archive.docker();
    }
    Err(ArchiveError::NoImage)
}

struct Archive<'a> {
    spool: &'a Spool,
    limits: &'a Limits,
    wanted: Option<String>,
}

impl Archive<'_> {
    fn oci(&self) -> Result<Found, ArchiveError> {
        let (_, bytes) = self.document("index.json")?;
        let mut document = Document::parse(&bytes)?;
        let mut digest = sha256(&bytes);
        let mut names = Vec::new();
        for _ in 0..=MAX_NESTING {
            match document {
                Document::Manifest(manifest) => return self.oci_image(digest, &manifest, names),
                Document::Index(entries) => {
                    let entry = choose(&entries, self.wanted.as_deref())?;
                    names.extend(entry.name().and_then(|name| name.parse().ok()));
                    let bytes = self.blob_document(entry)?;
                    (document, digest) = (Document::parse(&bytes)?, entry.digest);
                }
            }
        }
        Err(ManifestError::Nesting.into())
    }

    fn oci_image(
        &self,
        digest: Sha256,
        manifest: &Manifest,
        names: Vec<ImageReference>,
    ) -> Result<Found, ArchiveError> {
        let config = self.blob_document(&manifest.config)?;
        let plan = Plan::new(digest, manifest, &config, self.limits)?;
        let source = |layer: &PlannedLayer| {
            let file = self.spool.blob(&layer.blob);
            if let Some(SpooledFile { size, .. }) = file.filter(|file| file.size != layer.size) {
                let name = layer.blob.to_string();
                return Err(ArchiveError::Size { name, expected: layer.size, found: size });
            }
            Ok((file, Expected { blob: Some((layer.blob, layer.size)), diff_id: layer.diff_id }))
        };
        let sources = plan.layers.iter().map(source).collect::<Result<_, _>>()?;
        Ok(Found { plan, sources, names })
    }

    fn blob_document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ArchiveError> {
        let name = format!("blobs/sha256/{}", descriptor.digest.to_hex());
        let (file, bytes) = self.document(&name)?;
        match file.size == descriptor.size {
            true => Ok(bytes),
            false => Err(ArchiveError::Size { name, expected: descriptor.size, found: file.size }),
        }
    }

    fn document(&self, name: &str) -> Result<(SpooledFile, Vec<u8>), ArchiveError> {
        let file = self.spool.file(name).ok_or_else(|| ArchiveError::Missing(name.into()))?;
        let limit = self.limits.document_bytes;
        if file.size > limit {
            return Err(ArchiveError::DocumentTooLarge { name: name.into(), size: file.size, limit });
        }
        let bytes =
            self.spool.read(file).map_err(|source| ArchiveError::Read { name: name.into(), source })?;
        Ok((file, bytes))
    }

    fn docker(&self) -> Result<Found, ArchiveError> {
        let (_, bytes) = self.document("manifest.json")?;
        let images: Vec<DockerImage> = serde_json::from_slice(&bytes)
            .map_err(|source| ArchiveError::Malformed { name: "manifest.json".into(), source })?;
        let image = self.docker_choice(&images)?;
        let (file, config) = self.document(&image.config)?;
        let stem =
            image.config.rsplit('/').next().and_then(|name| name.split('.').next()).unwrap_or_default();
        if Sha256::from_hex(stem).is_ok_and(|named| named != file.digest) {
            return Err(ArchiveError::Digest { name: image.config.clone(), found: file.digest });
        }
        let (_, diff_ids) = configuration(&config, self.limits)?;
        let files = image
            .layers
            .iter()
            .map(|name| self.spool.file(name).ok_or_else(|| ArchiveError::Missing(name.clone())));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let manifest = synthetic_manifest(&file, &files);
        // Made a moment ago by this program.
        let Document::Manifest(parsed) = Document::parse(&manifest)? else {
            return Err(ManifestError::Ambiguous.into());
        };
        let plan = Plan::new(sha256(&manifest), &parsed, &config, self.limits)?;
        let expected = diff_ids.into_iter().map(|diff_id| Expected { blob: None, diff_id });
        let names = image.tags().filter_map(|tag| tag.parse().ok()).collect();
        Ok(Found { plan, sources: files.into_iter().map(Some).zip(expected).collect(), names })
    }

    fn docker_choice<'a>(&self, images: &'a [DockerImage]) -> Result<&'a DockerImage, ArchiveError> {
        let called = |tag: &String| {
            tag.parse::<ImageReference>().is_ok_and(|name| Some(name.to_string()) == self.wanted)
        };
        match images {
            [] => Err(ArchiveError::NoImage),
            [only] => Ok(only),
            several => several.iter().find(|image| image.tags().any(called)).ok_or_else(|| {
                let names: Vec<_> =
                    several.iter().flat_map(DockerImage::tags).take(SHOWN).map(String::as_str).collect();
                ArchiveError::Several { count: several.len(), names: names.join(", ") }
            }),
        }
    }
}

/// One entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl DockerImage {
    fn tags(&self) -> impl Iterator<Item = &String> {
        self.repo_tags.iter().flatten()
    }
}

/// Old archives hold no manifest, and an image needs one to have a digest. This one follows from their content alone,
/// so the same archive gives the same digest everywhere.
fn synthetic_manifest(config: &SpooledFile, layers: &[SpooledFile]) -> Vec<u8> {
    let layer = |layer: &SpooledFile| {
        json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": layer.digest,
            "size": layer.size,
        })
    };
    let layers: Vec<_> = layers.iter().map(layer).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": OCI_CONFIG, "digest": config.digest, "size": config.size },
        "layers": layers,
    });
    manifest.to_string().into_bytes()
}
