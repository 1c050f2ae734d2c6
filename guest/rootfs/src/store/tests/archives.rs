//! Importing archives: what tools write, in any order, and what attackers do.

use std::process::Command;

use flate2::Compression;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::support::*;
use crate::{Limits, Store, progress::unwatched, stream::sha256};

#[tokio::test]
async fn takes_layouts_in_any_order_plain_or_compressed() {
    if without_root("takes_layouts_in_any_order_plain_or_compressed") {
        return;
    }
    let image = two_layers();
    let mut reversed = image.files();
    reversed.reverse();
    for archive in
        [image.oci(), pack(&reversed), gzip(&image.oci()), zstd::encode_all(&image.oci()[..], 1).unwrap()]
    {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), limits()).unwrap();
        let progress = unwatched();
        let imported = store.import(&archive[..], None, &progress).await.unwrap();
        assert_eq!(imported.reference.as_ref().unwrap().to_string(), "example.org/test:1");
        assert_eq!(imported.manifest_digest, sha256(&image.manifest_bytes()));
        assert_eq!(imported.config_digest, sha256(&image.config_bytes()));
        assert_eq!((imported.platform().as_str(), imported.layers.len()), ("linux/amd64", 2));
        assert_eq!(imported.created_unix_millis, Some(1_714_558_830_000));
        assert_eq!(store.list(), std::slice::from_ref(&imported));
        assert_eq!(store.resolve("example.org/test:1").unwrap(), imported);
        let seen = *progress.borrow();
        assert_eq!((seen.received_bytes, seen.layers_done, seen.layers_total), (archive.len() as u64, 2, 2));
    }
}

/// What `docker save` wrote before it wrote OCI layouts: a directory per layer, a link where one repeats.
fn docker_save(image: &TestImage) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let file = tar::EntryType::Regular;
    append(&mut builder, "one/layer.tar", file, "", &image.layers[0].1);
    append(&mut builder, "two/layer.tar", file, "", &image.layers[1].1);
    append(&mut builder, "three/layer.tar", tar::EntryType::Symlink, "../one/layer.tar", b"");
    let mut config = image.config.clone();
    let first = config["rootfs"]["diff_ids"][0].clone();
    config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(first);
    let config = config.to_string();
    let name = format!("{}.json", sha256(config.as_bytes()).to_hex());
    append(&mut builder, &name, file, "", config.as_bytes());
    let manifest = json!([{
        "Config": name, "RepoTags": ["busybox:1", "busybox:latest"],
        "Layers": ["one/layer.tar", "two/layer.tar", "three/layer.tar"],
    }]);
    append(&mut builder, "manifest.json", file, "", manifest.to_string().as_bytes());
    builder.into_inner().unwrap()
}

#[tokio::test]
async fn takes_what_docker_save_wrote() {
    if without_root("takes_what_docker_save_wrote") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), limits()).unwrap();
    let archive = docker_save(&two_layers());
    let imported = import(&store, &archive).await.unwrap();
    let names: Vec<_> = store.list().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["docker.io/library/busybox:1", "docker.io/library/busybox:latest"]);
    assert_eq!(imported.layers.len(), 3);
    // The digest of an image without a manifest follows from its content.
    let other = tempfile::tempdir().unwrap();
    let again = import(&Store::open(other.path(), limits()).unwrap(), &archive).await.unwrap();
    assert_eq!(again.manifest_digest, imported.manifest_digest);
}

#[tokio::test]
async fn takes_what_skopeo_writes() {
    if without_root("takes_what_skopeo_writes") {
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let layout = work.path().join("layout");
    let image = two_layers();
    for (name, bytes) in image.files() {
        let path = layout.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    for (kind, name) in
        [("docker-archive", ":example.org/from-skopeo:2"), ("oci-archive", ":example.org/from-skopeo:2")]
    {
        let archive = work.path().join(kind);
        let target = format!("{kind}:{}{name}", archive.display());
        let source = format!("oci:{}", layout.display());
        let skopeo =
            Command::new("skopeo").args(["--insecure-policy", "copy", "--quiet", &source, &target]).output();
        let Ok(output) = skopeo else {
            eprintln!("skipped takes_what_skopeo_writes: skopeo is not installed");
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), limits()).unwrap();
        let file = tokio::fs::File::open(&archive).await.unwrap();
        let imported = store.import(file, None, &unwatched()).await.unwrap();
        assert_eq!(imported.to_string(), "example.org/from-skopeo:2", "{kind}");
        assert_eq!(imported.layers.len(), 2);
    }
}

/// Bends an image, packs it, and names the reason for which it must be refused.
type Attack = (&'static str, Vec<u8>, String);

fn broken_archives() -> Vec<Attack> {
    let honest = two_layers();
    let mut attacks: Vec<Attack> = Vec::new();
    let mut add = |name, archive, reason: &str| attacks.push((name, archive, reason.to_owned()));

    let mut files = honest.files();
    files[2].1[600] ^= 1;
    let (name, found) = (&files[2].0, digest(&files[2].1));
    add(
        "changed layer",
        pack(&files),
        &format!("archive cannot be read: its file {name:?} has the digest {found}"),
    );

    let archive = honest.oci();
    add(
        "cut archive",
        archive[..archive.len() - 3000].to_vec(),
        "archive cannot be read: it is not a valid tar archive: it ends in the middle of an entry",
    );
    add(
        "no archive",
        b"<html>".to_vec(),
        "archive cannot be read: it is not a valid tar archive: it ends in the middle of an entry",
    );
    add(
        "empty",
        Vec::new(),
        "archive holds no image that can be used: it has neither index.json nor manifest.json, so it is neither an OCI image layout nor what docker save writes",
    );
    let cut = gzip(&archive);
    add(
        "cut gzip",
        cut[..cut.len() / 2].to_vec(),
        "archive cannot be read: it is not a valid tar archive: it ends in the middle of an entry",
    );

    let mut files = honest.files();
    let missing = files.remove(3).0;
    add(
        "missing layer",
        pack(&files),
        &format!(
            "archive holds no image that can be used: it lacks layer sha256:{}, and this pod has no layer with the diff id {}",
            missing.rsplit('/').next().unwrap(),
            digest(&honest.layers[1].1),
        ),
    );
    attacks
}

fn broken_documents() -> Vec<Attack> {
    let honest = two_layers();
    let mut attacks: Vec<Attack> = Vec::new();
    let mut add = |name, archive, reason: &str| attacks.push((name, archive, reason.to_owned()));

    let mut bent = honest.clone();
    bent.config["architecture"] = "arm64".into();
    add(
        "other platform",
        bent.oci(),
        "archive holds no image that can be used: image is for linux/arm64; this pod runs linux/amd64",
    );

    let mut bent = honest.clone();
    bent.config["rootfs"]["diff_ids"] = json!([]);
    bent.manifest["layers"] = json!([]);
    add(
        "no layers",
        bent.oci(),
        "archive holds no image that can be used: image has no layers, so there is nothing to run",
    );

    let mut bent = honest.clone();
    let wrong = digest(b"else");
    bent.config["rootfs"]["diff_ids"][1] = wrong.clone().into();
    let found = digest(&honest.layers[1].1);
    add(
        "other content",
        bent.oci(),
        &format!(
            "layer 2 of 2 is refused: it unpacks to the diff id {found}; the image's configuration says {wrong}"
        ),
    );

    let mut bent = honest.clone();
    bent.manifest["layers"][0]["size"] = 7.into();
    add(
        "wrong size",
        bent.oci(),
        &format!(
            "archive holds no image that can be used: its file {:?} has {} bytes; the manifest says 7",
            digest(&honest.layers[0].0),
            honest.layers[0].0.len()
        ),
    );

    let mut index = honest.index();
    index["manifests"][0]["platform"] = json!({ "os": "linux", "architecture": "s390x" });
    let mut files = honest.files();
    files.last_mut().unwrap().1 = index.to_string().into_bytes();
    add(
        "index of others",
        pack(&files),
        "archive holds no image that can be used: index holds no image for linux/amd64; it has: linux/s390x",
    );
    attacks
}

fn broken_layers() -> Vec<Attack> {
    let honest = two_layers();
    let mut attacks: Vec<Attack> = Vec::new();
    let mut add = |name, archive, reason: &str| attacks.push((name, archive, reason.to_owned()));

    add("cut layer", cut_layer(&honest).oci(), "layer 2 of 2 is refused: it is not a valid gzip stream: ");
    add(
        "bomb",
        bomb().oci(),
        "layer 2 of 2 is refused: it grows more than 250 times when decompressed, which is what a decompression bomb does",
    );
    let escape = TestImage::new(&[tar(&[("../../etc/passwd", b"x")])]);
    add(
        "escape",
        escape.oci(),
        "layer 1 of 1 is refused: entry \"../../etc/passwd\" of the layer is refused: its path cannot be used: it contains \"..\"",
    );
    let broken = TestImage::new(&[b"this is no tar archive".repeat(60)]);
    add(
        "no tar",
        broken.oci(),
        "layer 1 of 1 is refused: layer is not a valid tar archive: a header has a wrong checksum",
    );

    attacks
}

fn cut_layer(honest: &TestImage) -> TestImage {
    let mut bent = honest.clone();
    let blob = &mut bent.layers[1].0;
    blob.truncate(blob.len() / 2);
    bent.manifest["layers"][1]["digest"] = digest(blob).into();
    bent.manifest["layers"][1]["size"] = blob.len().into();
    bent
}

/// A quarter of a GiB of zeros, in as many bytes as gzip's best can.
fn bomb() -> TestImage {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::best());
    let mut builder = tar::Builder::new(&mut encoder);
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(256 << 20);
    header.set_cksum();
    builder.append(&header, std::io::Read::take(std::io::repeat(0), 256 << 20)).unwrap();
    builder.finish().unwrap();
    drop(builder);
    let blob = encoder.finish().unwrap();
    let mut image = TestImage::new(&[tar(&[("a", b"")]), tar(&[("b", b"")])]);
    image.manifest["layers"][1]["digest"] = digest(&blob).into();
    image.manifest["layers"][1]["size"] = blob.len().into();
    image.layers[1].0 = blob;
    image
}

#[tokio::test]
async fn refuses_what_is_wrong_and_changes_nothing() {
    if without_root("refuses_what_is_wrong_and_changes_nothing") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), limits()).unwrap();
    let mut kept = TestImage::new(&[tar(&[("kept", b"kept")])]);
    kept.name = Some("example.org/kept:1".into());
    import(&store, &kept.oci()).await.unwrap();
    let before = snapshot(&store);
    for (name, archive, reason) in [broken_archives(), broken_documents(), broken_layers()].concat() {
        let error = chain(&import(&store, &archive).await.unwrap_err());
        assert!(error.starts_with(&reason), "{name}: {error}\nexpected: {reason}");
        assert_eq!(snapshot(&store), before, "{name}");
    }
    // The honest image these were made from is taken.
    import(&store, &two_layers().oci()).await.unwrap();
}

#[tokio::test]
async fn a_pinned_name_takes_no_other_image() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), limits()).unwrap();
    let image = TestImage::new(&[tar(&[("a", b"a")])]);
    let right = format!("example.org/x@{}", digest(&image.manifest_bytes())).parse().unwrap();
    let wrong = format!("example.org/x@{}", digest(b"else")).parse().unwrap();
    let error = store.import(&image.oci()[..], Some(&wrong), &unwatched()).await.unwrap_err();
    assert!(error.to_string().starts_with("image has the digest sha256:"), "{error}");
    assert!(store.list().is_empty());
    let stored = store.import(&image.oci()[..], Some(&right), &unwatched()).await.unwrap();
    assert_eq!(stored.reference, Some(right));
}

#[tokio::test]
async fn documents_and_entries_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let small = Limits { document_bytes: 300, archive_entries: 10, ..limits() };
    let store = Store::open(directory.path(), small).unwrap();
    let image = TestImage::new(&[tar(&[("a", b"a")])]);
    let error = chain(&import(&store, &image.oci()).await.unwrap_err());
    assert!(error.contains("at most 300 are allowed for a document"), "{error}");
    let many: Vec<_> = (0..11).map(|i| (format!("f{i}"), Vec::new())).collect();
    let error = chain(&import(&store, &pack(&many)).await.unwrap_err());
    assert!(error.ends_with("it has more than 10 entries"), "{error}");
}

#[tokio::test]
async fn a_cancelled_import_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), limits()).unwrap();
    let before = snapshot(&store);
    let (mut sender, receiver) = tokio::io::duplex(1024);
    let archive = TestImage::new(&[tar(&[("a", &[7; 100_000])])]).oci();
    let progress = unwatched();
    let mut seen = progress.subscribe();
    let importing = {
        let store = store.clone();
        tokio::spawn(async move { store.import(receiver, None, &progress).await })
    };
    sender.write_all(&archive[..50_000]).await.unwrap();
    seen.wait_for(|progress| progress.received_bytes > 40_000).await.unwrap();
    importing.abort();
    assert!(importing.await.unwrap_err().is_cancelled());
    // The threads of the cancelled operation end by themselves, and its turn is free again when they did.
    let all = u32::try_from(super::super::operation::CONCURRENT).unwrap();
    drop(store.0.turns.acquire_many(all).await.unwrap());
    assert_eq!(snapshot(&store), before);
}
