//! Where the kernel of an image comes from: a package of the distribution, downloaded and unpacked but never
//! installed, or files that were given.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

mod cache;
pub mod config;
mod interruptible;
mod kconfig;
mod packages;
pub mod profile;
pub mod source;
pub mod specialised;
mod tree;

pub use packages::{FetchError, KernelPackages, cache_directory};

use crate::lock::Package;

/// A kernel to build an image with.
#[derive(Debug)]
pub struct Kernel {
    pub release: String,
    pub image: Vec<u8>,
    /// Its `lib/modules/RELEASE`; without one it has everything built in.
    pub modules: Option<PathBuf>,
    /// What it was specialised to; none for a kernel of a distribution or of somebody else.
    pub specialised: Option<Specialised>,
    /// Where it came from; empty for files that were given.
    pub packages: Vec<Package>,
    /// Keeps what was unpacked until the image is built.
    _unpacked: Option<tempfile::TempDir>,
}

/// A kernel of ours: built from a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Specialised {
    pub profile: String,
    /// The resolved configuration.
    pub config: Vec<u8>,
    /// The kernel's list of what it has built in that could be modules.
    pub drivers: Vec<u8>,
}

/// Files that are not the kernel of an image.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error("reading {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{} is neither a bzImage nor an uncompressed x86-64 kernel", .0.display())]
    NotAKernel(PathBuf),
    #[error("{} has no boot/vmlinuz-*; is this a package of a kernel?", .0.display())]
    NoImage(PathBuf),
    #[error("{} has no lib/modules/{release}", root.display())]
    NoModules { root: PathBuf, release: String },
}

impl Kernel {
    /// A kernel from files. `modules` is a `lib/modules/RELEASE`.
    pub fn from_files(image: &Path, modules: Option<&Path>) -> Result<Self, KernelError> {
        let bytes = read(image)?;
        let release = release(&bytes).ok_or_else(|| KernelError::NotAKernel(image.into()))?;
        let modules = modules.map(Path::to_path_buf);
        Ok(Self { release, image: bytes, modules, specialised: None, packages: Vec::new(), _unpacked: None })
    }

    /// The kernel in the tree that packages were unpacked into.
    fn from_tree(tree: tempfile::TempDir, packages: Vec<Package>) -> Result<Self, KernelError> {
        let root = tree.path();
        let image = find_image(&root.join("boot")).ok_or_else(|| KernelError::NoImage(root.into()))?;
        let mut kernel = Self::from_files(&image, None)?;
        let directories = ["lib/modules", "usr/lib/modules"].map(|d| root.join(d).join(&kernel.release));
        let modules = directories.into_iter().find(|directory| directory.is_dir());
        let missing = || KernelError::NoModules { root: root.into(), release: kernel.release.clone() };
        kernel.modules = Some(modules.ok_or_else(missing)?);
        kernel.packages = packages;
        kernel._unpacked = Some(tree);
        Ok(kernel)
    }
}

fn find_image(boot: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(boot).ok()?;
    let is_image = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("vmlinuz-"))
    };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_image).max()
}

fn read(path: &Path) -> Result<Vec<u8>, KernelError> {
    fs::read(path).map_err(|source| KernelError::Read(path.into(), source))
}

/// The release a kernel calls itself by, from the header of a bzImage (Documentation/arch/x86/boot.rst,
/// `kernel_version`) or from the banner in an uncompressed kernel.
fn release(image: &[u8]) -> Option<String> {
    const SIGNATURE: usize = 0x202;
    const VERSION_POINTER: usize = 0x20e;
    const BANNER: &[u8] = b"Linux version ";
    let text = if image.get(SIGNATURE..SIGNATURE + 4) == Some(b"HdrS") {
        let pointer = image.get(VERSION_POINTER..VERSION_POINTER + 2)?;
        let at = usize::from(u16::from_le_bytes([pointer[0], pointer[1]])) + 0x200;
        image.get(at..)?
    } else if image.starts_with(b"\x7fELF") {
        let at = image.windows(BANNER.len()).position(|window| window == BANNER)?;
        image.get(at + BANNER.len()..)?
    } else {
        return None;
    };
    let end = text.iter().take(128).position(|byte| matches!(byte, b' ' | 0))?;
    let release = std::str::from_utf8(&text[..end]).ok()?;
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.+~".contains(&c);
    (!release.is_empty() && release.bytes().all(is_plain)).then(|| release.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bz_image(version: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x1000];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x300u16.to_le_bytes());
        image[0x500..0x500 + version.len()].copy_from_slice(version);
        image
    }

    #[test]
    fn reads_the_release() {
        assert_eq!(release(&bz_image(b"6.1.0-1-cloud-amd64 (x@y)")).as_deref(), Some("6.1.0-1-cloud-amd64"));
        let elf = b"\x7fELF....Linux version 6.12.1-pod (x@y) #1\n\0";
        assert_eq!(release(elf).as_deref(), Some("6.12.1-pod"));
    }

    #[test]
    fn refuses_what_is_no_kernel() {
        let mut outside = bz_image(b"6.1.0 ");
        outside[0x20e..0x210].copy_from_slice(&u16::MAX.to_le_bytes());
        let all: [&[u8]; 6] =
            [b"", b"MZ", b"\x7fELF no banner", &bz_image(b""), &bz_image(b"../../etc "), &outside];
        for image in all {
            assert_eq!(release(image), None);
        }
    }
}
