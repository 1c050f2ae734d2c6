//! Where the owner's files live, and how they are written: privately, whole or not at all.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::failure::{Failure, OrFail};

/// `$XDG_CONFIG_HOME/postern`, `$XDG_STATE_HOME/postern` and `$XDG_CACHE_HOME/postern`.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    config: PathBuf,
    state: PathBuf,
    cache: PathBuf,
}

impl Home {
    /// From the environment, as the XDG base directory specification says: a relative path counts as unset.
    pub(crate) fn from_environment() -> Result<Self, Failure> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let below_home = |rest: &str| {
            absolute("HOME").map(|home| home.join(rest)).ok_or_else(|| {
                Failure::general("cannot tell where your files are: HOME is not set to an absolute path")
                    .hint("set HOME, or XDG_CONFIG_HOME, XDG_STATE_HOME and XDG_CACHE_HOME")
            })
        };
        let config = absolute("XDG_CONFIG_HOME").map_or_else(|| below_home(".config"), Ok)?;
        let state = absolute("XDG_STATE_HOME").map_or_else(|| below_home(".local/state"), Ok)?;
        let cache = absolute("XDG_CACHE_HOME").map_or_else(|| below_home(".cache"), Ok)?;
        let [config, state, cache] = [config, state, cache].map(|path| path.join("postern"));
        Ok(Self { config, state, cache })
    }

    #[cfg(test)]
    pub(crate) fn below(dir: &Path) -> Self {
        Self { config: dir.join("config"), state: dir.join("state"), cache: dir.join("cache") }
    }

    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.config.join("config.toml")
    }

    pub(crate) fn identity(&self) -> PathBuf {
        self.config.join("identity")
    }

    pub(crate) fn trust(&self) -> PathBuf {
        self.config.join("trust")
    }

    /// Image disks that were packed here, each named by its root hash.
    pub(crate) fn disks(&self) -> PathBuf {
        self.cache.join("images")
    }

    pub(crate) fn pods(&self) -> PathBuf {
        self.state.join("pods")
    }
}

/// Makes a directory and its parents, for the owner alone.
pub(crate) fn make_private_dir(path: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .or_fail(|| format!("cannot make directory {}", path.display()))
}

/// Whether an existing file may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    Replace,
    Refuse,
}

/// Writes a file with mode 0600 so that readers see the old content or the new, never a part.
pub(crate) fn write_private(path: &Path, content: &[u8], existing: Existing) -> Result<(), Failure> {
    write(path, content, existing).or_fail(|| format!("cannot write {}", path.display()))
}

fn write(path: &Path, content: &[u8], existing: Existing) -> io::Result<()> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    // NamedTempFile makes its files with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    match existing {
        Existing::Replace => file.persist(path)?,
        Existing::Refuse => file.persist_noclobber(path)?,
    };
    Ok(())
}

/// Largest file of our own that is read.
const MAX_FILE: u64 = 8 << 20;

/// Reads a file of ours whole. `None` when there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let cannot = || format!("cannot read {}", path.display());
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::general(cannot()).caused_by(error)),
    };
    let mut content = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, MAX_FILE + 1), &mut content).or_fail(cannot)?;
    match content.len() as u64 > MAX_FILE {
        true => Err(Failure::general(cannot()).caused_by("it is larger than 8 MiB")),
        false => Ok(Some(content)),
    }
}

/// Reads a key of ours. One that others may read is not used: it may be somebody else's by now.
pub(crate) fn read_key(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let Some(key) = read(path)? else { return Ok(None) };
    let mode = fs::metadata(path).or_fail(|| format!("cannot read {}", path.display()))?.permissions().mode();
    match mode & 0o077 {
        0 => Ok(Some(key)),
        _ => Err(Failure::general(format!("refusing to use the key in {}", path.display()))
            .caused_by(format!("others can read or write it (mode {:04o})", mode & 0o7777))
            .hint(format!("if nobody has: chmod 600 {}", path.display()))),
    }
}

/// Reads a text file of ours whole. `None` when there is none.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, Failure> {
    let Some(content) = read(path)? else { return Ok(None) };
    String::from_utf8(content).map(Some).or_fail(|| format!("{} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_private_and_not_replaced_by_accident() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_private(&path, b"one", Existing::Refuse).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(write_private(&path, b"two", Existing::Refuse).is_err());
        assert_eq!(read(&path).unwrap().unwrap(), b"one");
        write_private(&path, b"two", Existing::Replace).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_key_that_others_may_read_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(read_key(&path).unwrap().is_none());
        write_private(&path, b"key", Existing::Refuse).unwrap();
        assert_eq!(read_key(&path).unwrap().unwrap(), b"key");
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let failure = read_key(&path).unwrap_err().to_string();
            assert!(failure.contains(&format!("mode 0{mode:o}")), "{failure}");
        }
    }

    #[test]
    fn a_missing_file_is_not_an_error() {
        assert!(read(Path::new("/nonexistent/x")).unwrap().is_none());
    }
}
