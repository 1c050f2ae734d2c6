//! Where built kernels are kept: a directory per kernel, named by the digest of what it was made from, filled under a
//! lock and entered in one rename.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use postern_model::Sha256;
use rustix::fs::{FlockOperation, flock};

/// First part of the names of directories in which a kernel is being made.
const WORKSPACE: &str = ".building-";
/// Free space that a build needs: the source, the objects, and what compilers write meanwhile.
const NEEDED: u64 = 2 << 30;
/// How long to wait for somebody else's build: many times what one takes.
const PATIENCE: Duration = Duration::from_secs(4 * 3600);
const LOOK: Duration = Duration::from_millis(500);

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error("{action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "building a kernel needs {} MiB in {}, which has {} MiB free; free some, or set XDG_CACHE_HOME to another disk",
        NEEDED >> 20, path.display(), free >> 20
    )]
    NoSpace { path: PathBuf, free: u64 },
    #[error("another program has been building this kernel for {} hours; it holds {}", PATIENCE.as_secs() / 3600, .0.display())]
    Busy(PathBuf),
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_path_buf();
    move |source| CacheError::Io { action, path, source }
}

/// A place in the cache.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    cache: PathBuf,
    name: String,
}

/// The right to fill an entry; gives it back when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _lock: File,
}

/// A directory to build in, removed when dropped.
#[derive(Debug)]
pub(super) struct Workspace {
    path: PathBuf,
}

impl Workspace {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // What cannot be removed is removed by the next build.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Entry {
    pub(super) fn new(cache: &Path, inputs: Sha256) -> Self {
        Self { cache: cache.into(), name: inputs.to_hex() }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.cache.join(&self.name)
    }

    fn lock_file(&self, name: &str) -> PathBuf {
        self.cache.join(format!(".{name}.lock"))
    }

    /// Waits until nobody else fills this entry.
    pub(super) fn lock(&self, say: &mut dyn FnMut(&str)) -> Result<Turn, CacheError> {
        fs::create_dir_all(&self.cache).map_err(failed("making", &self.cache))?;
        let path = self.lock_file(&self.name);
        let open = || File::options().create(true).truncate(false).write(true).open(&path);
        let lock = open().map_err(failed("opening", &path))?;
        let deadline = Instant::now() + PATIENCE;
        let mut said = false;
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            if !std::mem::replace(&mut said, true) {
                say("another program is building this kernel; waiting for it");
            }
            if Instant::now() > deadline {
                return Err(CacheError::Busy(path));
            }
            std::thread::sleep(LOOK);
        }
        Ok(Turn { _lock: lock })
    }

    /// An empty directory to build in, with enough space. Removes those that builds which were killed have left.
    pub(super) fn workspace(&self) -> Result<Workspace, CacheError> {
        self.sweep()?;
        let path = self.cache.join(format!("{WORKSPACE}{}", self.name));
        let _ = fs::remove_dir_all(&path);
        let space =
            rustix::fs::statvfs(&self.cache).map_err(|e| failed("asking about", &self.cache)(e.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free < NEEDED {
            return Err(CacheError::NoSpace { path: self.cache.clone(), free });
        }
        fs::create_dir(&path).map_err(failed("making", &path))?;
        Ok(Workspace { path })
    }

    fn sweep(&self) -> Result<(), CacheError> {
        for entry in fs::read_dir(&self.cache).map_err(failed("listing", &self.cache))?.filter_map(Result::ok)
        {
            let name = entry.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_prefix(WORKSPACE)) else { continue };
            let lock = File::options().create(true).truncate(false).write(true).open(self.lock_file(name));
            let Ok(lock) = lock else { continue };
            // Whoever builds there holds this lock.
            if name != self.name && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }

    /// A directory that becomes the entry.
    pub(super) fn staging(&self) -> Result<tempfile::TempDir, CacheError> {
        tempfile::Builder::new()
            .prefix(".new-")
            .tempdir_in(&self.cache)
            .map_err(failed("making a directory in", &self.cache))
    }
}

/// Makes what is in `staging` the entry, in place of what may be there.
pub(super) fn publish(staging: tempfile::TempDir, entry: &Entry) -> Result<(), CacheError> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = entry.path();
    fs::set_permissions(staging.path(), fs::Permissions::from_mode(0o755))
        .map_err(failed("opening", &path))?;
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("replacing", &path)(error));
        }
        _ => {}
    }
    fs::rename(staging.path(), &path).map_err(failed("entering", &path))?;
    // It is no temporary directory any more.
    let _ = staging.keep();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(cache: &Path, byte: u8) -> Entry {
        Entry::new(cache, Sha256::new([byte; 32]))
    }

    #[test]
    fn an_entry_appears_whole_and_is_replaced_whole() {
        let cache = tempfile::tempdir().unwrap();
        let entry = entry(cache.path(), 1);
        for content in ["one", "two"] {
            let staging = entry.staging().unwrap();
            fs::write(staging.path().join("bzImage"), content).unwrap();
            publish(staging, &entry).unwrap();
            assert_eq!(fs::read_to_string(entry.path().join("bzImage")).unwrap(), content);
        }
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn one_fills_an_entry_at_a_time() {
        let cache = tempfile::tempdir().unwrap();
        let entry = entry(cache.path(), 1);
        let turn = entry.lock(&mut |_| {}).unwrap();
        let other = File::open(entry.lock_file(&entry.name)).unwrap();
        assert!(flock(&other, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(turn);
        assert!(flock(&other, FlockOperation::NonBlockingLockExclusive).is_ok());
    }

    #[test]
    fn leftovers_go_and_what_is_being_built_stays() {
        let cache = tempfile::tempdir().unwrap();
        let (here, dead, alive) = (entry(cache.path(), 1), entry(cache.path(), 2), entry(cache.path(), 3));
        let directory = |entry: &Entry| cache.path().join(format!("{WORKSPACE}{}", entry.name));
        fs::create_dir(directory(&dead)).unwrap();
        fs::create_dir(directory(&alive)).unwrap();
        fs::create_dir(directory(&here)).unwrap();
        fs::write(directory(&here).join("half"), "").unwrap();
        let _turn = alive.lock(&mut |_| {}).unwrap();
        let workspace = here.workspace().unwrap();
        assert!(!directory(&dead).exists() && directory(&alive).exists());
        assert_eq!(fs::read_dir(workspace.path()).unwrap().count(), 0);
        drop(workspace);
        assert!(!directory(&here).exists());
    }
}
