//! What `docker save` wrote before it wrote OCI layouts, sent as the layout that a pod makes of it, without the layers that
//! the pod has.
//!
//! Such an archive has no manifest, and the digest of its image follows from its files. So all of them are read here, those
//! that stay here as well: the image has the digest that it would have if everything were sent.

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Read, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use oci_spec::image::ImageConfiguration;
use postern_model::Sha256;
use ring::digest::{Context, SHA256};
use serde::Deserialize;
use serde_json::json;
use tar::{Builder, Header};

use super::local::{each_member, member, sha256};

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX_NAME: &str = "org.opencontainers.image.ref.name";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<PathBuf>,
}

/// An archive as a layout.
#[derive(Debug)]
pub(super) struct Converted {
    documents: Vec<(String, Vec<u8>)>,
    /// The layers that are sent, by their names in the archive.
    layers: BTreeMap<PathBuf, Blob>,
}

#[derive(Debug, Clone, Copy)]
struct Blob {
    digest: Sha256,
    size: u64,
}

impl Converted {
    /// `None` where the archive is no such one, cannot be a layout, or would be sent whole all the same.
    pub(super) fn new(path: &Path, held: &HashSet<Sha256>) -> Option<Self> {
        let images = member(path, "manifest.json").ok()??;
        let images: Vec<DockerImage> = serde_json::from_slice(&images).ok()?;
        let [image] = images.as_slice() else { return None };
        let tags = image.repo_tags.as_deref().unwrap_or_default();
        let config = member(path, &image.config).ok()??;
        let parsed: ImageConfiguration = serde_json::from_slice(&config).ok()?;
        let diff_ids: Vec<Sha256> =
            parsed.rootfs().diff_ids().iter().map(|text| text.parse().ok()).collect::<Option<_>>()?;
        // A layout gives one name.
        if tags.len() > 1
            || diff_ids.len() != image.layers.len()
            || !diff_ids.iter().any(|id| held.contains(id))
        {
            return None;
        }
        let blobs = blobs(path, &image.layers).ok()?;
        let all = image.layers.iter().map(|name| blobs.get(name).copied()).collect::<Option<Vec<_>>>()?;
        let layers = image.layers.iter().zip(&diff_ids).filter(|(_, diff_id)| !held.contains(diff_id));
        let layers = layers.filter_map(|(name, _)| Some((name.clone(), *blobs.get(name)?))).collect();
        Some(Self { documents: documents(&config, &all, tags.first()), layers })
    }

    /// What is sent, without headers.
    pub(super) fn size(&self) -> u64 {
        let documents = self.documents.iter().map(|(_, bytes)| bytes.len() as u64);
        documents.chain(self.layers.values().map(|blob| blob.size)).sum()
    }

    pub(super) fn pack(&self, path: &Path, tar: &mut Builder<impl Write>) -> io::Result<()> {
        for (name, bytes) in &self.documents {
            append(tar, name, bytes.len() as u64, &mut bytes.as_slice())?;
        }
        let mut sent = HashSet::new();
        each_member(path, |member| {
            if let Some(blob) = self.layers.get(&member.name).filter(|_| member.kind.is_file())
                && sent.insert(blob.digest)
            {
                append(tar, &blob_name(blob.digest), member.size, member.content)?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }
}

/// Digest and size of the files called `names`.
fn blobs(path: &Path, names: &[PathBuf]) -> io::Result<BTreeMap<PathBuf, Blob>> {
    let mut found = BTreeMap::new();
    let mut buffer = vec![0; 256 << 10];
    each_member(path, |member| {
        if member.kind.is_file() && names.contains(&member.name) {
            let mut hash = Context::new(&SHA256);
            loop {
                match member.content.read(&mut buffer)? {
                    0 => break,
                    length => hash.update(&buffer[..length]),
                }
            }
            let mut digest = [0; Sha256::LENGTH];
            digest.copy_from_slice(hash.finish().as_ref());
            found.insert(member.name, Blob { digest: Sha256::new(digest), size: member.size });
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// The manifest that a pod makes (`guest/rootfs`, `synthetic_manifest`), byte for byte, and what leads to it.
fn documents(config: &[u8], layers: &[Blob], tag: Option<&String>) -> Vec<(String, Vec<u8>)> {
    let described = |media: &str, Blob { digest, size }: Blob| json!({ "mediaType": media, "digest": digest.to_string(), "size": size });
    let of = |bytes: &[u8]| Blob { digest: sha256(bytes), size: bytes.len() as u64 };
    let layers: Vec<_> = layers.iter().map(|layer| described(LAYER, *layer)).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described(CONFIG, of(config)),
        "layers": layers,
    });
    let manifest = manifest.to_string().into_bytes();
    let mut entry = described(MANIFEST, of(&manifest));
    if let Some(tag) = tag {
        entry["annotations"] = json!({ INDEX_NAME: tag });
    }
    let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string().into_bytes();
    vec![
        ("oci-layout".into(), LAYOUT.to_vec()),
        ("index.json".into(), index),
        (blob_name(of(&manifest).digest), manifest),
        (blob_name(of(config).digest), config.to_vec()),
    ]
}

fn blob_name(digest: Sha256) -> String {
    format!("blobs/sha256/{}", digest.to_hex())
}

fn append(tar: &mut Builder<impl Write>, name: &str, size: u64, content: &mut dyn Read) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(size);
    tar.append_data(&mut header, name, content.take(size))
}
