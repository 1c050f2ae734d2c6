//! The kernel's source: the distribution's package of it, exactly the one that `source.lock` names, and our patches.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use postern_model::Sha256;
use serde::{Deserialize, Serialize};

use super::packages::{self, FetchError, Record};
use crate::{lock::Package, sha256};

/// Names the package, beside the profiles.
pub const SOURCE_LOCK: &str = "source.lock";
const PATCHES: &str = "patches";
const MAX_LOCK: usize = 4096;
const HEADER: &str = "\
# The source that every kernel here is built from. `postern-image kernel lock` moves it to the newest that apt knows;
# then `postern-image kernel bless` resolves every profile anew, and both go into one reviewed change.
";

/// Why there is no source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not a lock of a source package", .0.display())]
    Malformed(PathBuf, #[source] Box<toml::de::Error>),
    #[error("{} is too large to be a lock", .0.display())]
    TooLarge(PathBuf),
    #[error("{} names package {package}, which is no linux-source", path.display())]
    NoSource { path: PathBuf, package: String },
    #[error(
        "{package} {locked} cannot be downloaded: the distribution has moved on to {newest}; \
         run `postern-image kernel lock` and `postern-image kernel bless`, and review what changed"
    )]
    MovedOn { package: String, locked: String, newest: String, source: Box<FetchError> },
    #[error("downloading {package} {version}")]
    Fetch { package: String, version: String, source: Box<FetchError> },
    #[error("asking apt for the newest {package}")]
    Newest { package: String, source: Box<FetchError> },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockFile {
    package: String,
    version: String,
    sha256: Sha256,
}

/// The source package and the patches of one folder of profiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub package: Package,
    /// In the order in which they are applied.
    pub patches: Vec<Patch>,
}

/// A change of ours to the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    pub name: String,
    pub sha256: Sha256,
    pub(super) text: Vec<u8>,
}

impl Source {
    /// Reads the lock and the patches beside the profiles.
    pub fn read(directory: &Path) -> Result<Self, SourceError> {
        let path = directory.join(SOURCE_LOCK);
        let failed = |source| SourceError::Io { action: "reading", path: path.clone(), source };
        let text = fs::read_to_string(&path).map_err(failed)?;
        if text.len() > MAX_LOCK {
            return Err(SourceError::TooLarge(path));
        }
        let lock: LockFile =
            toml::from_str(&text).map_err(|e| SourceError::Malformed(path.clone(), Box::new(e)))?;
        if !is_source(&lock.package) {
            return Err(SourceError::NoSource { path, package: lock.package });
        }
        let package = Package { name: lock.package, version: lock.version, sha256: lock.sha256 };
        Ok(Self { package, patches: patches(&directory.join(PATCHES))? })
    }

    /// The package's file, downloaded into `cache` when it is not there.
    pub fn fetch(&self, cache: &Path) -> Result<PathBuf, SourceError> {
        fs::create_dir_all(cache).map_err(|source| SourceError::Io {
            action: "making",
            path: cache.into(),
            source,
        })?;
        let Package { name, version, .. } = &self.package;
        packages::cached(&self.package, cache).map_err(|error| match newest(name) {
            Ok(newest) if packages::is_newer(&newest.version, version) => SourceError::MovedOn {
                package: name.clone(),
                locked: version.clone(),
                newest: newest.version,
                source: Box::new(error),
            },
            _ => SourceError::Fetch {
                package: name.clone(),
                version: version.clone(),
                source: Box::new(error),
            },
        })
    }

    /// Moves the lock to the newest package that apt knows. Gives the packages before and after.
    pub fn move_lock(directory: &Path) -> Result<(Package, Package), SourceError> {
        let before = Self::read(directory)?.package;
        let after = newest(&before.name)
            .map_err(|e| SourceError::Newest { package: before.name.clone(), source: Box::new(e) })?;
        let path = directory.join(SOURCE_LOCK);
        let Package { name, version, sha256 } = &after;
        let text = format!("{HEADER}package = \"{name}\"\nversion = \"{version}\"\nsha256 = \"{sha256}\"\n");
        fs::write(&path, text).map_err(|source| SourceError::Io { action: "writing", path, source })?;
        Ok((before, after))
    }
}

fn is_source(package: &str) -> bool {
    package.strip_prefix("linux-source-").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn newest(package: &str) -> Result<Package, FetchError> {
    Record::ask(package)?.package()
}

fn patches(directory: &Path) -> Result<Vec<Patch>, SourceError> {
    let failed = |path: &Path, source| SourceError::Io { action: "reading", path: path.into(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(directory, error)),
    };
    let mut patches = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| failed(directory, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".patch") {
            let text = fs::read(entry.path()).map_err(|e| failed(&entry.path(), e))?;
            patches.push(Patch { name, sha256: sha256(&text), text });
        }
    }
    patches.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(patches)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "package = \"linux-source-6.12\"\nversion = \"6.12.9-1\"\n\
                        sha256 = \"sha256:00be21c0c17f08ddf26e82d3b53fe7a41efa4a288938da6bb69e89c4b25c281d\"\n";

    #[test]
    fn reads_the_lock_and_the_patches_in_order() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(SOURCE_LOCK), format!("{HEADER}{LOCK}")).unwrap();
        assert_eq!(Source::read(directory.path()).unwrap().patches, []);
        fs::create_dir(directory.path().join(PATCHES)).unwrap();
        for name in ["b.patch", "a.patch", "README"] {
            fs::write(directory.path().join(PATCHES).join(name), name).unwrap();
        }
        let source = Source::read(directory.path()).unwrap();
        assert_eq!(source.package.version, "6.12.9-1");
        assert_eq!(
            source.patches.iter().map(|patch| patch.name.as_str()).collect::<Vec<_>>(),
            ["a.patch", "b.patch"]
        );
    }

    #[test]
    fn refuses_what_is_no_lock_of_a_source() {
        let directory = tempfile::tempdir().unwrap();
        let lock = directory.path().join(SOURCE_LOCK);
        let refusal = |text: &str| {
            fs::write(&lock, text).unwrap();
            Source::read(directory.path()).unwrap_err()
        };
        assert!(matches!(refusal(""), SourceError::Malformed(..)));
        assert!(matches!(refusal(&LOCK.replace("00be", "")), SourceError::Malformed(..)));
        assert!(matches!(refusal(&format!("{LOCK}more = 1\n")), SourceError::Malformed(..)));
        assert!(matches!(refusal(&LOCK.replace("linux-source-6.12", "hello")), SourceError::NoSource { .. }));
        assert!(matches!(refusal(&" ".repeat(5000)), SourceError::TooLarge(_)));
    }

    #[test]
    fn a_cached_package_that_is_damaged_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(SOURCE_LOCK), LOCK.replace("6.12", "0.0")).unwrap();
        let source = Source::read(directory.path()).unwrap();
        let error = source.fetch(directory.path()).unwrap_err();
        assert!(matches!(error, SourceError::Fetch { .. }), "{error}");
    }
}
