//! What an image on this machine is, by digest: to compare with what a pod holds.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Read},
    ops::ControlFlow,
    path::{Component, Path, PathBuf},
};

use postern_disk::{DiskError, DiskManifest, PackedDisk};
use postern_model::Sha256;
use ring::digest::{SHA256, digest};
use serde::Deserialize;

use super::{
    layout::{Layout, LayoutError},
    source::ImageSource,
};

/// Largest document that is read from an archive.
const MAX_DOCUMENT: u64 = 4 << 20;

/// The names by which an image's content is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LocalImage {
    /// Of the image manifest; a docker archive has none.
    pub(crate) manifest: Option<Sha256>,
    /// Of the configuration: the image id.
    pub(crate) config: Sha256,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalError {
    #[error("standard input cannot be read twice; name a file")]
    Stdin,
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is neither an OCI archive nor a docker archive", path.display())]
    Unknown { path: PathBuf },
    #[error("{} holds {found} images; an archive with one is needed", path.display())]
    Several { path: PathBuf, found: usize },
    #[error("{} cannot be used as an image disk", path.display())]
    Disk { path: PathBuf, source: DiskError },
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

pub(crate) fn sha256(bytes: &[u8]) -> Sha256 {
    let mut out = [0; Sha256::LENGTH];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    Sha256::new(out)
}

impl LocalImage {
    pub(crate) fn of(source: &ImageSource) -> Result<Self, LocalError> {
        match source {
            ImageSource::Stdin => Err(LocalError::Stdin),
            ImageSource::OciDirectory { path, tag } => {
                let layout = Layout::open(path, tag.as_deref())?;
                Ok(Self { manifest: Some(layout.manifest_digest), config: layout.config_digest })
            }
            ImageSource::Archive { path } => archive(path),
            ImageSource::Disk { path } => {
                let disk = PackedDisk::open(path)
                    .map_err(|source| LocalError::Disk { path: path.clone(), source })?;
                let DiskManifest { image, config, .. } = disk.manifest;
                Ok(Self { manifest: Some(image), config: sha256(config.as_bytes()) })
            }
        }
    }
}

#[derive(Deserialize)]
struct DockerImage {
    #[serde(rename = "Config")]
    config: String,
}

fn archive(path: &Path) -> Result<LocalImage, LocalError> {
    if member(path, "oci-layout")?.is_some() {
        // The documents of an archive are few and small: read them as the layout they are.
        let dir = tempfile::tempdir().map_err(|source| LocalError::Read { path: path.to_owned(), source })?;
        documents(path, dir.path()).map_err(|source| LocalError::Read { path: path.to_owned(), source })?;
        let layout = Layout::open(dir.path(), None)?;
        return Ok(LocalImage { manifest: Some(layout.manifest_digest), config: layout.config_digest });
    }
    let unknown = || LocalError::Unknown { path: path.to_owned() };
    let manifest = member(path, "manifest.json")?.ok_or_else(unknown)?;
    let images: Vec<DockerImage> = serde_json::from_slice(&manifest).map_err(|_| unknown())?;
    let [image] = images.as_slice() else {
        return Err(LocalError::Several { path: path.to_owned(), found: images.len() });
    };
    let config = member(path, &image.config)?.ok_or_else(unknown)?;
    Ok(LocalImage { manifest: None, config: sha256(&config) })
}

/// The archive's bytes, without gzip if there is any.
pub(super) fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = io::BufReader::with_capacity(256 << 10, File::open(path)?);
    let gzip = is_gzip(&mut file)?;
    Ok(if gzip { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) })
}

fn is_gzip(file: &mut impl io::BufRead) -> io::Result<bool> {
    Ok(file.fill_buf()?.starts_with(&[0x1f, 0x8b]))
}

/// An entry of an archive.
pub(super) struct Member<'a> {
    /// Without `.` in it.
    pub(super) name: PathBuf,
    pub(super) kind: tar::EntryType,
    pub(super) link: Option<PathBuf>,
    pub(super) size: u64,
    pub(super) content: &'a mut dyn Read,
}

/// Shows every entry of the archive to `visit`. What it does not read of a file is skipped, not read, where that is possible.
pub(super) fn each_member(
    path: &Path,
    mut visit: impl FnMut(Member<'_>) -> io::Result<ControlFlow<()>>,
) -> io::Result<()> {
    fn member<R: Read>(
        entry: io::Result<tar::Entry<'_, R>>,
        visit: &mut impl FnMut(Member<'_>) -> io::Result<ControlFlow<()>>,
    ) -> io::Result<ControlFlow<()>> {
        let mut entry = entry?;
        let name = entry.path()?.components().filter(|part| *part != Component::CurDir).collect();
        let kind = entry.header().entry_type();
        let link = entry.link_name()?.map(Cow::into_owned);
        visit(Member { name, kind, link, size: entry.size(), content: &mut entry })
    }
    let mut file = io::BufReader::with_capacity(256 << 10, File::open(path)?);
    if is_gzip(&mut file)? {
        let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(file));
        archive.entries()?.try_for_each(|entry| stop(member(entry, &mut visit)))
    } else {
        let mut archive = tar::Archive::new(file);
        archive.entries_with_seek()?.try_for_each(|entry| stop(member(entry, &mut visit)))
    }
    .map_or_else(|stopped| stopped.map_or(Ok(()), Err), Ok)
}

fn stop(visited: io::Result<ControlFlow<()>>) -> Result<(), Option<io::Error>> {
    match visited {
        Ok(ControlFlow::Continue(())) => Ok(()),
        Ok(ControlFlow::Break(())) => Err(None),
        Err(error) => Err(Some(error)),
    }
}

/// One small file of an archive.
pub(super) fn member(path: &Path, name: &str) -> Result<Option<Vec<u8>>, LocalError> {
    let mut found = None;
    let looked = each_member(path, |member| {
        if member.name != Path::new(name) || member.size > MAX_DOCUMENT {
            return Ok(ControlFlow::Continue(()));
        }
        found = Some(read(member.content)?);
        Ok(ControlFlow::Break(()))
    });
    looked.map_err(|source| LocalError::Read { path: path.to_owned(), source })?;
    Ok(found)
}

/// Writes the index and every blob that may be a document below `dir`, under names of our own making.
pub(super) fn documents(path: &Path, dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir.join("blobs/sha256"))?;
    each_member(path, |member| {
        let to = match blob(&member.name) {
            Some(digest) => dir.join("blobs/sha256").join(digest.to_hex()),
            None if member.name == Path::new("index.json") => dir.join("index.json"),
            None => return Ok(ControlFlow::Continue(())),
        };
        // Documents are JSON objects; small layers are not.
        let mut first = [0];
        if member.size > MAX_DOCUMENT || member.content.read(&mut first)? == 0 || first != *b"{" {
            return Ok(ControlFlow::Continue(()));
        }
        let mut bytes = first.to_vec();
        bytes.extend(read(member.content)?);
        std::fs::write(to, bytes)?;
        Ok(ControlFlow::Continue(()))
    })
}

/// The digest that a file of a layout is named for.
pub(super) fn blob(name: &Path) -> Option<Sha256> {
    Sha256::from_hex(name.strip_prefix("blobs/sha256").ok()?.to_str()?).ok()
}

fn read(content: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    content.take(MAX_DOCUMENT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_and_its_archive_are_the_same_image() {
        let dir = tempfile::tempdir().unwrap();
        let layout = dir.path().join("layout");
        std::fs::create_dir(&layout).unwrap();
        super::super::layout::tests::layout(&layout, &["example.org/web:v1"]);
        let directory =
            LocalImage::of(&ImageSource::OciDirectory { path: layout.clone(), tag: None }).unwrap();
        let path = dir.path().join("image.tar");
        Layout::open(&layout, None).unwrap().pack(File::create(&path).unwrap()).unwrap();
        assert_eq!(LocalImage::of(&ImageSource::Archive { path }).unwrap(), directory);
    }

    #[test]
    fn a_docker_archive_is_known_by_its_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.tar");
        let mut tar = tar::Builder::new(File::create(&path).unwrap());
        for (name, content) in [("c.json", "{}"), ("manifest.json", r#"[{"Config":"c.json","Layers":[]}]"#)] {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap();
        let image = LocalImage::of(&ImageSource::Archive { path }).unwrap();
        assert_eq!(image, LocalImage { manifest: None, config: sha256(b"{}") });
    }

    #[test]
    fn what_is_no_image_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "not a tar archive, but long enough to be looked at").unwrap();
        let error = LocalImage::of(&ImageSource::Archive { path }).unwrap_err().to_string();
        assert!(error.contains("/x"), "{error}");
    }
}
