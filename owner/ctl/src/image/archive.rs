//! An archive, sent without the layers that the pod has already.
//!
//! It is gone through for its documents, which say what its layers are, and again for what is sent of it. An archive that
//! is not understood here, whatever the reason, is sent as it is: the pod says what is wrong with it.

use std::{
    collections::HashSet,
    io::{self, Read, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use postern_model::Sha256;
use tar::{Builder, EntryType, Header};

use super::{
    docker::Converted,
    layout::Layout,
    local::{Member, blob, documents, each_member, member},
};

/// An archive of which some layers stay here.
#[derive(Debug)]
pub(super) struct Thinned {
    pub(super) path: PathBuf,
    /// What is sent, without headers.
    pub(super) size: u64,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// A layout, and the blobs that are left out of it.
    Layout(HashSet<Sha256>),
    Docker(Converted),
}

impl Thinned {
    /// Leaves out the layers whose diff ids are among `held`; `None` where nothing can be left out.
    pub(super) fn new(path: &Path, held: &HashSet<Sha256>) -> Option<Self> {
        if held.is_empty() {
            return None;
        }
        let (form, size) = match member(path, "index.json").ok()? {
            Some(_) => layout(path, held).map(|(left_out, size)| (Form::Layout(left_out), size))?,
            None => {
                let converted = Converted::new(path, held)?;
                let size = converted.size();
                (Form::Docker(converted), size)
            }
        };
        Some(Self { path: path.to_owned(), size, form })
    }

    /// Writes what is left. An error is of reading: what `out` cannot take any more, the pod's answer explains.
    pub(super) fn pack(&self, out: impl Write) -> io::Result<()> {
        let mut tar = Builder::new(Taken(out));
        let packed = match &self.form {
            Form::Docker(converted) => converted.pack(&self.path, &mut tar),
            Form::Layout(left_out) => each_member(&self.path, |member| {
                if blob(&member.name).is_none_or(|digest| !left_out.contains(&digest)) {
                    append(&mut tar, member)?;
                }
                Ok(ControlFlow::Continue(()))
            }),
        };
        match packed.and_then(|()| tar.into_inner()?.flush()) {
            Err(error) if error.get_ref().is_some_and(|inner| inner.is::<Closed>()) => Ok(()),
            packed => packed,
        }
    }
}

/// The blobs that can be left out of the layout, and the size of the rest.
fn layout(path: &Path, held: &HashSet<Sha256>) -> Option<(HashSet<Sha256>, u64)> {
    let folder = tempfile::tempdir().ok()?;
    documents(path, folder.path()).ok()?;
    let mut layout = Layout::open(folder.path(), None).ok()?;
    layout.leave_out(held).ok()?;
    let left_out = layout.left_out().clone();
    let (mut size, mut plain) = (0, !left_out.is_empty());
    each_member(path, |member| {
        plain &= is_plain(member.kind);
        let stays = blob(&member.name).is_some_and(|digest| left_out.contains(&digest));
        size += if stays { 0 } else { member.size };
        Ok(if plain { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })
    .ok()?;
    plain.then_some((left_out, size))
}

/// The kinds of entries that mean the same when they are written anew.
fn is_plain(kind: EntryType) -> bool {
    let link = kind.is_symlink() || kind.is_hard_link();
    kind.is_file() || link || kind.is_dir() || kind.is_pax_global_extensions()
}

fn append(tar: &mut Builder<impl Write>, member: Member<'_>) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(member.kind);
    header.set_mode(0o644);
    match (member.kind, member.link) {
        (kind, _) if kind.is_file() => {
            header.set_size(member.size);
            tar.append_data(&mut header, member.name, member.content.take(member.size))
        }
        (kind, Some(target)) if kind.is_symlink() || kind.is_hard_link() => {
            header.set_size(0);
            tar.append_link(&mut header, member.name, target)
        }
        // Directories and comments: a layout is its files.
        _ => Ok(()),
    }
}

/// A writer whose errors are told from those of reading.
struct Taken<W>(W);

#[derive(Debug, thiserror::Error)]
#[error("the stream was closed")]
struct Closed;

impl<W: Write> Write for Taken<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(|_| io::Error::other(Closed))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(|_| io::Error::other(Closed))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;
    use crate::image::{layout::tests::layout, local::sha256};

    fn names(archive: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(archive);
        let name =
            |entry: io::Result<tar::Entry<'_, _>>| entry.unwrap().path().unwrap().display().to_string();
        archive.entries().unwrap().map(name).collect()
    }

    /// An image with one layer, as an archive, and that layer's digests.
    fn archive(folder: &Path) -> (PathBuf, Sha256, Sha256) {
        layout(folder, &["example.org/web:v1"]);
        let path = folder.join("image.tar");
        let image = Layout::open(folder, None).unwrap();
        image.pack(File::create(&path).unwrap()).unwrap();
        let (_, blob) = image.layers().next().unwrap();
        (path, blob, sha256(b"unpacked example.org/web:v1 amd64"))
    }

    #[test]
    fn what_the_pod_has_stays_here() {
        let folder = tempfile::tempdir().unwrap();
        let (path, blob, diff_id) = archive(folder.path());
        let all = names(&fs::read(&path).unwrap());
        let gzip = folder.path().join("image.tar.gz");
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(&gzip).unwrap(), flate2::Compression::fast());
        encoder.write_all(&fs::read(&path).unwrap()).unwrap();
        encoder.finish().unwrap();
        for path in [path, gzip] {
            let thinned = Thinned::new(&path, &HashSet::from([diff_id])).unwrap();
            let mut out = Vec::new();
            thinned.pack(&mut out).unwrap();
            let sent = names(&out);
            let layer = format!("blobs/sha256/{}", blob.to_hex());
            assert_eq!(
                all.iter().filter(|name| **name != layer).collect::<Vec<_>>(),
                sent.iter().collect::<Vec<_>>()
            );
            assert!(all.contains(&layer));
            assert!(!String::from_utf8_lossy(&out).contains("layer example.org"));
        }
    }

    #[test]
    fn what_is_not_understood_is_sent_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (path, blob, diff_id) = archive(folder.path());
        let held = HashSet::from([diff_id]);
        assert!(Thinned::new(&path, &HashSet::new()).is_none(), "an empty pod");
        assert!(Thinned::new(&path, &HashSet::from([blob])).is_none(), "a blob's digest is no diff id");
        let broken = folder.path().join("broken.tar");
        fs::write(&broken, &fs::read(&path).unwrap()[..700]).unwrap();
        assert!(Thinned::new(&broken, &held).is_none());
        assert!(Thinned::new(Path::new("/no/such"), &held).is_none());
        assert!(Thinned::new(&path, &held).is_some());
    }

    #[test]
    fn a_closed_stream_is_no_failure_to_read() {
        struct Deaf;
        impl Write for Deaf {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let (path, _, diff_id) = archive(folder.path());
        let thinned = Thinned::new(&path, &HashSet::from([diff_id])).unwrap();
        assert!(thinned.pack(Deaf).is_ok());
        fs::remove_file(path).unwrap();
        assert!(thinned.pack(Vec::new()).is_err());
    }
}
