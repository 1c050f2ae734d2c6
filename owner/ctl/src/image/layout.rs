//! An OCI layout directory as a tar stream with one image in it: what a layout holds beyond that image stays here.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os};
use postern_model::Sha256;

/// Largest index or manifest that is read.
const MAX_DOCUMENT: u64 = 4 << 20;
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

#[derive(Debug, thiserror::Error)]
pub(crate) enum LayoutError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not valid", path.display())]
    Document { path: PathBuf, source: serde_json::Error },
    #[error("{} holds {found} images: {names}; name one as oci:{}:TAG", path.display(), path.display())]
    Several { path: PathBuf, found: usize, names: String },
    #[error("{} holds no image {tag:?}; it holds: {names}", path.display())]
    NoSuchTag { path: PathBuf, tag: String, names: String },
    #[error("{} holds no image", path.display())]
    NoImage { path: PathBuf },
    #[error("{} holds no image for linux/amd64", path.display())]
    Platform { path: PathBuf },
    #[error("digest {0:?} is not supported; images name their content by sha256")]
    Digest(String),
    #[error("{} does not have the digest that its name says", path.display())]
    Mismatch { path: PathBuf },
    #[error("the stream was closed")]
    Stream(#[source] io::Error),
}

/// One image of a layout, ready to be streamed.
#[derive(Debug)]
pub(crate) struct Layout {
    path: PathBuf,
    /// Digest of the image manifest.
    pub(crate) manifest_digest: Sha256,
    pub(crate) config_digest: Sha256,
    /// The name that the layout gives to the image.
    pub(crate) name: Option<String>,
    manifest: Descriptor,
    /// The manifest, the configuration and the layers, each once.
    blobs: Vec<Blob>,
    /// From the lowest up.
    layers: Vec<Sha256>,
    /// Blobs that stay here: the pod has those layers.
    left_out: HashSet<Sha256>,
}

#[derive(Debug)]
struct Blob {
    digest: Sha256,
    size: u64,
}

impl Layout {
    /// Reads the layout's documents and checks their digests; layers are checked by the pod as they arrive.
    pub(crate) fn open(path: &Path, tag: Option<&str>) -> Result<Self, LayoutError> {
        let index_path = path.join("index.json");
        let index: ImageIndex = document(&index_path, &read(&index_path, MAX_DOCUMENT)?)?;
        let chosen = choose(path, &index, tag)?;
        let name = name(path, chosen);
        let manifest = resolve_platform(path, chosen.clone())?;
        let bytes = read_blob(path, &manifest)?;
        let manifest_path = blob_path(path, digest(&manifest)?);
        let parsed: ImageManifest = document(&manifest_path, &bytes)?;
        let mut blobs = vec![blob(&manifest)?, blob(parsed.config())?];
        let mut layers = Vec::new();
        for layer in parsed.layers() {
            let layer = blob(layer)?;
            layers.push(layer.digest);
            // The same layer twice is one blob.
            if blobs.iter().all(|known| known.digest != layer.digest) {
                blobs.push(layer);
            }
        }
        Ok(Self {
            path: path.to_owned(),
            manifest_digest: digest(&manifest)?,
            config_digest: digest(parsed.config())?,
            name,
            manifest,
            blobs,
            layers,
            left_out: HashSet::new(),
        })
    }

    /// Leaves out the layers whose diff ids are among `held`. Their blobs need not even be there.
    pub(crate) fn leave_out(&mut self, held: &HashSet<Sha256>) -> Result<(), LayoutError> {
        if held.is_empty() {
            return Ok(());
        }
        let config = self.config()?;
        let path = blob_path(&self.path, self.config_digest);
        let config: ImageConfiguration = document(&path, &config)?;
        let diff_ids = config.rootfs().diff_ids();
        // An image whose layers are not told one by one is the pod's to refuse.
        if diff_ids.len() == self.layers.len() {
            let layers = self.layers.iter().zip(diff_ids);
            let held = layers.filter(|(_, text)| text.parse().is_ok_and(|diff_id| held.contains(&diff_id)));
            self.left_out = held.map(|(blob, _)| *blob).collect();
        }
        Ok(())
    }

    pub(crate) fn left_out(&self) -> &HashSet<Sha256> {
        &self.left_out
    }

    /// The image configuration, held to its digest.
    pub(crate) fn config(&self) -> Result<Vec<u8>, LayoutError> {
        read_digest(&self.path, self.config_digest)
    }

    /// File and digest of each layer, from the lowest up.
    pub(crate) fn layers(&self) -> impl Iterator<Item = (PathBuf, Sha256)> {
        self.layers.iter().map(|&digest| (blob_path(&self.path, digest), digest))
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        self.sent().map(|blob| blob.size).sum()
    }

    fn sent(&self) -> impl Iterator<Item = &Blob> {
        self.blobs.iter().filter(|blob| !self.left_out.contains(&blob.digest))
    }

    /// Writes the layout as tar: documents first, so that the pod knows what to expect before the layers come.
    pub(crate) fn pack(&self, out: impl Write) -> Result<(), LayoutError> {
        let mut tar = tar::Builder::new(out);
        let mut manifest = self.manifest.clone();
        let annotations = self.name.clone().map(|name| HashMap::from([(REF_NAME.to_owned(), name)]));
        manifest.set_annotations(annotations);
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string();
        append(
            &mut tar,
            "oci-layout",
            br#"{"imageLayoutVersion":"1.0.0"}"#.len() as u64,
            &br#"{"imageLayoutVersion":"1.0.0"}"#[..],
        )?;
        append(&mut tar, "index.json", index.len() as u64, index.as_bytes())?;
        for blob in self.sent() {
            let path = blob_path(&self.path, blob.digest);
            let read = |source| LayoutError::Read { path: path.clone(), source };
            let file = File::open(&path).map_err(read)?;
            let size = file.metadata().map_err(read)?.len();
            if size != blob.size {
                return Err(LayoutError::Mismatch { path });
            }
            let name = format!("blobs/sha256/{}", blob.digest.to_hex());
            append(&mut tar, &name, size, file.take(size))?;
        }
        tar.into_inner().and_then(|mut out| out.flush()).map_err(LayoutError::Stream)
    }
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    size: u64,
    content: impl Read,
) -> Result<(), LayoutError> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(size);
    tar.append_data(&mut header, name, content).map_err(LayoutError::Stream)
}

fn annotation<'a>(descriptor: &'a Descriptor, key: &str) -> Option<&'a str> {
    descriptor.annotations().as_ref()?.get(key).map(String::as_str)
}

fn choose<'a>(path: &Path, index: &'a ImageIndex, tag: Option<&str>) -> Result<&'a Descriptor, LayoutError> {
    let names = || {
        let names = index.manifests().iter().filter_map(|manifest| annotation(manifest, REF_NAME));
        names.collect::<Vec<_>>().join(", ")
    };
    let path = || path.to_owned();
    match (tag, index.manifests().as_slice()) {
        (_, []) => Err(LayoutError::NoImage { path: path() }),
        (Some(tag), all) => {
            let named = |manifest: &&Descriptor| {
                let known = annotation(manifest, REF_NAME).unwrap_or_default();
                known == tag || known.rsplit_once(':').is_some_and(|(_, last)| last == tag)
            };
            all.iter().find(named).ok_or_else(|| LayoutError::NoSuchTag {
                path: path(),
                tag: tag.to_owned(),
                names: names(),
            })
        }
        (None, [one]) => Ok(one),
        // An index per platform, without names, is one image.
        (None, all) if all.iter().all(|manifest| annotation(manifest, REF_NAME).is_none()) => {
            all.iter().find(|manifest| fits(manifest)).ok_or_else(|| LayoutError::Platform { path: path() })
        }
        (None, all) => Err(LayoutError::Several { path: path(), found: all.len(), names: names() }),
    }
}

/// A full name where the layout gives one; a bare tag gets the directory's name, as there is no other.
fn name(path: &Path, descriptor: &Descriptor) -> Option<String> {
    let full = annotation(descriptor, CONTAINERD_NAME).or_else(|| annotation(descriptor, REF_NAME));
    let directory = path.canonicalize().ok()?.file_name()?.to_str()?.to_ascii_lowercase();
    let name = match full {
        Some(full) if full.contains(['/', ':']) => full.to_owned(),
        Some(tag) => format!("{directory}:{tag}"),
        None => format!("{directory}:latest"),
    };
    name.parse::<postern_model::ImageReference>().ok().map(|_| name)
}

fn fits(descriptor: &Descriptor) -> bool {
    descriptor
        .platform()
        .as_ref()
        .is_none_or(|platform| platform.os() == &Os::Linux && platform.architecture() == &Arch::Amd64)
}

/// Follows image indexes to the manifest for this kind of guest.
fn resolve_platform(path: &Path, mut descriptor: Descriptor) -> Result<Descriptor, LayoutError> {
    // An index in an index is legal; a longer chain is not worth reading.
    for _ in 0..4 {
        let is_index = match descriptor.media_type() {
            MediaType::ImageIndex => true,
            MediaType::Other(other) => other.contains("manifest.list"),
            _ => false,
        };
        if !is_index {
            return Ok(descriptor);
        }
        let bytes = read_blob(path, &descriptor)?;
        let index: ImageIndex = document(&blob_path(path, digest(&descriptor)?), &bytes)?;
        descriptor = index
            .manifests()
            .iter()
            .find(|manifest| fits(manifest))
            .cloned()
            .ok_or_else(|| LayoutError::Platform { path: path.to_owned() })?;
    }
    Err(LayoutError::Platform { path: path.to_owned() })
}

fn digest(descriptor: &Descriptor) -> Result<Sha256, LayoutError> {
    let text = descriptor.digest().to_string();
    text.parse().map_err(|_| LayoutError::Digest(text))
}

fn blob(descriptor: &Descriptor) -> Result<Blob, LayoutError> {
    Ok(Blob { digest: digest(descriptor)?, size: descriptor.size() })
}

fn blob_path(path: &Path, digest: Sha256) -> PathBuf {
    path.join("blobs/sha256").join(digest.to_hex())
}

fn read_blob(path: &Path, descriptor: &Descriptor) -> Result<Vec<u8>, LayoutError> {
    read_digest(path, digest(descriptor)?)
}

fn read_digest(path: &Path, expected: Sha256) -> Result<Vec<u8>, LayoutError> {
    let path = blob_path(path, expected);
    let bytes = read(&path, MAX_DOCUMENT)?;
    match super::local::sha256(&bytes) == expected {
        true => Ok(bytes),
        false => Err(LayoutError::Mismatch { path }),
    }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, LayoutError> {
    let failed = |source| LayoutError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > limit {
        true => Err(failed(io::Error::other("it is too large for what it should be"))),
        false => Ok(bytes),
    }
}

fn document<T: serde::de::DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, LayoutError> {
    serde_json::from_slice(bytes).map_err(|source| LayoutError::Document { path: path.to_owned(), source })
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use serde_json::{Value, json};

    use super::*;

    fn put(dir: &Path, media: &str, content: &[u8]) -> Value {
        let digest = super::super::local::sha256(content);
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(digest.to_hex()), content).unwrap();
        json!({"mediaType": media, "digest": digest.to_string(), "size": content.len()})
    }

    /// The layer appears twice in the image.
    fn config(name: &str, arch: &str) -> String {
        let diff_id = super::super::local::sha256(format!("unpacked {name} {arch}").as_bytes());
        let rootfs = json!({"type": "layers", "diff_ids": [diff_id, diff_id]});
        json!({"architecture": arch, "os": "linux", "rootfs": rootfs}).to_string()
    }

    /// A layout with images of these names, each for amd64 and for arm64.
    pub(crate) fn layout(dir: &Path, names: &[&str]) {
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let mut manifests = Vec::new();
        for name in names {
            let mut platforms = Vec::new();
            for arch in ["arm64", "amd64"] {
                let config =
                    put(dir, "application/vnd.oci.image.config.v1+json", config(name, arch).as_bytes());
                let layer = put(
                    dir,
                    "application/vnd.oci.image.layer.v1.tar",
                    format!("layer {name} {arch}").as_bytes(),
                );
                let manifest =
                    json!({"schemaVersion": 2, "config": config, "layers": [layer.clone(), layer]})
                        .to_string();
                let mut entry = put(dir, "application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
                entry["platform"] = json!({"os": "linux", "architecture": arch});
                platforms.push(entry);
            }
            let index = json!({"schemaVersion": 2, "manifests": platforms}).to_string();
            let mut entry = put(dir, "application/vnd.oci.image.index.v1+json", index.as_bytes());
            entry["annotations"] = json!({REF_NAME: name});
            manifests.push(entry);
        }
        fs::write(dir.join("index.json"), json!({"schemaVersion": 2, "manifests": manifests}).to_string())
            .unwrap();
    }

    #[test]
    fn one_image_of_the_right_platform_is_packed() {
        let dir = tempfile::tempdir().unwrap();
        layout(dir.path(), &["v1", "example.org/web:v2"]);
        let image = Layout::open(dir.path(), Some("v2")).unwrap();
        assert_eq!(image.name.as_deref(), Some("example.org/web:v2"));
        let mut out = Vec::new();
        image.pack(&mut out).unwrap();
        let mut archive = tar::Archive::new(&out[..]);
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names.len(), 5, "layout, index, manifest, config, one layer: {names:?}");
        assert!(String::from_utf8_lossy(&out).contains("layer example.org/web:v2 amd64"));
        assert!(!String::from_utf8_lossy(&out).contains("arm64"), "other platforms stay here");
    }

    #[test]
    fn layers_that_the_pod_has_stay_here() {
        let dir = tempfile::tempdir().unwrap();
        layout(dir.path(), &["v1"]);
        let mut image = Layout::open(dir.path(), None).unwrap();
        let (blob, total) = (image.layers[0], image.total_bytes());
        image.leave_out(&HashSet::from([blob])).unwrap();
        assert_eq!(image.total_bytes(), total, "a blob's digest is no diff id");
        let held = super::super::local::sha256(b"unpacked v1 amd64");
        image.leave_out(&HashSet::from([held])).unwrap();
        assert_eq!(image.left_out(), &HashSet::from([blob]));
        assert_eq!(image.total_bytes(), total - "layer v1 amd64".len() as u64);
        fs::remove_file(blob_path(dir.path(), blob)).unwrap();
        let mut out = Vec::new();
        image.pack(&mut out).unwrap();
        assert_eq!(tar::Archive::new(&out[..]).entries().unwrap().count(), 4);
    }

    #[test]
    fn a_choice_that_is_not_clear_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        layout(dir.path(), &["v1", "v2"]);
        let open = |tag| Layout::open(dir.path(), tag).unwrap_err();
        assert!(matches!(open(None), LayoutError::Several { found: 2, .. }));
        assert!(matches!(open(Some("v3")), LayoutError::NoSuchTag { .. }));
        layout(dir.path(), &[]);
        assert!(matches!(open(None), LayoutError::NoImage { .. }));
    }

    #[test]
    fn a_changed_document_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        layout(dir.path(), &["v1"]);
        let image = Layout::open(dir.path(), None).unwrap();
        let path = blob_path(dir.path(), image.manifest_digest);
        fs::write(&path, fs::read_to_string(&path).unwrap().replace("schemaVersion", "schemaversion"))
            .unwrap();
        assert!(matches!(Layout::open(dir.path(), None), Err(LayoutError::Mismatch { .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(Layout::open(dir.path(), None), Err(LayoutError::Read { .. })));
    }
}
