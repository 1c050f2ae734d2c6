//! Images made in memory, stores on their own tmpfs, and what a store looks like from outside.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::{Image, Limits, Store, manifest, progress::unwatched, stream::sha256};

/// Mounts and whiteouts need root, as the guest's agent is.
pub(super) fn without_root(test: &str) -> bool {
    let skip = !rustix::process::geteuid().is_root();
    if skip {
        eprintln!("skipped {test}: needs root");
    }
    skip
}

/// A tmpfs of its own, as the guest's store has.
pub(super) struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    pub(super) fn of_mib(mib: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={mib}m")).unwrap();
        mount("tmpfs", directory.path(), "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
        Self(directory)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

pub(super) fn limits() -> Limits {
    Limits { reserve_bytes: 1 << 20, ..Limits::default() }
}

pub(super) fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, data) in entries {
        append(&mut builder, path, EntryType::Regular, "", data);
    }
    builder.into_inner().unwrap()
}

pub(super) fn append(builder: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, target: &str, data: &[u8]) {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(data.len() as u64);
    header.set_cksum();
    builder.append(&header, data).unwrap();
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn digest(bytes: &[u8]) -> String {
    sha256(bytes).to_string()
}

/// An image as its blobs; every part can be bent before it is packed.
#[derive(Clone)]
pub(super) struct TestImage {
    pub(super) config: Value,
    pub(super) manifest: Value,
    /// Layers as they are stored, with their unpacked form.
    pub(super) layers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) name: Option<String>,
}

impl TestImage {
    /// Layers as they are, gzip and zstd, in turn.
    pub(super) fn new(layers: &[Vec<u8>]) -> Self {
        let pack = |(index, tar): (usize, &Vec<u8>)| match index % 3 {
            0 => (tar.clone(), tar.clone()),
            1 => (gzip(tar), tar.clone()),
            _ => (zstd::encode_all(tar.as_slice(), 1).unwrap(), tar.clone()),
        };
        let kinds = ["tar", "tar+gzip", "tar+zstd"];
        let layers: Vec<_> = layers.iter().enumerate().map(pack).collect();
        let diff_ids: Vec<_> = layers.iter().map(|(_, tar)| digest(tar)).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "created": "2024-05-01T10:20:30Z",
            "config": { "Cmd": ["/bin/sh"], "Env": ["PATH=/bin"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let descriptors = layers.iter().enumerate().map(|(index, (blob, _))| {
            let kind = format!("application/vnd.oci.image.layer.v1.{}", kinds[index % 3]);
            json!({ "mediaType": kind, "digest": digest(blob), "size": blob.len() })
        });
        let descriptors: Vec<_> = descriptors.collect();
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": manifest::OCI_MANIFEST, "layers": descriptors });
        Self { config, manifest, layers, name: Some("example.org/test:1".into()) }
    }

    pub(super) fn config_bytes(&self) -> Vec<u8> {
        self.config.to_string().into_bytes()
    }

    pub(super) fn manifest_bytes(&self) -> Vec<u8> {
        let mut manifest = self.manifest.clone();
        let config = self.config_bytes();
        if manifest.get("config").is_none() {
            manifest["config"] =
                json!({ "mediaType": manifest::OCI_CONFIG, "digest": digest(&config), "size": config.len() });
        }
        manifest.to_string().into_bytes()
    }

    pub(super) fn blobs(&self) -> Vec<Vec<u8>> {
        let layers = self.layers.iter().map(|(blob, _)| blob.clone());
        [self.config_bytes(), self.manifest_bytes()].into_iter().chain(layers).collect()
    }

    pub(super) fn index(&self) -> Value {
        let manifest = self.manifest_bytes();
        let mut entry = json!({ "mediaType": manifest::OCI_MANIFEST, "digest": digest(&manifest), "size": manifest.len() });
        if let Some(name) = &self.name {
            entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        }
        json!({ "schemaVersion": 2, "manifests": [entry] })
    }

    /// The files of an OCI layout, the index last.
    pub(super) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let blobs = self.blobs().into_iter();
        let blobs = blobs.map(|blob| (format!("blobs/sha256/{}", sha256(&blob).to_hex()), blob));
        let mut files: Vec<_> = blobs.collect();
        files.push(("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
        files.push(("index.json".into(), self.index().to_string().into_bytes()));
        files
    }

    pub(super) fn oci(&self) -> Vec<u8> {
        pack(&self.files())
    }
}

pub(super) fn pack(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    tar(&files)
}

/// Two layers: the second changes a file of the first, deletes one, and hides a directory.
pub(super) fn two_layers() -> TestImage {
    let lower = tar(&[
        ("bin/sh", b"shell"),
        ("etc/motd", b"old"),
        ("etc/gone", b"x"),
        ("var/cache/a", b"x"),
        ("var/cache/b", b"x"),
    ]);
    let upper = tar(&[
        ("etc/motd", b"new"),
        ("etc/.wh.gone", b""),
        ("var/cache/.wh..wh..opq", b""),
        ("var/cache/c", b"y"),
    ]);
    TestImage::new(&[lower, upper])
}

pub(super) async fn import(store: &Store, archive: &[u8]) -> Result<Image, super::super::ImportError> {
    store.import(archive, None, &unwatched()).await
}

/// The error with its causes, as a user sees it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Every path below the store with its size, the index aside, and what the store lists.
pub(super) fn snapshot(store: &Store) -> (Vec<(PathBuf, u64)>, Vec<Image>, u64) {
    fn walk(directory: &Path, found: &mut Vec<(PathBuf, u64)>) {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.path().symlink_metadata().unwrap();
            match metadata.is_dir() {
                true => {
                    found.push((entry.path(), 0));
                    walk(&entry.path(), found);
                }
                false => found.push((entry.path(), metadata.len())),
            }
        }
    }
    let mut found = Vec::new();
    walk(store.0.area.path(), &mut found);
    found.retain(|(path, _)| !path.ends_with("index.json"));
    found.sort();
    (found, store.list(), store.0.budget.used())
}
