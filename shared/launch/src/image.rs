//! `image.json`: what boots. Names the kernel and the initramfs by digest, so that an image is one thing and not a
//! folder of things.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use postern_model::Sha256;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

/// The version of `image.json` that this crate reads and writes.
pub const FORMAT: u32 = 1;
/// Name of the manifest in an image's directory.
pub const MANIFEST_FILE: &str = "image.json";
/// Largest `image.json` accepted, in bytes.
const MAX_MANIFEST: u64 = 64 * 1024;
/// Longest kernel command line of x86 (`COMMAND_LINE_SIZE`), with room for what a launch adds to the image's.
const MAX_CMDLINE: usize = 1536;
/// The word on an image's command line that says of its kernel: it has no ACPI.
pub const WITHOUT_ACPI: &str = "acpi=off";

/// An image that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not an image manifest", path.display())]
    Malformed { path: PathBuf, source: serde_json::Error },
    #[error("{} is larger than an image manifest can be", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} has format {found}; this program reads format {FORMAT}", path.display())]
    Format { path: PathBuf, found: u32 },
    #[error("image file name {0:?} is not a plain file name")]
    FileName(String),
    #[error(
        "kernel command line of the image has characters or a length that a kernel command line cannot have"
    )]
    Cmdline,
    #[error("{} has {found} bytes where the image manifest says {expected}", path.display())]
    Size { path: PathBuf, expected: u64, found: u64 },
    #[error("{} has digest {found} where the image manifest says {expected}", path.display())]
    Digest { path: PathBuf, expected: Sha256, found: Sha256 },
}

/// The contents of `image.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageManifest {
    pub format: u32,
    pub kernel: ImageFile,
    pub initramfs: ImageFile,
    /// The measured part of the kernel command line that every launch shares; a launch appends its own.
    pub cmdline: String,
    pub agent_version: String,
    pub kernel_release: String,
    /// The profile that the kernel was specialised to; none for a distribution's kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_profile: Option<String>,
}

/// One file of an image, beside the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageFile {
    pub file: String,
    pub sha256: Sha256,
    pub size: u64,
}

impl ImageManifest {
    /// Reads `image.json` in `dir` and checks each file it names against its size and digest.
    pub fn load(dir: &Path) -> Result<Self, ImageError> {
        let manifest = Self::read(dir)?;
        manifest.kernel.check(dir)?;
        manifest.initramfs.check(dir)?;
        Ok(manifest)
    }

    /// Reads `image.json` in `dir` without looking at the files it names: all that a verifier needs.
    pub fn read(dir: &Path) -> Result<Self, ImageError> {
        let path = dir.join(MANIFEST_FILE);
        let read = |source| ImageError::Read { path: path.clone(), source };
        let mut bytes = Vec::new();
        File::open(&path).map_err(read)?.take(MAX_MANIFEST + 1).read_to_end(&mut bytes).map_err(read)?;
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(ImageError::TooLarge { path });
        }
        let manifest: Self = serde_json::from_slice(&bytes)
            .map_err(|source| ImageError::Malformed { path: path.clone(), source })?;
        if manifest.format != FORMAT {
            return Err(ImageError::Format { path, found: manifest.format });
        }
        manifest.kernel.check_name()?;
        manifest.initramfs.check_name()?;
        let printable = manifest.cmdline.bytes().all(|c| (0x20..0x7f).contains(&c));
        if !printable || manifest.cmdline.len() > MAX_CMDLINE {
            return Err(ImageError::Cmdline);
        }
        Ok(manifest)
    }

    /// Whether the kernel looks for its devices in ACPI's tables. One that was specialised to microvm is told where they
    /// are by the command line.
    pub fn uses_acpi(&self) -> bool {
        self.cmdline.split_ascii_whitespace().all(|word| word != WITHOUT_ACPI)
    }
}

impl ImageFile {
    /// Size and digest of `dir/file` as they are now.
    pub fn describe(dir: &Path, file: &str) -> Result<Self, ImageError> {
        let path = dir.join(file);
        let (sha256, size) = digest_file(&path).map_err(|source| ImageError::Read { path, source })?;
        let described = Self { file: file.to_owned(), sha256, size };
        described.check_name()?;
        Ok(described)
    }

    fn check_name(&self) -> Result<(), ImageError> {
        let plain = !self.file.is_empty()
            && !self.file.contains(['/', '\0'])
            && self.file != "."
            && self.file != "..";
        plain.then_some(()).ok_or_else(|| ImageError::FileName(self.file.clone()))
    }

    fn check(&self, dir: &Path) -> Result<(), ImageError> {
        let found = Self::describe(dir, &self.file)?;
        let path = || dir.join(&self.file);
        if found.size != self.size {
            return Err(ImageError::Size { path: path(), expected: self.size, found: found.size });
        }
        if found.sha256 != self.sha256 {
            return Err(ImageError::Digest { path: path(), expected: self.sha256, found: found.sha256 });
        }
        Ok(())
    }
}

/// SHA-256 and length of a file, read in pieces.
pub fn digest_file(path: &Path) -> io::Result<(Sha256, u64)> {
    let mut file = File::open(path)?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 * 1024];
    let mut size = 0;
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        context.update(&buffer[..read]);
        size += read as u64;
    }
    let mut digest = [0; Sha256::LENGTH];
    digest.copy_from_slice(context.finish().as_ref());
    Ok((Sha256::new(digest), size))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn image() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("vmlinuz"), b"kernel").unwrap();
        fs::write(dir.path().join("initramfs.cpio"), b"initramfs").unwrap();
        let manifest = ImageManifest {
            format: FORMAT,
            kernel: ImageFile::describe(dir.path(), "vmlinuz").unwrap(),
            initramfs: ImageFile::describe(dir.path(), "initramfs.cpio").unwrap(),
            cmdline: "console=ttyS0 quiet".into(),
            agent_version: "0.1.0".into(),
            kernel_release: "6.1.0".into(),
            kernel_profile: None,
        };
        write(&dir, &manifest);
        dir
    }

    fn write(dir: &tempfile::TempDir, manifest: &ImageManifest) {
        fs::write(dir.path().join(MANIFEST_FILE), serde_json::to_vec(manifest).unwrap()).unwrap();
    }

    #[test]
    fn loads_an_intact_image() {
        let dir = image();
        assert_eq!(ImageManifest::load(dir.path()).unwrap().kernel.size, 6);
    }

    #[test]
    fn refuses_a_changed_file() {
        let dir = image();
        fs::write(dir.path().join("vmlinuz"), b"kernel!").unwrap();
        assert!(matches!(
            ImageManifest::load(dir.path()),
            Err(ImageError::Size { expected: 6, found: 7, .. })
        ));
        fs::write(dir.path().join("vmlinuz"), b"Kernel").unwrap();
        assert!(matches!(ImageManifest::load(dir.path()), Err(ImageError::Digest { .. })));
        fs::remove_file(dir.path().join("vmlinuz")).unwrap();
        assert!(matches!(ImageManifest::load(dir.path()), Err(ImageError::Read { .. })));
    }

    #[test]
    fn refuses_a_broken_manifest() {
        let dir = image();
        let good = ImageManifest::read(dir.path()).unwrap();
        let refused = |change: fn(&mut ImageManifest)| {
            let mut manifest = good.clone();
            change(&mut manifest);
            write(&dir, &manifest);
            ImageManifest::load(dir.path()).unwrap_err()
        };
        assert!(matches!(refused(|m| m.format = 2), ImageError::Format { found: 2, .. }));
        assert!(matches!(refused(|m| m.kernel.file = "../vmlinuz".into()), ImageError::FileName(_)));
        assert!(matches!(refused(|m| m.initramfs.file = "..".into()), ImageError::FileName(_)));
        assert!(matches!(refused(|m| m.cmdline.push('\n')), ImageError::Cmdline));
        assert!(matches!(refused(|m| m.cmdline = "x".repeat(4096)), ImageError::Cmdline));
        fs::write(dir.path().join(MANIFEST_FILE), b"{").unwrap();
        assert!(matches!(ImageManifest::load(dir.path()), Err(ImageError::Malformed { .. })));
        fs::write(dir.path().join(MANIFEST_FILE), vec![b' '; 70_000]).unwrap();
        assert!(matches!(ImageManifest::load(dir.path()), Err(ImageError::TooLarge { .. })));
    }
}
