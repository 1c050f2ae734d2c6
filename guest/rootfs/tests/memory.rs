//! What unpacking costs: memory that does not grow with the layer, and time, which is printed.
//!
//! A program of its own, because the kernel counts a process' peak and other tests have theirs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
    time::Instant,
};

use flate2::{Compression, write::GzEncoder};
use postern_rootfs::{Limits, Store, progress::unwatched};
use ring::digest::{Context, SHA256};
use serde_json::json;
use tar::{Builder, Header};

/// Passes on what it hashes.
struct Hashed<W> {
    inner: W,
    context: Context,
}

impl<W: Write> Hashed<W> {
    fn new(inner: W) -> Self {
        Self { inner, context: Context::new(&SHA256) }
    }

    fn hex(&self) -> String {
        hex::encode(self.context.clone().finish())
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.context.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A MiB that compresses to about half, as software does.
fn piece() -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    });
    let mut piece: Vec<u8> = noise.take(1 << 19).collect();
    piece.resize(1 << 20, b'-');
    piece
}

fn header(path: &str, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_path(path).unwrap();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

/// An OCI layout with one layer of `mib`, written through small buffers; `tag` makes it differ from others.
fn write_archive(directory: &Path, mib: u64, tag: &str) -> std::path::PathBuf {
    let layer_path = directory.join(format!("layer-{tag}"));
    let mut layer = Builder::new(Hashed::new(GzEncoder::new(
        Hashed::new(File::create(&layer_path).unwrap()),
        Compression::fast(),
    )));
    let piece = piece();
    for number in 0..mib {
        layer.append(&header(&format!("{tag}/file-{number}"), 1 << 20), &piece[..]).unwrap();
    }
    let content = layer.into_inner().unwrap();
    let diff_id = content.hex();
    let blob = content.inner.finish().unwrap().hex();
    let size = fs::metadata(&layer_path).unwrap().len();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] },
    })
    .to_string();
    let digest = |bytes: &str| hex::encode(ring::digest::digest(&SHA256, bytes.as_bytes()));
    let descriptor = |kind: &str, digest: &str, size: u64| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{digest}"), "size": size });
    let manifest = json!({
        "schemaVersion": 2,
        "config": descriptor("config.v1+json", &digest(&config), config.len() as u64),
        "layers": [descriptor("layer.v1.tar+gzip", &blob, size)],
    })
    .to_string();
    let entry = descriptor("manifest.v1+json", &digest(&manifest), manifest.len() as u64);
    let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
    let path = directory.join(format!("archive-{tag}"));
    let mut archive = Builder::new(File::create(&path).unwrap());
    for (name, bytes) in [
        (format!("blobs/sha256/{}", digest(&config)), &config),
        (format!("blobs/sha256/{}", digest(&manifest)), &manifest),
        ("index.json".to_owned(), &index),
    ] {
        archive.append(&header(&name, bytes.len() as u64), bytes.as_bytes()).unwrap();
    }
    let layer = File::open(&layer_path).unwrap();
    archive.append(&header(&format!("blobs/sha256/{blob}"), size), layer.take(size)).unwrap();
    archive.finish().unwrap();
    fs::remove_file(layer_path).unwrap();
    path
}

/// The most memory this process had since it was last asked to forget, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn memory_does_not_grow_with_the_layer() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped memory_does_not_grow_with_the_layer: needs root");
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let store = Store::open(&work.path().join("store"), Limits::default()).unwrap();
    let mut peaks = Vec::new();
    // The first warms threads and allocator.
    for (mib, tag) in [(8, "warm"), (16, "small"), (128, "large")] {
        let archive = write_archive(work.path(), mib, tag);
        // Resets the peak (proc(5), clear_refs).
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = peak();
        let start = Instant::now();
        let file = tokio::fs::File::open(&archive).await.unwrap();
        store.import(file, None, &unwatched()).await.unwrap();
        let speed = mib as f64 / start.elapsed().as_secs_f64();
        peaks.push(peak());
        eprintln!("{mib} MiB in one layer: {speed:.0} MiB/s, peak {} KiB, {before} KiB before", peak());
    }
    let [_, small, large] = peaks[..] else { panic!("three rounds") };
    assert!(large < small + 4096, "eight times the layer took {} KiB more memory", large - small);
    assert!(large < 64 << 10, "peak of {large} KiB");
}
