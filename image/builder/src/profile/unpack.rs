//! Layers to a root file system, in a process that has nothing else.
//!
//! The process has made the empty directory its root before it reads the first name, so there is nowhere for a name
//! or a link to lead to. Device nodes are left out, as in a pod.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use super::image::ContainerImage;

/// Why an image could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    #[error("cannot go into {}", directory.display())]
    Enter { directory: PathBuf, source: io::Error },
    #[error("layer {layer} is no tar archive")]
    Layer { layer: usize, source: io::Error },
    #[error("layer {layer}: cannot make {}", path.display())]
    Entry { layer: usize, path: PathBuf, source: io::Error },
}

/// Makes `directory` the root of this process and unpacks the layers of `image` there. There is no way back.
pub(super) fn into_new_root(image: &ContainerImage, directory: &Path) -> Result<(), UnpackError> {
    let failed = |source: io::Error| UnpackError::Enter { directory: directory.into(), source };
    rustix::process::chroot(directory).map_err(|error| failed(error.into()))?;
    std::env::set_current_dir("/").map_err(failed)?;
    for (layer, stream) in image.layers().enumerate() {
        let broken = |source| UnpackError::Layer { layer, source };
        let mut archive = tar::Archive::new(stream.map_err(broken)?);
        archive.set_preserve_permissions(true);
        archive.set_preserve_ownerships(true);
        archive.set_overwrite(true);
        for entry in archive.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            let path = entry.path().map_err(broken)?.into_owned();
            let Some(path) = inside(&path) else { continue };
            place(&mut entry, &path).map_err(|source| UnpackError::Entry { layer, path, source })?;
        }
        // What follows the archive's end still counts for the layer's digest.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(broken)?;
    }
    Ok(())
}

fn place<R: io::Read>(entry: &mut tar::Entry<'_, R>, path: &Path) -> io::Result<()> {
    let name = path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
    let parent = path.parent().unwrap_or(Path::new("/"));
    if name == b".wh..wh..opq" {
        return match parent.is_dir() {
            true => empty(parent),
            false => Ok(()),
        };
    }
    if let Some(hidden) = name.strip_prefix(b".wh.") {
        return remove(&parent.join(std::ffi::OsStr::from_bytes(hidden)));
    }
    let kind = entry.header().entry_type();
    if !(kind.is_file() || kind.is_dir() || kind.is_symlink() || kind.is_hard_link() || kind.is_gnu_sparse())
    {
        return Ok(());
    }
    let there = fs::symlink_metadata(path);
    match there {
        // A directory that is there keeps its content; anything else is replaced.
        Ok(there) if there.is_dir() && kind.is_dir() => {}
        Ok(_) if path != Path::new("/") => remove(path)?,
        _ => {}
    }
    entry.unpack_in("/").map(|_| ())
}

/// The path below the root; none when it leads upwards.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut whole = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(part) => whole.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(whole)
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        remove(&entry?.path())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_upwards_are_left_out() {
        assert_eq!(inside(Path::new("./etc//passwd")), Some("/etc/passwd".into()));
        assert_eq!(inside(Path::new("/etc/passwd")), Some("/etc/passwd".into()));
        assert_eq!(inside(Path::new("./")), Some("/".into()));
        assert_eq!(inside(Path::new("../etc/passwd")), None);
        assert_eq!(inside(Path::new("a/../../b")), None);
    }
}
