//! Layers as tools write them: compressed or not, with extended headers, and with what is refused.

use std::io::Write as _;

use super::{pax::tests::record, *};
use crate::tree::Kind;

/// A header as GNU tar writes it, and content.
fn add(tar: &mut tar::Builder<Vec<u8>>, kind: EntryType, path: &str, link: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o640);
    header.set_uid(1000);
    header.set_gid(7);
    header.set_mtime(1_700_000_000);
    header.set_size(content.len() as u64);
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

fn layer(fill: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    fill(&mut tar);
    tar.into_inner().unwrap()
}

fn take(stored: &[u8], digest: Option<Sha256>, diff_id: Sha256) -> Result<Tree, LayerError> {
    let mut tree = Tree::new();
    let mut scratch = Scratch::new(&std::env::temp_dir()).unwrap();
    apply(LayerBlob { content: Box::new(stored), digest, diff_id }, &mut tree, &mut scratch).map(|()| tree)
}

fn sha256(bytes: &[u8]) -> Sha256 {
    crate::verity::sha256(bytes)
}

fn read(layer: &[u8]) -> Result<Tree, LayerError> {
    take(layer, Some(sha256(layer)), sha256(layer))
}

fn root(tree: &Tree) -> Vec<String> {
    let Kind::Directory(entries) = &tree.inode(Tree::ROOT).kind else { panic!() };
    entries.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

#[test]
fn every_compression_is_one_layer() {
    let plain = layer(|tar| add(tar, EntryType::Regular, "a", "", b"content"));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    for stored in [plain.clone(), gzip.finish().unwrap(), zstd::encode_all(&plain[..], 1).unwrap()] {
        let tree = take(&stored, Some(sha256(&stored)), sha256(&plain)).unwrap();
        assert_eq!(root(&tree), ["a"]);
        let other = Sha256::new([1; 32]);
        assert!(matches!(
            take(&stored, Some(other), sha256(&plain)),
            Err(LayerError::Digest { expected, .. }) if expected == other
        ));
        assert!(matches!(
            take(&stored, None, other),
            Err(LayerError::DiffId { expected, .. }) if expected == other
        ));
    }
}

#[test]
fn long_names_and_attributes_come_from_the_headers_before() {
    let long = "n".repeat(200);
    let pax = [
        record("SCHILY.xattr.security.capability", b"\n\0"),
        record("mtime", b"5.000001"),
        record("uid", b"3000000"),
        record("SCHILY.xattr.trusted.x", b"y"),
    ]
    .concat();
    let layer = layer(|tar| {
        add(tar, EntryType::GNULongName, "././@LongLink", "", format!("{long}\0").as_bytes());
        add(tar, EntryType::Regular, "short", "", b"x");
        add(tar, EntryType::XHeader, "x", "", &pax);
        add(tar, EntryType::Directory, "d", "", b"");
        add(tar, EntryType::Char, "null", "", b"");
        add(tar, EntryType::Link, "hard", "d/../none", b"");
    });
    // The last entry leads elsewhere; without it the rest is taken.
    let refused = read(&layer).unwrap_err();
    assert!(matches!(&refused, LayerError::Entry { path, source: PlaceError::Path } if path == "hard"));
    let layer = &layer[..layer.len() - 1024 - 512];
    let tree = read(layer).unwrap();
    assert_eq!(root(&tree), ["d".to_owned(), long]);
    let Kind::Directory(entries) = &tree.inode(Tree::ROOT).kind else { panic!() };
    let meta = &tree.inode(entries[&b"d"[..]].inode).meta;
    assert_eq!((meta.uid, meta.gid, meta.mode, meta.mtime), (3_000_000, 7, 0o640, (5, 1000)));
    // A value with a newline is whole, and what means nothing in a guest is left out.
    assert_eq!(
        meta.attributes.clone().into_iter().collect::<Vec<_>>(),
        [(b"security.capability".to_vec(), b"\n\0".to_vec())]
    );
}

#[test]
fn an_image_cannot_speak_to_overlayfs() {
    let layer = layer(|tar| {
        add(tar, EntryType::XHeader, "x", "", &record("SCHILY.xattr.trusted.overlay.opaque", b"y"));
        add(tar, EntryType::Directory, "d", "", b"");
    });
    assert!(matches!(read(&layer), Err(LayerError::Entry { source: PlaceError::Attribute(_), .. })));
}

#[test]
fn sparse_files_are_refused_by_name() {
    let layer = layer(|tar| {
        add(tar, EntryType::XHeader, "x", "", &record("GNU.sparse.major", b"1"));
        add(tar, EntryType::Regular, "holes", "", b"");
    });
    assert!(matches!(read(&layer), Err(LayerError::Sparse { path }) if path == "holes"));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_answered(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2048)) {
        let _ = read(&bytes);
        // With a valid checksum the parser gets further.
        if let Some((header, _)) = bytes.split_first_chunk_mut::<512>() {
            let mut parsed = tar::Header::new_gnu();
            parsed.as_mut_bytes().copy_from_slice(header);
            parsed.set_cksum();
            header.copy_from_slice(parsed.as_bytes());
            let _ = read(&bytes);
        }
    }
}
