//! Whole disks: the same every time, checked by `veritysetup` as an independent peer, and never quietly changed.

use std::{fs, os::unix::fs::FileExt, path::PathBuf, process::Command};

use super::*;

fn layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, size) in [("etc/hostname", 9), ("bin/program", 700_000), ("empty", 0)] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(size);
        let content = (0..size).map(|at| (at % 251) as u8).collect::<Vec<_>>();
        tar.append_data(&mut header, path, content.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn packed(path: &Path) -> PackedDisk {
    let layer = layer();
    let digest = verity::sha256(&layer);
    let blob = LayerBlob { content: Box::new(layer.as_slice()), digest: Some(digest), diff_id: digest };
    let manifest = DiskManifest {
        reference: Some("example.org/web:1".into()),
        image: Sha256::new([5; 32]),
        config: r#"{"os":"linux"}"#.into(),
    };
    let mut file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
    pack(Source { manifest, layers: vec![blob] }, &std::env::temp_dir(), &mut file).unwrap()
}

fn disk() -> (tempfile::TempDir, PathBuf, PackedDisk) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let packed = packed(&path);
    (dir, path, packed)
}

/// `veritysetup verify` over the file, as it lies there.
fn veritysetup(path: &Path, disk: &ImageDisk) -> (bool, String) {
    let output = Command::new("veritysetup")
        .args(["verify", "--no-superblock", "--format=1", "--hash=sha256", "--salt=-"])
        .args(["--data-block-size=4096", "--hash-block-size=4096"])
        .arg(format!("--data-blocks={}", disk.data_blocks()))
        .arg(format!("--hash-offset={}", disk.data_bytes()))
        .arg(path)
        .arg(path)
        .arg(disk.root_hash().to_hex())
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .expect("veritysetup of cryptsetup-bin");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn another_program_finds_the_same_root_hash() {
    let (_dir, path, packed) = disk();
    let (fine, said) = veritysetup(&path, &packed.disk);
    assert!(fine, "{said}");
    // And the tree is where it looks: it makes the same one itself.
    let (tree, root) = (path.with_extension("tree"), path.with_extension("root"));
    let data = path.with_extension("data");
    fs::write(&data, &fs::read(&path).unwrap()[..packed.disk.data_bytes() as usize]).unwrap();
    let output = Command::new("veritysetup")
        .args(["format", "--no-superblock", "--salt=-", "--root-hash-file"])
        .args([&root, &data, &tree])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_to_string(root).unwrap().trim(), packed.disk.root_hash().to_hex());
    let whole = fs::read(&path).unwrap();
    let range = packed.disk.data_bytes() as usize..packed.disk.verified_bytes() as usize;
    assert_eq!(whole[range], fs::read(tree).unwrap());
}

#[test]
fn a_tree_of_several_levels_is_the_peers_too() {
    let dir = tempfile::tempdir().unwrap();
    for blocks in [2_u64, 127, 128, 129, 16_384, 16_385] {
        let (data, tree) = (dir.path().join("data"), dir.path().join("tree"));
        let bytes: Vec<u8> = (0..blocks * BLOCK).map(|at| (at / BLOCK) as u8).collect();
        fs::write(&data, &bytes).unwrap();
        let _ = fs::remove_file(&tree);
        let root = dir.path().join("root");
        let made = Command::new("veritysetup")
            .args(["format", "--no-superblock", "--salt=-", "--root-hash-file"])
            .args([&root, &data, &tree])
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let ours = verity::hash_tree(bytes.as_slice(), blocks).unwrap();
        assert_eq!(ours.root_hash.to_hex(), fs::read_to_string(&root).unwrap().trim(), "{blocks}");
        assert_eq!(ours.bytes, fs::read(&tree).unwrap(), "{blocks}");
    }
}

#[test]
fn the_same_image_is_the_same_file() {
    let (dir, path, first) = disk();
    let again = dir.path().join("again");
    assert_eq!(packed(&again), first);
    assert_eq!(fs::read(path).unwrap(), fs::read(again).unwrap());
}

#[test]
fn a_disk_says_what_it_is() {
    let (_dir, path, packed) = disk();
    assert_eq!(PackedDisk::open(&path).unwrap(), packed);
    packed.verify(&path).unwrap();
}

#[test]
fn every_part_is_held_to_its_digest() {
    let (_dir, path, packed) = disk();
    let flip = |at: u64| {
        let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    };
    for at in [0, 1024, packed.disk.data_bytes() - 1] {
        flip(at);
        assert!(matches!(packed.verify(&path), Err(DiskError::RootHash { .. })), "{at}");
        assert!(!veritysetup(&path, &packed.disk).0, "{at}");
        flip(at);
    }
    for at in [packed.disk.data_bytes(), packed.disk.verified_bytes() - 1] {
        flip(at);
        assert!(matches!(packed.verify(&path), Err(DiskError::Tree)), "{at}");
        flip(at);
    }
    flip(packed.disk.verified_bytes() + 3);
    assert!(matches!(PackedDisk::open(&path), Err(DiskError::ManifestDigest { .. })));
    flip(packed.disk.verified_bytes() + 3);
    packed.verify(&path).unwrap();
    let length = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - BLOCK).unwrap();
    assert!(matches!(PackedDisk::open(&path), Err(DiskError::Footer(DiskFileError::NotADisk))));
}
