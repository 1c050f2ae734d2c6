//! The file system read by an independent program, erofs-utils' own checker, which also unpacks it again.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
};

use proptest::prelude::*;

use super::*;
use crate::{
    scratch::Scratch,
    tree::{Change, Meta},
};

struct Maker {
    tree: Tree,
    scratch: Scratch,
}

impl Maker {
    fn new() -> Self {
        let mut tree = Tree::new();
        tree.next_layer();
        Self { tree, scratch: Scratch::new(&std::env::temp_dir()).unwrap() }
    }

    fn file(&mut self, path: &str, content: &[u8]) {
        let extent = self.scratch.append(content).unwrap();
        self.tree.apply(path.as_bytes(), Change::File(meta(0o644), extent)).unwrap();
    }

    fn add(&mut self, path: &str, change: Change) {
        self.tree.apply(path.as_bytes(), change).unwrap();
    }

    fn write(self, path: &Path) -> u64 {
        let stored = self.scratch.finish().unwrap();
        write(&self.tree, &stored, fs::File::create(path).unwrap()).unwrap()
    }
}

fn meta(mode: u16) -> Meta {
    Meta { mode, mtime: (1_700_000_000, 0), ..Meta::default() }
}

/// Has the file system checked and unpacked below `out`.
fn unpack(image: &Path, out: &Path) {
    let output = Command::new("fsck.erofs")
        .arg(format!("--extract={}", out.display()))
        .args(["--no-preserve-owner", "--force"])
        .arg(image)
        .output()
        .expect("fsck.erofs of erofs-utils");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn another_program_reads_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let (image, out) = (dir.path().join("image"), dir.path().join("out"));
    let mut maker = Maker::new();
    let sizes = [0, 1, 4000, 4031, 4032, 4033, 4095, 4096, 4097, 8192, 8200, 1_000_003];
    let content = |size: usize| (0..size).map(|at| (at * 7 + size) as u8).collect::<Vec<u8>>();
    for size in sizes {
        maker.file(&format!("sizes/{size}"), &content(size));
    }
    // More names than one block of a directory holds.
    for number in 0..500 {
        maker.file(&format!("many/a-rather-long-name-of-a-file-{number:04}"), b"");
    }
    maker.add("link", Change::Symlink(meta(0o777), b"sizes/4097".to_vec()));
    maker.add("long-link", Change::Symlink(meta(0o777), [b"x".repeat(100).as_slice(); 40].join(&b'/')));
    maker.add("hard", Change::HardLink(b"sizes/8200".to_vec()));
    let blocks = maker.write(&image);
    assert_eq!(fs::metadata(&image).unwrap().len(), blocks * BLOCK);
    unpack(&image, &out);
    for size in sizes {
        assert_eq!(fs::read(out.join(format!("sizes/{size}"))).unwrap(), content(size), "{size}");
    }
    assert_eq!(fs::read_dir(out.join("many")).unwrap().count(), 500);
    assert_eq!(fs::read_link(out.join("link")).unwrap(), Path::new("sizes/4097"));
    assert_eq!(fs::read(out.join("hard")).unwrap(), content(8200));
    let stat = fs::metadata(out.join("sizes/4097")).unwrap();
    assert_eq!((stat.permissions().mode() & 0o7777, stat.mtime()), (0o644, 1_700_000_000));
}

/// Values of both name spaces, and one that is longer than a block.
#[test]
fn attributes_lie_beside_their_inode() {
    let dir = tempfile::tempdir().unwrap();
    let (image, out) = (dir.path().join("image"), dir.path().join("out"));
    let mut maker = Maker::new();
    let mut owned = meta(0o755);
    owned.attributes.insert(b"user.note".to_vec(), b"hello".to_vec());
    owned.attributes.insert(b"security.capability".to_vec(), vec![1; 20]);
    let mut large = meta(0o600);
    large.attributes.insert(b"user.large".to_vec(), vec![7; 6000]);
    let extent = maker.scratch.append(&b"content"[..]).unwrap();
    maker.add("owned", Change::File(owned, extent));
    maker.add("large", Change::File(large, extent));
    maker.file("after", b"x");
    maker.write(&image);
    unpack(&image, &out);
    assert_eq!(fs::read(out.join("large")).unwrap(), b"content");
    let found = Command::new("dump.erofs").args(["--path=/owned"]).arg(&image).output().unwrap();
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(found.contains("Xattr size"), "{found}");
    // As the kernel counts: the header, then "note" = "hello" and "capability" = 20 bytes, padded.
    assert!(found.contains(&format!("Xattr size: {}", 12 + 16 + 36)), "{found}");
}

#[test]
fn the_same_tree_is_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, order: &[&str]| {
        let mut maker = Maker::new();
        order.iter().for_each(|path| maker.file(path, path.as_bytes()));
        maker.write(&dir.path().join(name));
        fs::read(dir.path().join(name)).unwrap()
    };
    assert_eq!(write("a", &["x", "d/y", "z"]), write("b", &["z", "x", "d/y"]));
    assert_ne!(write("c", &["x"]), write("d", &["y"]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_sizes_fit(files in proptest::collection::btree_map("[a-e]{1,3}(/[f-h]{1,60}){0,2}", 0usize..9000, 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let (image, out) = (dir.path().join("image"), dir.path().join("out"));
        let mut maker = Maker::new();
        let mut kept = Vec::new();
        for (path, size) in &files {
            let extent = maker.scratch.append(vec![*size as u8; *size].as_slice()).unwrap();
            // A path below another file's is not one.
            if maker.tree.apply(path.as_bytes(), Change::File(meta(0o644), extent)).is_ok() {
                kept.retain(|(known, _): &(&String, &usize)| !known.starts_with(&format!("{path}/")));
                kept.push((path, size));
            }
        }
        maker.write(&image);
        unpack(&image, &out);
        for (path, size) in kept {
            prop_assert_eq!(fs::read(out.join(path)).unwrap(), vec![*size as u8; *size]);
        }
    }
}
