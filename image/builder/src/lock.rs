//! `image.lock`: what went into an image, each by digest. The same lock gives the same bytes.

use std::{fs, io, path::Path};

use postern_model::Sha256;
use serde::{Deserialize, Serialize};

use crate::{modules::Class, sha256};

/// Name of the lock beside `image.json`.
pub const LOCK_FILE: &str = "image.lock";
const FORMAT: u32 = 1;
/// Largest lock that is read, in bytes.
const MAX_LOCK: u64 = 256 * 1024;

/// The builder's own part in the bytes: the sources that decide what is in an initramfs and in which form.
const RECIPE: &[&str] = &[
    include_str!("build.rs"),
    include_str!("cpio.rs"),
    include_str!("initramfs.rs"),
    include_str!("modules.rs"),
];

/// A lock that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("reading {0}")]
    Read(String, #[source] io::Error),
    #[error("{0} is not an image lock")]
    Malformed(String, #[source] serde_json::Error),
    #[error("{path} has format {found}; this program reads format {FORMAT}")]
    Format { path: String, found: u32 },
}

/// Everything an image was built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    pub format: u32,
    pub recipe: Sha256,
    pub agent: Input,
    pub kernel: KernelInput,
    pub modules: Vec<ModuleInput>,
}

/// One input file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    pub sha256: Sha256,
    pub size: u64,
}

/// The kernel, and the packages it came from (none when it was given as a file).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelInput {
    pub release: String,
    /// What it was specialised to; `packages` is then the source it was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    pub sha256: Sha256,
    pub packages: Vec<Package>,
}

/// A package of the distribution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub sha256: Sha256,
}

/// A module of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleInput {
    pub file: String,
    pub class: Class,
    pub sha256: Sha256,
}

impl Input {
    pub fn of(bytes: &[u8]) -> Self {
        Self { sha256: sha256(bytes), size: bytes.len() as u64 }
    }
}

impl Lock {
    pub fn new(agent: Input, kernel: KernelInput, modules: Vec<ModuleInput>) -> Self {
        Self { format: FORMAT, recipe: recipe(), agent, kernel, modules }
    }

    pub fn read(path: &Path) -> Result<Self, LockError> {
        let name = || path.display().to_string();
        let too_large = || io::Error::new(io::ErrorKind::InvalidData, "too large");
        let length = fs::metadata(path).map_err(|e| LockError::Read(name(), e))?.len();
        if length > MAX_LOCK {
            return Err(LockError::Read(name(), too_large()));
        }
        let bytes = fs::read(path).map_err(|e| LockError::Read(name(), e))?;
        let lock: Self = serde_json::from_slice(&bytes).map_err(|e| LockError::Malformed(name(), e))?;
        if lock.format != FORMAT {
            return Err(LockError::Format { path: name(), found: lock.format });
        }
        Ok(lock)
    }

    /// Whether building from this agent and these packages would give what this lock describes.
    pub fn describes(&self, agent: &Input, packages: &[Package]) -> bool {
        self.recipe == recipe()
            && self.agent == *agent
            && !packages.is_empty()
            && self.kernel.packages == packages
    }
}

fn recipe() -> Sha256 {
    let sources = [RECIPE, &[env!("CARGO_PKG_VERSION")]].concat();
    // A zero byte is in no source: it keeps the parts apart.
    sha256(sources.join("\0").as_bytes())
}
