//! A container image on this machine: an OCI layout directory, or a tar archive of one or of `docker save`.
//!
//! Documents and layers are named by digests, and nothing is believed that does not have its digest. Nothing is
//! written: a layer is a stream.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read, Seek},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use postern_model::Sha256;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, de::DeserializeOwned};

use super::findings::printable;

/// Largest index, manifest or configuration that is read.
const MAX_DOCUMENT: u64 = 4 << 20;
/// Most files that an archive may hold.
const MAX_ENTRIES: usize = 10_000;
/// Most bytes that a compressed archive may unpack to.
const MAX_ARCHIVE: u64 = 16 << 30;
const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[derive(Debug, thiserror::Error)]
pub enum ImageReadError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is no image: neither a directory nor a tar archive, plain or gzip", .0.display())]
    NotAnArchive(PathBuf),
    #[error("{} holds neither index.json nor manifest.json: it is no OCI layout and no docker archive", .0.display())]
    NotAnImage(PathBuf),
    #[error("the image's {name} is not valid")]
    Document { name: String, source: serde_json::Error },
    #[error("the image has no {0}")]
    Missing(String),
    #[error("{0} has more than {MAX_DOCUMENT} bytes")]
    TooLarge(String),
    #[error("{0} does not have the digest that its name says")]
    Mismatch(String),
    #[error("digest {0:?} is not supported; images name their content by sha256")]
    Digest(String),
    #[error("there are {found} images in it: {names}; name one with --tag")]
    Several { found: usize, names: String },
    #[error("it holds no image {tag:?}; it holds: {names}")]
    NoSuchTag { tag: String, names: String },
    #[error("it holds no image for linux/amd64")]
    Platform,
    #[error("the archive has more than {MAX_ENTRIES} files")]
    TooManyEntries,
}

/// What the image says of how it is run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub env: Option<Vec<String>>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
}

impl RunConfig {
    /// Entrypoint and command together, as a runtime would start them.
    pub fn command(&self) -> Vec<String> {
        let parts = [&self.entrypoint, &self.cmd];
        parts.into_iter().flatten().flatten().cloned().collect()
    }

    pub fn env(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env.iter().flatten().filter_map(|entry| entry.split_once('='))
    }
}

/// An image whose documents were read.
#[derive(Debug)]
pub struct ContainerImage {
    pub config: RunConfig,
    /// The lowest first.
    layers: Vec<Section>,
}

#[derive(Debug, Deserialize)]
struct ConfigDocument {
    #[serde(default)]
    config: Option<RunConfig>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

impl Descriptor {
    fn fits(&self) -> bool {
        self.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == "amd64")
    }

    fn name(&self) -> Option<&str> {
        self.annotations.as_ref()?.get(REF_NAME).map(String::as_str)
    }
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl ContainerImage {
    /// Reads the image at `path`; `tag` chooses where there are several.
    pub fn open(path: &Path, tag: Option<&str>) -> Result<Self, ImageReadError> {
        let files = Files::open(path)?;
        if files.has("index.json") {
            return Self::from_layout(&files, tag);
        }
        if files.has("manifest.json") {
            return Self::from_docker(&files, tag);
        }
        Err(ImageReadError::NotAnImage(path.into()))
    }

    fn from_layout(files: &Files, tag: Option<&str>) -> Result<Self, ImageReadError> {
        let index: Index = document("index.json", &files.read("index.json")?)?;
        let mut chosen = choose(&index.manifests, tag)?.clone();
        // An index in an index is legal; a longer chain is not worth reading.
        for _ in 0..4 {
            if !chosen.media_type.contains("index") && !chosen.media_type.contains("manifest.list") {
                break;
            }
            let inner: Index = files.document(&chosen.digest)?;
            chosen = inner.manifests.into_iter().find(Descriptor::fits).ok_or(ImageReadError::Platform)?;
        }
        let manifest: Manifest = files.document(&chosen.digest)?;
        let config: ConfigDocument = files.document(&manifest.config.digest)?;
        let layer = |layer: &Descriptor| files.blob(&layer.digest);
        let layers = manifest.layers.iter().map(layer).collect::<Result<_, _>>()?;
        Ok(Self { config: config.config.unwrap_or_default(), layers })
    }

    fn from_docker(files: &Files, tag: Option<&str>) -> Result<Self, ImageReadError> {
        let images: Vec<DockerManifest> = document("manifest.json", &files.read("manifest.json")?)?;
        let tags = |image: &DockerManifest| image.repo_tags.clone().unwrap_or_default();
        let names = || images.iter().flat_map(tags).collect::<Vec<_>>().join(", ");
        let image = match (tag, images.as_slice()) {
            (None, [one]) => one,
            (None, all) => return Err(ImageReadError::Several { found: all.len(), names: names() }),
            (Some(tag), all) => {
                all.iter()
                    .find(|image| tags(image).iter().any(|known| is_tag(known, tag)))
                    .ok_or_else(|| ImageReadError::NoSuchTag { tag: tag.into(), names: names() })?
            }
        };
        let config: ConfigDocument = document(&image.config, &files.read(&image.config)?)?;
        // A docker archive names its layers by whatever it likes; only their content is read.
        let layer = |name: &String| files.section(name, None);
        let layers = image.layers.iter().map(layer).collect::<Result<_, _>>()?;
        Ok(Self { config: config.config.unwrap_or_default(), layers })
    }

    /// Each layer as a tar stream, unpacked. Read to the end, it has the digest that names it, or fails.
    pub fn layers(&self) -> impl Iterator<Item = io::Result<Layer>> + '_ {
        self.layers.iter().map(|section| Layer::new(section.clone()))
    }
}

fn choose<'a>(all: &'a [Descriptor], tag: Option<&str>) -> Result<&'a Descriptor, ImageReadError> {
    let names = || all.iter().filter_map(Descriptor::name).collect::<Vec<_>>().join(", ");
    match (tag, all) {
        (_, []) => Err(ImageReadError::Missing("manifest".into())),
        (Some(tag), all) => all
            .iter()
            .find(|one| one.name().is_some_and(|name| is_tag(name, tag)))
            .ok_or_else(|| ImageReadError::NoSuchTag { tag: tag.into(), names: names() }),
        (None, [one]) => Ok(one),
        (None, all) if all.iter().all(|one| one.name().is_none()) => {
            all.iter().find(|one| one.fits()).ok_or(ImageReadError::Platform)
        }
        (None, all) => Err(ImageReadError::Several { found: all.len(), names: names() }),
    }
}

fn is_tag(name: &str, tag: &str) -> bool {
    name == tag || name.rsplit_once(':').is_some_and(|(_, last)| last == tag)
}

fn document<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, ImageReadError> {
    serde_json::from_slice(bytes).map_err(|source| ImageReadError::Document { name: name.into(), source })
}

/// The files of a layout, in a directory or an archive.
#[derive(Debug)]
enum Files {
    Directory(PathBuf),
    Archive { file: Arc<File>, entries: BTreeMap<String, (u64, u64)> },
}

impl Files {
    fn open(path: &Path) -> Result<Self, ImageReadError> {
        let failed = |source| ImageReadError::Read { path: path.into(), source };
        if path.is_dir() {
            return Ok(Self::Directory(path.into()));
        }
        let mut file = File::open(path).map_err(failed)?;
        let mut magic = [0; 2];
        let read = file.read_at(&mut magic, 0).map_err(failed)?;
        if magic[..read] == [0x1f, 0x8b] {
            let mut plain = tempfile::tempfile().map_err(failed)?;
            let mut unpacked = flate2::read::MultiGzDecoder::new(BufReader::new(file)).take(MAX_ARCHIVE + 1);
            if io::copy(&mut unpacked, &mut plain).map_err(failed)? > MAX_ARCHIVE {
                return Err(failed(io::Error::other("it unpacks to more than 16 GiB")));
            }
            plain.rewind().map_err(failed)?;
            file = plain;
        }
        let file = Arc::new(file);
        let mut entries = BTreeMap::new();
        let mut archive = tar::Archive::new(&*file);
        for entry in archive.entries_with_seek().map_err(failed)? {
            let entry = match entry {
                Ok(entry) => entry,
                // The library repeats the bytes that it does not understand, and they are not for a terminal.
                Err(_) if entries.is_empty() => return Err(ImageReadError::NotAnArchive(path.into())),
                Err(error) => {
                    let said = printable(&error.to_string());
                    return Err(failed(io::Error::new(error.kind(), said)));
                }
            };
            if entry.header().entry_type().is_file() {
                let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
                entries.insert(name, (entry.raw_file_position(), entry.size()));
            }
            if entries.len() > MAX_ENTRIES {
                return Err(ImageReadError::TooManyEntries);
            }
        }
        Ok(Self::Archive { file, entries })
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Self::Directory(path) => path.join(name).is_file(),
            Self::Archive { entries, .. } => entries.contains_key(name),
        }
    }

    fn section(&self, name: &str, digest: Option<Sha256>) -> Result<Section, ImageReadError> {
        match self {
            Self::Directory(directory) => {
                // Names come from documents of the image: only plain ones below the layout are opened.
                let plain =
                    Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
                if !plain {
                    return Err(ImageReadError::Missing(name.into()));
                }
                let path = directory.join(name);
                let failed = |source| ImageReadError::Read { path: path.clone(), source };
                let file = File::open(&path).map_err(failed)?;
                let size = file.metadata().map_err(failed)?.len();
                Ok(Section { file: Arc::new(file), at: 0, left: size, digest })
            }
            Self::Archive { file, entries } => {
                let (at, size) = entries.get(name).ok_or_else(|| ImageReadError::Missing(name.into()))?;
                Ok(Section { file: file.clone(), at: *at, left: *size, digest })
            }
        }
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, ImageReadError> {
        let section = self.section(name, None)?;
        if section.left > MAX_DOCUMENT {
            return Err(ImageReadError::TooLarge(name.into()));
        }
        let mut bytes = Vec::new();
        let failed = |source| ImageReadError::Read { path: name.into(), source };
        section.take(MAX_DOCUMENT).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    fn blob(&self, digest: &str) -> Result<Section, ImageReadError> {
        let parsed: Sha256 = digest.parse().map_err(|_| ImageReadError::Digest(digest.into()))?;
        self.section(&format!("blobs/sha256/{}", parsed.to_hex()), Some(parsed))
    }

    fn document<T: DeserializeOwned>(&self, digest: &str) -> Result<T, ImageReadError> {
        let parsed: Sha256 = digest.parse().map_err(|_| ImageReadError::Digest(digest.into()))?;
        let bytes = self.read(&format!("blobs/sha256/{}", parsed.to_hex()))?;
        if crate::sha256(&bytes) != parsed {
            return Err(ImageReadError::Mismatch(digest.into()));
        }
        document(digest, &bytes)
    }
}

/// A part of a file, read without moving the file's own position.
#[derive(Debug, Clone)]
struct Section {
    file: Arc<File>,
    at: u64,
    left: u64,
    digest: Option<Sha256>,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// A layer's tar stream.
pub struct Layer(Box<dyn Read>);

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Layer")
    }
}

impl Layer {
    fn new(section: Section) -> io::Result<Self> {
        let mut magic = [0; 4];
        let read = section.file.read_at(&mut magic, section.at)?;
        let hashed =
            BufReader::with_capacity(1 << 16, Hashed { inner: section, hash: Context::new(&SHA256) });
        Ok(Self(match &magic[..read] {
            [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(hashed)),
            [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::with_buffer(hashed)?),
            _ => Box::new(hashed),
        }))
    }
}

impl Read for Layer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

struct Hashed {
    inner: Section,
    hash: Context,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        if let (0, Some(expected), false) = (read, self.inner.digest, buffer.is_empty()) {
            let found = self.hash.clone().finish();
            if found.as_ref() != expected.as_bytes() {
                return Err(io::Error::other(format!("a layer does not have the digest {expected}")));
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
pub(super) mod tests;
