//! A file or directory of this machine as a tar stream. Symlinks are stored as links; sockets and devices are refused by
//! name rather than left out quietly.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

/// What is packed, and under which name.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    /// First part of every name in the stream; `None` packs a directory's content only.
    pub(crate) name: Option<String>,
    pub(crate) links: Links,
}

/// What happens to a symlink that is the source itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    Keep,
    FollowFirst,
}

/// Why a source could not be packed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is a {kind}; only files, directories and symlinks can be copied", path.display())]
    Kind { path: PathBuf, kind: &'static str },
    /// The other end has gone; it knows why.
    #[error("the stream was closed")]
    Stream(#[source] io::Error),
}

impl Source {
    fn metadata(&self) -> Result<Metadata, PackError> {
        let read = match self.links {
            Links::Keep => fs::symlink_metadata(&self.path),
            Links::FollowFirst => fs::metadata(&self.path),
        };
        read.map_err(|source| PackError::Read { path: self.path.clone(), source })
    }

    /// Bytes of all files, for a progress bar.
    pub(crate) fn total_bytes(&self) -> Result<u64, PackError> {
        total(&self.path, &self.metadata()?)
    }

    /// Writes the tar stream to `out`, whole.
    pub(crate) fn pack(&self, out: impl Write) -> Result<(), PackError> {
        let metadata = self.metadata()?;
        let mut tar = tar::Builder::new(out);
        match &self.name {
            Some(name) => append(&mut tar, &self.path, Path::new(name), &metadata)?,
            None => append_content(&mut tar, &self.path, Path::new(""))?,
        }
        tar.into_inner().and_then(|mut out| out.flush()).map_err(PackError::Stream)
    }
}

fn total(path: &Path, metadata: &Metadata) -> Result<u64, PackError> {
    if !metadata.is_dir() {
        return Ok(if metadata.is_file() { metadata.len() } else { 0 });
    }
    let mut sum = 0;
    for path in children(path)? {
        let read = |source| PackError::Read { path: path.clone(), source };
        sum += total(&path, &fs::symlink_metadata(&path).map_err(read)?)?;
    }
    Ok(sum)
}

/// Sorted, so that a stream of the same content is the same.
fn children(path: &Path) -> Result<Vec<PathBuf>, PackError> {
    let read = |source| PackError::Read { path: path.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(path).map_err(read)? {
        paths.push(entry.map_err(read)?.path());
    }
    paths.sort();
    Ok(paths)
}

fn append_content<W: Write>(tar: &mut tar::Builder<W>, path: &Path, name: &Path) -> Result<(), PackError> {
    for child in children(path)? {
        let read = |source| PackError::Read { path: child.clone(), source };
        let metadata = fs::symlink_metadata(&child).map_err(read)?;
        let name = name.join(child.file_name().unwrap_or_default());
        append(tar, &child, &name, &metadata)?;
    }
    Ok(())
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    path: &Path,
    name: &Path,
    metadata: &Metadata,
) -> Result<(), PackError> {
    let read = |source| PackError::Read { path: path.to_owned(), source };
    let mut header = tar::Header::new_gnu();
    header.set_metadata(metadata);
    let kind = metadata.file_type();
    if kind.is_dir() {
        tar.append_data(&mut header, name, io::empty()).map_err(PackError::Stream)?;
        return append_content(tar, path, name);
    }
    if kind.is_symlink() {
        header.set_size(0);
        let target = fs::read_link(path).map_err(read)?;
        return tar.append_link(&mut header, name, target).map_err(PackError::Stream);
    }
    if !kind.is_file() {
        let kind = match () {
            () if kind.is_socket() => "socket",
            () if kind.is_fifo() => "pipe",
            () => "device",
        };
        return Err(PackError::Kind { path: path.to_owned(), kind });
    }
    let mut file = Exactly { file: File::open(path).map_err(read)?, left: metadata.len(), error: None };
    let appended = tar.append_data(&mut header, name, &mut file);
    match file.error {
        Some(source) => Err(PackError::Read { path: path.to_owned(), source }),
        None => appended.map_err(PackError::Stream),
    }
}

/// A file of the length that its header announced: what grows meanwhile is cut, what shrinks is an error, since the rest
/// of the stream would be misread.
struct Exactly {
    file: File,
    left: u64,
    error: Option<io::Error>,
}

impl Read for Exactly {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        if most == 0 {
            return Ok(0);
        }
        let result = match self.file.read(&mut out[..most]) {
            Ok(0) => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read"))
            }
            other => other,
        };
        match result {
            Ok(read) => {
                self.left -= read as u64;
                Ok(read)
            }
            Err(error) => {
                let kind = error.kind();
                if kind != io::ErrorKind::Interrupted {
                    self.error = Some(error);
                }
                Err(kind.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &Source) -> Vec<String> {
        let mut out = Vec::new();
        source.pack(&mut out).unwrap();
        let mut archive = tar::Archive::new(&out[..]);
        archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn a_tree_is_packed_under_its_new_name() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tree");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("sub/file"), "12345").unwrap();
        std::os::unix::fs::symlink("sub/file", root.join("link")).unwrap();
        let mut source = Source { path: root, name: Some("new".into()), links: Links::Keep };
        assert_eq!(names(&source), ["new", "new/link", "new/sub", "new/sub/file"]);
        assert_eq!(source.total_bytes().unwrap(), 5);
        source.name = None;
        assert_eq!(names(&source), ["link", "sub", "sub/file"]);
    }

    #[test]
    fn what_cannot_be_copied_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let source = Source { path: dir.path().into(), name: None, links: Links::Keep };
        let error = source.pack(io::sink()).unwrap_err().to_string();
        assert!(error.contains("socket is a socket"), "{error}");
    }
}
