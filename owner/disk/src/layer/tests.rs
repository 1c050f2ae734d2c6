//! Layers as tools write them: compressed or not, with extended headers, and with what is refused.

use std::io::Write as _;

use tar::EntryType;

use super::*;
use crate::tree;

/// One record of an extended header, its length included in its length.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let length = (1..).find(|digits| (rest.len() + digits).to_string().len() == *digits).unwrap();
    [(rest.len() + length).to_string().as_bytes(), &rest].concat()
}

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

fn entries(tree: &Tree) -> &BTreeMap<Vec<u8>, tree::Entry> {
    let tree::Kind::Directory(entries) = &tree.inode(Tree::ROOT).kind else { panic!() };
    entries
}

fn root(tree: &Tree) -> Vec<String> {
    entries(tree).keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
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
    let meta = &tree.inode(entries(&tree)[&b"d"[..]].inode).meta;
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
fn sparse_files_have_their_holes() {
    let pax = [record("GNU.sparse.size", b"20"), record("GNU.sparse.map", b"5,4")].concat();
    let layer = layer(|tar| {
        add(tar, EntryType::XHeader, "x", "", &pax);
        add(tar, EntryType::Regular, "holes", "", b"data");
        add(tar, EntryType::Regular, "next", "", b"next");
    });
    let mut tree = Tree::new();
    let mut scratch = Scratch::new(&std::env::temp_dir()).unwrap();
    let blob = LayerBlob { content: Box::new(&layer[..]), digest: None, diff_id: sha256(&layer) };
    apply(blob, &mut tree, &mut scratch).unwrap();
    let stored = scratch.finish().unwrap();
    for (name, expected) in [("holes", &b"\0\0\0\0\0data\0\0\0\0\0\0\0\0\0\0\0"[..]), ("next", b"next")] {
        let tree::Kind::File(extent) = tree.inode(entries(&tree)[name.as_bytes()].inode).kind else {
            panic!()
        };
        let mut content = Vec::new();
        stored.copy(extent, extent.size, &mut content).unwrap();
        assert_eq!(content, expected, "{name}");
    }
}

#[test]
fn a_hole_counts_as_much_as_data() {
    let size = (MAX_LAYER + 1).to_string();
    let pax = [record("GNU.sparse.size", size.as_bytes()), record("GNU.sparse.map", b"0,4")].concat();
    let layer = layer(|tar| {
        add(tar, EntryType::XHeader, "x", "", &pax);
        add(tar, EntryType::Regular, "bomb", "", b"data");
    });
    assert!(matches!(read(&layer), Err(LayerError::TooLarge)));
}

#[test]
fn what_fits_no_disk_is_refused() {
    let with = |pax: &[u8]| {
        read(&layer(|tar| {
            add(tar, EntryType::XHeader, "x", "", pax);
            add(tar, EntryType::Regular, "a", "", b"");
        }))
    };
    let value = vec![b'v'; 40_000];
    let one = record("SCHILY.xattr.user.a", &value);
    assert!(with(&one).is_ok());
    // Each of them would fit.
    let two = [one, record("SCHILY.xattr.user.b", &value)].concat();
    assert!(matches!(with(&two), Err(LayerError::Format(FormatError::Pax(_)))));
    for owner in ["4294967295", "4294967296"] {
        let refused = with(&record("uid", owner.as_bytes()));
        assert!(matches!(refused, Err(LayerError::Entry { source: PlaceError::Owner(_), .. })), "{owner}");
    }
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
