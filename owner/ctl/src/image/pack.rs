//! Makes an image disk of an image of this machine: finds its configuration and layers, and has them packed.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Component, Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use oci_spec::image::{Arch, ImageConfiguration, Os};
use postern_disk::{DiskManifest, LayerBlob, PackError, PackedDisk, Source};
use postern_model::{ImageDisk, Sha256};
use serde::Deserialize;

use super::{
    layout::{Layout, LayoutError},
    local::{self, sha256},
    push::open_disk,
    source::ImageSource,
};
use crate::{
    failure::{Failure, OrFail},
    home::{self, Home},
};

#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the archive cannot be read")]
    Archive(#[source] io::Error),
    #[error("it is neither an OCI image nor what docker save writes")]
    Unknown,
    #[error("it holds {0} images; an archive with one is needed")]
    Several(usize),
    #[error("its configuration is not valid")]
    Config(#[source] serde_json::Error),
    #[error("its configuration is not text")]
    NotText,
    #[error("it is for {0}; pods run linux/amd64")]
    Platform(String),
    #[error("it has {layers} layers and the configuration {diff_ids} diff ids")]
    LayerCount { layers: usize, diff_ids: usize },
    #[error("diff id {0:?} is not a digest")]
    DiffId(String),
    #[error("it is an image disk already")]
    Disk,
    #[error("it is no tar archive")]
    NotAnArchive,
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// Says to a packing that it is to end. It does so at its next read, and takes away what it has written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn over<R>(&self, inner: R) -> Stoppable<R> {
        Stoppable { inner, stop: self.clone() }
    }
}

struct Stoppable<R> {
    inner: R,
    stop: Stop,
}

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stop.0.load(Ordering::Relaxed) {
            // Not `Interrupted`, after which readers try again.
            true => Err(io::Error::other("interrupted")),
            false => self.inner.read(buffer),
        }
    }
}

/// Packs `source` into the file `to`, or among the disks that are kept for later, and says where it is.
pub(crate) fn pack(
    home: &Home,
    source: &ImageSource,
    reference: Option<&str>,
    to: Option<&Path>,
    stop: &Stop,
) -> Result<(PackedDisk, PathBuf), Failure> {
    source.check().or_fail(|| format!("cannot read image {source}"))?;
    if let Some(to) = to.filter(|to| to.exists() && !to.is_file()) {
        // It would be replaced, not written to.
        return Err(Failure::usage(format!("{} is there and no regular file", to.display())));
    }
    let kept = home.disks();
    home::make_private_dir(&kept)?;
    let what = || format!("cannot pack image {source}");
    let opened = Opened::open(source, &kept, stop).or_fail(what)?;
    let directory = match to {
        Some(to) => to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")),
        None => &kept,
    };
    let cannot_write = || format!("cannot write in {}", directory.display());
    fs::metadata(directory).or_fail(cannot_write)?;
    // Whole or not at all: under another name until it is done.
    let mut unfinished =
        tempfile::Builder::new().prefix(".packing-").tempfile_in(directory).or_fail(cannot_write)?;
    let packed = opened.pack(reference, &kept, unfinished.as_file_mut(), stop).or_fail(what)?;
    let path = to.map_or_else(|| kept.join(packed.disk.root_hash().to_hex()), Path::to_owned);
    let cannot = || format!("cannot write {}", path.display());
    // The host reads it, and nothing of it is secret to whoever has the image.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    unfinished.as_file().set_permissions(readable).or_fail(cannot)?;
    unfinished.as_file().sync_all().or_fail(cannot)?;
    unfinished.persist(&path).map_err(|error| error.error).or_fail(cannot)?;
    Ok((packed, path))
}

/// What `--image-disk` means: a file, or the root hash of a disk that was packed here, which then has to be that disk's.
pub(crate) fn image_disk(home: &Home, given: &Path) -> Result<(PathBuf, PackedDisk), Failure> {
    let named = given.to_str().filter(|_| !given.exists()).and_then(|text| Sha256::from_hex(text).ok());
    let path = named.map_or_else(|| given.to_owned(), |root_hash| home.disks().join(root_hash.to_hex()));
    let packed = open_disk(&path)?;
    if let Some(named) = named {
        has_root_hash(&packed.disk, named, &path)?;
    }
    Ok((path, packed))
}

fn has_root_hash(disk: &ImageDisk, named: Sha256, path: &Path) -> Result<(), Failure> {
    if disk.root_hash() == named {
        return Ok(());
    }
    Err(Failure::general(format!("cannot use image disk {named}"))
        .caused_by(format!("{} says that its root hash is {}", path.display(), disk.root_hash()))
        .hint("remove that file and pack the image again"))
}

/// An image whose documents were read.
struct Opened {
    reference: Option<String>,
    manifest_digest: Sha256,
    config: String,
    diff_ids: Vec<Sha256>,
    /// Files of the layers, with their digests where the image tells them.
    layers: Vec<(PathBuf, Option<Sha256>)>,
    /// What was unpacked for it.
    _unpacked: Option<tempfile::TempDir>,
}

impl Opened {
    fn open(source: &ImageSource, scratch: &Path, stop: &Stop) -> Result<Self, OpenError> {
        match source {
            ImageSource::OciDirectory { path, tag } => Self::layout(path, tag.as_deref()),
            ImageSource::Archive { path } => {
                let read = |source| OpenError::Read { path: path.clone(), source };
                Self::archive(stop.over(local::open(path).map_err(read)?), scratch)
            }
            ImageSource::Stdin => Self::archive(stop.over(io::stdin().lock()), scratch),
            ImageSource::Disk { .. } => Err(OpenError::Disk),
        }
    }

    fn layout(path: &Path, tag: Option<&str>) -> Result<Self, OpenError> {
        let layout = Layout::open(path, tag)?;
        let layers = layout.layers().map(|(path, digest)| (path, Some(digest))).collect();
        Self::new(layout.name.clone(), layout.manifest_digest, layout.config()?, layers)
    }

    fn archive(archive: impl Read, scratch: &Path) -> Result<Self, OpenError> {
        let unpacked = tempfile::tempdir_in(scratch).map_err(OpenError::Archive)?;
        unpack(archive, unpacked.path())?;
        let opened = match unpacked.path().join("index.json").is_file() {
            true => {
                let opened = Self::layout(unpacked.path(), None)?;
                // A layout without a name would be called after the directory, which is one of ours.
                let ours = unpacked.path().file_name().and_then(|name| name.to_str());
                let ours = ours.map(str::to_ascii_lowercase).unwrap_or_default();
                let reference = opened.reference.filter(|name| !name.starts_with(&format!("{ours}:")));
                Self { reference, ..opened }
            }
            false => Self::docker(unpacked.path())?,
        };
        Ok(Self { _unpacked: Some(unpacked), ..opened })
    }

    fn docker(directory: &Path) -> Result<Self, OpenError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct DockerImage {
            config: String,
            repo_tags: Option<Vec<String>>,
            layers: Vec<String>,
        }
        let file = |name: &str| {
            let path = directory.join(name);
            // Names are the archive's: only what was unpacked is read.
            let below = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
            if below && path.is_file() { Ok(path) } else { Err(OpenError::Unknown) }
        };
        let read = |path: PathBuf| fs::read(&path).map_err(|source| OpenError::Read { path, source });
        let images: Vec<DockerImage> =
            serde_json::from_slice(&read(file("manifest.json")?)?).map_err(|_| OpenError::Unknown)?;
        let [image] = images.as_slice() else { return Err(OpenError::Several(images.len())) };
        let config = read(file(&image.config)?)?;
        let layers = image.layers.iter().map(|layer| Ok((file(layer)?, None)));
        let reference = image.repo_tags.iter().flatten().next().cloned();
        Self::new(reference, sha256(&config), config, layers.collect::<Result<_, OpenError>>()?)
    }

    fn new(
        reference: Option<String>,
        manifest_digest: Sha256,
        config: Vec<u8>,
        layers: Vec<(PathBuf, Option<Sha256>)>,
    ) -> Result<Self, OpenError> {
        let parsed: ImageConfiguration = serde_json::from_slice(&config).map_err(OpenError::Config)?;
        if (parsed.os(), parsed.architecture()) != (&Os::Linux, &Arch::Amd64) {
            return Err(OpenError::Platform(format!("{}/{}", parsed.os(), parsed.architecture())));
        }
        let diff_ids = parsed.rootfs().diff_ids().iter();
        let diff_ids = diff_ids.map(|text| text.parse().map_err(|_| OpenError::DiffId(text.clone())));
        let diff_ids = diff_ids.collect::<Result<Vec<_>, _>>()?;
        if diff_ids.len() != layers.len() || layers.is_empty() {
            return Err(OpenError::LayerCount { layers: layers.len(), diff_ids: diff_ids.len() });
        }
        let config = String::from_utf8(config).map_err(|_| OpenError::NotText)?;
        Ok(Self { reference, manifest_digest, config, diff_ids, layers, _unpacked: None })
    }

    fn pack(
        self,
        reference: Option<&str>,
        scratch: &Path,
        out: &mut File,
        stop: &Stop,
    ) -> Result<PackedDisk, PackError> {
        let manifest = DiskManifest {
            reference: reference.map(str::to_owned).or(self.reference),
            image: self.manifest_digest,
            config: self.config,
        };
        let layers = self.layers.iter().zip(self.diff_ids).map(|((path, digest), diff_id)| {
            let file = File::open(path).map_err(PackError::Write)?;
            Ok(LayerBlob { content: Box::new(stop.over(BufReader::new(file))), digest: *digest, diff_id })
        });
        let layers = layers.collect::<Result<_, PackError>>()?;
        postern_disk::pack(Source { manifest, layers }, scratch, out)
    }
}

/// Writes the regular files of an image's archive below `directory`.
fn unpack(archive: impl Read, directory: &Path) -> Result<(), OpenError> {
    let mut archive = tar::Archive::new(archive);
    for (number, entry) in archive.entries().map_err(OpenError::Archive)?.enumerate() {
        let entry = entry.map_err(|error| match number {
            // The library repeats what it took for a header.
            0 if error.get_ref().is_some() && error.kind() == io::ErrorKind::Other => OpenError::NotAnArchive,
            _ => OpenError::Archive(error),
        })?;
        keep(entry, directory).map_err(OpenError::Archive)?;
    }
    Ok(())
}

/// Writes an entry below `directory`, if it is a regular file.
fn keep(mut entry: tar::Entry<'_, impl Read>, directory: &Path) -> io::Result<()> {
    let name = entry.path()?.components().filter(|part| *part != Component::CurDir).collect::<PathBuf>();
    let plain = name.components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || name.as_os_str().is_empty() || !entry.header().entry_type().is_file() {
        return Ok(());
    }
    let path = directory.join(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    io::copy(&mut entry, &mut File::create(path)?).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packing_that_is_stopped_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::below(dir.path());
        let archive = dir.path().join("image.tar");
        let mut tar = tar::Builder::new(File::create(&archive).unwrap());
        tar.append_data(&mut header(), "oci-layout", io::empty()).unwrap();
        tar.into_inner().unwrap();
        let source = ImageSource::Archive { path: archive };
        let to = dir.path().join("web.disk");
        let stop = Stop::default();
        stop.now();
        let failure = pack(&home, &source, None, Some(&to), &stop).unwrap_err().to_string();
        assert!(!to.exists() && failure.starts_with("cannot pack image"), "{failure}");
        assert_eq!(fs::read_dir(home.disks()).unwrap().count(), 0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the archive and the cache");
    }

    #[test]
    fn what_is_no_archive_and_what_is_no_place_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::below(dir.path());
        let text = dir.path().join("notes");
        fs::write(&text, "a text that is no archive ".repeat(100)).unwrap();
        let source = ImageSource::Archive { path: text };
        let pack = |to: &str| pack(&home, &source, None, Some(Path::new(to)), &Stop::default()).unwrap_err();
        let failure = pack(&dir.path().join("x").display().to_string()).to_string();
        assert!(failure.ends_with("it is no tar archive"), "{failure}");
        assert!(pack("/dev/null").to_string().contains("no regular file"));
    }

    fn header() -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header
    }

    #[test]
    fn a_kept_disk_has_the_root_hash_it_was_named_by() {
        let disk = ImageDisk::new(Sha256::new([1; 32]), 2).unwrap();
        let path = Path::new("kept");
        assert!(has_root_hash(&disk, Sha256::new([1; 32]), path).is_ok());
        assert!(has_root_hash(&disk, Sha256::new([2; 32]), path).is_err());
    }
}
