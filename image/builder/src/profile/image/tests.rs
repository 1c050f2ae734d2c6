//! Images made on the spot, honest and not.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::*;

/// An entry of a layer: path, content, and what kind it is.
pub(in crate::profile) enum Entry<'a> {
    File(&'a str, &'a [u8]),
    Link(&'a str, &'a str),
}

/// A layer. Names are written as they are, however wrong.
pub(in crate::profile) fn layer(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        let (path, kind, content, link): (_, _, &[u8], _) = match entry {
            Entry::File(path, content) => (path, tar::EntryType::Regular, content, ""),
            Entry::Link(path, target) => (path, tar::EntryType::Symlink, &[], *target),
        };
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        let raw = header.as_gnu_mut().unwrap();
        raw.name[..path.len()].copy_from_slice(path.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        tar.append(&header, content).unwrap();
    }
    tar.into_inner().unwrap()
}

fn put(directory: &Path, media: &str, content: &[u8]) -> Value {
    let digest = crate::sha256(content);
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(digest.to_hex()), content).unwrap();
    json!({"mediaType": media, "digest": digest.to_string(), "size": content.len()})
}

/// An OCI layout with one image.
pub(in crate::profile) fn layout(directory: &Path, config: Value, layers: &[Vec<u8>]) {
    let config = json!({"os": "linux", "architecture": "amd64", "config": config}).to_string();
    let config = put(directory, "application/vnd.oci.image.config.v1+json", config.as_bytes());
    let media = "application/vnd.oci.image.layer.v1.tar";
    let layers: Vec<Value> = layers.iter().map(|layer| put(directory, media, layer)).collect();
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string();
    let mut entry = put(directory, "application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    entry["annotations"] = json!({REF_NAME: "example.org/app:v1"});
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    fs::write(directory.join("index.json"), index).unwrap();
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

fn names(image: &ContainerImage) -> Vec<String> {
    let mut names = Vec::new();
    for stream in image.layers() {
        let mut archive = tar::Archive::new(stream.unwrap());
        for entry in archive.entries().unwrap() {
            names.push(entry.unwrap().path().unwrap().display().to_string());
        }
    }
    names
}

fn archive_of(directory: &Path, to: &Path) {
    let mut tar = tar::Builder::new(File::create(to).unwrap());
    tar.append_dir_all(".", directory).unwrap();
    tar.finish().unwrap();
}

#[test]
fn layouts_archives_and_docker_archives_are_one_image() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("layout");
    let packed = {
        use std::io::Write as _;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&layer(&[Entry::File("b", b"2")])).unwrap();
        gzip.finish().unwrap()
    };
    let layers = [layer(&[Entry::File("a", b"1")]), packed];
    let config =
        json!({"Entrypoint": ["/a"], "Cmd": ["-x"], "Env": ["K=v=w"], "User": "1:2", "Labels": {"l": "v"}});
    layout(&directory, config, &layers);
    let archive = temporary.path().join("archive.tar");
    archive_of(&directory, &archive);
    let gzip = temporary.path().join("archive.tar.gz");
    let mut out = flate2::write::GzEncoder::new(File::create(&gzip).unwrap(), flate2::Compression::fast());
    io::copy(&mut File::open(&archive).unwrap(), &mut out).unwrap();
    out.finish().unwrap();
    for path in [&directory, &archive, &gzip] {
        let image = ContainerImage::open(path, Some("v1")).unwrap();
        assert_eq!(image.config.command(), ["/a", "-x"]);
        assert_eq!(image.config.env().collect::<Vec<_>>(), [("K", "v=w")]);
        assert_eq!(names(&image), ["a", "b"]);
    }
    assert!(matches!(ContainerImage::open(&directory, Some("v2")), Err(ImageReadError::NoSuchTag { .. })));

    let docker = temporary.path().join("docker");
    fs::create_dir(&docker).unwrap();
    fs::write(docker.join("c.json"), json!({"config": {"Cmd": ["/a"]}}).to_string()).unwrap();
    fs::write(docker.join("l.tar"), &layers[0]).unwrap();
    let manifest = json!([{"Config": "c.json", "RepoTags": ["app:v1"], "Layers": ["l.tar"]}]).to_string();
    fs::write(docker.join("manifest.json"), manifest).unwrap();
    let path = temporary.path().join("docker.tar");
    archive_of(&docker, &path);
    assert_eq!(names(&ContainerImage::open(&path, None).unwrap()), ["a"]);
}

#[test]
fn what_does_not_have_its_digest_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let content = layer(&[Entry::File("a", b"1")]);
    layout(directory.path(), json!({}), std::slice::from_ref(&content));
    let blob = directory.path().join("blobs/sha256").join(crate::sha256(&content).to_hex());
    let mut changed = content.clone();
    changed[512] = b'2';
    fs::write(&blob, changed).unwrap();
    let image = ContainerImage::open(directory.path(), None).unwrap();
    let mut stream = image.layers().next().unwrap().unwrap();
    let error = io::copy(&mut stream, &mut io::sink()).unwrap_err();
    assert!(error.to_string().contains("does not have the digest"), "{error}");

    for entry in fs::read_dir(directory.path().join("blobs/sha256")).unwrap() {
        fs::write(entry.unwrap().path(), "{}").unwrap();
    }
    assert!(matches!(ContainerImage::open(directory.path(), None), Err(ImageReadError::Mismatch(_))));
}

#[test]
fn documents_cannot_name_files_outside() {
    let directory = tempfile::tempdir().unwrap();
    for (config, layer) in [("../c.json", "l"), ("c.json", "/etc/passwd"), ("c.json", "a/../../l")] {
        let manifest = json!([{"Config": config, "Layers": [layer]}]).to_string();
        fs::write(directory.path().join("manifest.json"), manifest).unwrap();
        fs::write(directory.path().join("c.json"), "{}").unwrap();
        assert!(matches!(ContainerImage::open(directory.path(), None), Err(ImageReadError::Missing(_))));
    }
    let manifest = |digest: &str| json!({"manifests": [{"digest": digest}]}).to_string();
    for digest in ["sha256:../../../etc/passwd", "md5:00", ""] {
        fs::write(directory.path().join("index.json"), manifest(digest)).unwrap();
        assert!(matches!(ContainerImage::open(directory.path(), None), Err(ImageReadError::Digest(_))));
    }
    fs::remove_file(directory.path().join("index.json")).unwrap();
    fs::remove_file(directory.path().join("manifest.json")).unwrap();
    assert!(matches!(ContainerImage::open(directory.path(), None), Err(ImageReadError::NotAnImage(_))));
}
