//! The file of an image disk: written whole, and read back by whoever wants to know what it is.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::Path,
};

use postern_launch::disk::{DiskFileError, DiskFooter, MAX_MANIFEST};
use postern_model::{
    ImageDisk, Sha256,
    disk::{BLOCK, BlockCountError},
};
use serde::{Deserialize, Serialize};

use crate::{
    erofs::{self, ErofsError},
    layer::{self, LayerBlob, LayerError},
    scratch::Scratch,
    tree::Tree,
    verity,
};

/// Why an image was not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("layer {index} of {count} is refused")]
    Layer { index: usize, count: usize, source: LayerError },
    #[error("its files cannot be kept for a moment in {directory:?}")]
    Scratch { directory: String, source: io::Error },
    #[error("its file system cannot be made")]
    FileSystem(#[from] ErofsError),
    #[error("its file system has no size that a pod takes")]
    Size(#[from] BlockCountError),
    #[error("the disk cannot be written")]
    Write(#[source] io::Error),
    #[error("its configuration has {0} bytes; at most {limit} fit", limit = MAX_MANIFEST / 2)]
    Configuration(usize),
}

/// Why a disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("it cannot be opened")]
    Open(#[source] io::Error),
    #[error("its end cannot be used")]
    Footer(#[from] DiskFileError),
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("its manifest was changed: it has the digest {found}, its footer says {expected}")]
    ManifestDigest { expected: Sha256, found: Sha256 },
    #[error("its manifest is not valid")]
    Manifest(#[source] serde_json::Error),
    #[error("its content was changed: it has the root hash {found}, its footer says {expected}")]
    RootHash { expected: Sha256, found: Sha256 },
    #[error("its hash tree was changed")]
    Tree,
}

/// What a disk says of the image it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskManifest {
    /// The name the image was packed under.
    pub reference: Option<String>,
    /// Digest of the image manifest; of the configuration where an archive holds no manifest.
    pub image: Sha256,
    /// The image configuration, byte by byte.
    pub config: String,
}

/// An image to be packed, its layers from the lowest up.
#[derive(Debug)]
pub struct Source<'a> {
    pub manifest: DiskManifest,
    pub layers: Vec<LayerBlob<'a>>,
}

/// Writes `source` as an image disk into the empty file `out`, keeping files for a moment in `scratch`.
pub fn pack(source: Source<'_>, scratch: &Path, out: &mut File) -> Result<PackedDisk, PackError> {
    let kept = |source| PackError::Scratch { directory: scratch.display().to_string(), source };
    let manifest_length = source.manifest.config.len();
    if manifest_length as u64 > MAX_MANIFEST / 2 {
        return Err(PackError::Configuration(manifest_length));
    }
    let mut files = Scratch::new(scratch).map_err(kept)?;
    let mut tree = Tree::new();
    let count = source.layers.len();
    for (index, layer) in source.layers.into_iter().enumerate() {
        tree.next_layer();
        layer::apply(layer, &mut tree, &mut files).map_err(|source| PackError::Layer {
            index: index + 1,
            count,
            source,
        })?;
    }
    let files = files.finish().map_err(kept)?;
    let mut writer = BufWriter::with_capacity(256 << 10, &mut *out);
    let blocks = erofs::write(&tree, &files, &mut writer)?;
    writer.flush().map_err(PackError::Write)?;
    drop(writer);
    let manifest = source.manifest;
    finish(&manifest, blocks, out).map(|disk| PackedDisk { disk, manifest })
}

/// Adds the hash tree, the manifest and the footer.
fn finish(manifest: &DiskManifest, blocks: u64, out: &mut File) -> Result<ImageDisk, PackError> {
    let write = |out: &mut File| -> io::Result<(Sha256, DiskManifestBytes)> {
        out.seek(SeekFrom::Start(0))?;
        let tree = verity::hash_tree(BufReader::with_capacity(256 << 10, &mut *out), blocks)?;
        out.seek(SeekFrom::Start(blocks * BLOCK))?;
        out.write_all(&tree.bytes)?;
        let bytes = serde_json::to_vec(manifest)?;
        let digest = verity::sha256(&bytes);
        let length = bytes.len() as u64;
        let mut padded = bytes;
        padded.resize(padded.len().next_multiple_of(BLOCK as usize), 0);
        out.write_all(&padded)?;
        Ok((tree.root_hash, DiskManifestBytes { length, digest }))
    };
    let (root_hash, written) = write(out).map_err(PackError::Write)?;
    let disk = ImageDisk::new(root_hash, blocks)?;
    let footer = DiskFooter { disk, manifest_bytes: written.length, manifest_digest: written.digest };
    out.write_all(&footer.to_block()).map_err(PackError::Write)?;
    Ok(disk)
}

struct DiskManifestBytes {
    length: u64,
    digest: Sha256,
}

/// An image disk, as its own manifest and footer describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedDisk {
    pub disk: ImageDisk,
    pub manifest: DiskManifest,
}

impl PackedDisk {
    /// Reads the disk's end: as good as whoever keeps the file.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let mut file = File::open(path).map_err(DiskError::Open)?;
        let footer = DiskFooter::read(&mut file)?;
        file.seek(SeekFrom::Start(footer.manifest_offset())).map_err(DiskError::Read)?;
        let mut bytes = Vec::new();
        file.take(footer.manifest_bytes).read_to_end(&mut bytes).map_err(DiskError::Read)?;
        match verity::sha256(&bytes) {
            found if found == footer.manifest_digest => {}
            found => return Err(DiskError::ManifestDigest { expected: footer.manifest_digest, found }),
        }
        let manifest = serde_json::from_slice(&bytes).map_err(DiskError::Manifest)?;
        Ok(Self { disk: footer.disk, manifest })
    }

    /// Reads every byte of the file system and its tree, and says whether they are what the root hash stands for.
    pub fn verify(&self, path: &Path) -> Result<(), DiskError> {
        let mut file = BufReader::with_capacity(256 << 10, File::open(path).map_err(DiskError::Open)?);
        let computed = verity::hash_tree(&mut file, self.disk.data_blocks()).map_err(DiskError::Read)?;
        let expected = self.disk.root_hash();
        if computed.root_hash != expected {
            return Err(DiskError::RootHash { expected, found: computed.root_hash });
        }
        let mut tree = vec![0; computed.bytes.len()];
        file.read_exact(&mut tree).map_err(DiskError::Read)?;
        match tree == computed.bytes {
            true => Ok(()),
            false => Err(DiskError::Tree),
        }
    }
}

#[cfg(test)]
mod tests;
