//! Layers over layers: what stays, what goes, what is refused.

use super::*;

/// Applies layers of lines: `d path`, `f path`, `l path -> target`, `h path -> target`, `w path` (whiteout).
fn tree(layers: &[&[&str]]) -> Result<Tree, PlaceError> {
    let mut tree = Tree::new();
    for (number, layer) in layers.iter().enumerate() {
        if number > 0 {
            tree.next_layer();
        }
        for line in *layer {
            let (kind, rest) = line.split_once(' ').unwrap();
            let (path, target) = rest.split_once(" -> ").unwrap_or((rest, ""));
            let meta = Meta { mode: 0o700 + number as u16, ..Meta::default() };
            let change = match kind {
                "d" => Change::Directory(meta),
                "f" => Change::File(meta, crate::scratch::tests::extent(number as u64)),
                "l" => Change::Symlink(meta, target.into()),
                "h" => Change::HardLink(target.into()),
                _ => Change::Fifo(meta),
            };
            tree.apply(path.as_bytes(), change)?;
        }
    }
    Ok(tree)
}

/// Every path, directories with a slash at the end.
fn paths(tree: &Tree) -> Vec<String> {
    fn walk(tree: &Tree, inode: usize, path: &str, out: &mut Vec<String>) {
        let Kind::Directory(entries) = &tree.inode(inode).kind else { return };
        for (name, entry) in entries {
            let path = format!("{path}{}", String::from_utf8_lossy(name));
            let slash = matches!(tree.inode(entry.inode).kind, Kind::Directory(_));
            let path = if slash { format!("{path}/") } else { path };
            out.push(path.clone());
            walk(tree, entry.inode, &path, out);
        }
    }
    let mut out = Vec::new();
    walk(tree, Tree::ROOT, "", &mut out);
    out
}

fn after(layers: &[&[&str]]) -> Vec<String> {
    paths(&tree(layers).unwrap())
}

#[test]
fn a_whiteout_hides_what_is_below_and_not_what_is_beside() {
    assert_eq!(after(&[&["f a/x", "f a/y", "f b"], &["p a/.wh.x"]]), ["a/", "a/y", "b"]);
    assert_eq!(after(&[&["f a/x", "f b"], &["p .wh.a"]]), ["b"]);
    // In either order of the entries, a layer's own files stay.
    assert_eq!(after(&[&["f a/x"], &["f a/y", "p .wh.a"]]), ["a/", "a/y"]);
    assert_eq!(after(&[&["f a/x"], &["p .wh.a", "f a/y"]]), ["a/", "a/y"]);
    assert_eq!(after(&[&["f a/x"], &["f a/x", "p a/.wh.x"]]), ["a/", "a/x"]);
    assert_eq!(after(&[&["f a"], &["p .wh.nothing", "p .wh..wh.plnk"]]), ["a"]);
}

#[test]
fn an_opaque_directory_starts_anew() {
    let lower: &[&str] = &["f a/x", "f a/deep/z", "f b"];
    assert_eq!(after(&[lower, &["f a/y", "p a/.wh..wh..opq"]]), ["a/", "a/y", "b"]);
    assert_eq!(after(&[lower, &["p a/.wh..wh..opq", "f a/deep/new"]]), ["a/", "a/deep/", "a/deep/new", "b"]);
}

#[test]
fn a_later_layer_replaces() {
    assert_eq!(after(&[&["f a/x"], &["f a"]]), ["a"]);
    assert_eq!(after(&[&["f a"], &["d a", "f a/x"]]), ["a/", "a/x"]);
    assert_eq!(after(&[&["l lib -> usr/lib"], &["f lib/x"]]), ["lib/", "lib/x"]);
    let both = tree(&[&["d a", "f a/x"], &["d a"]]).unwrap();
    assert_eq!(paths(&both), ["a/", "a/x"]);
    let Kind::Directory(root) = &both.inode(Tree::ROOT).kind else { panic!() };
    assert_eq!(both.inode(root[&b"a"[..]].inode).meta.mode, 0o701);
}

#[test]
fn a_directory_nobody_describes_keeps_what_an_earlier_layer_said() {
    let tree = tree(&[&["d a"], &["f a/x"]]).unwrap();
    let Kind::Directory(root) = &tree.inode(Tree::ROOT).kind else { panic!() };
    assert_eq!(tree.inode(root[&b"a"[..]].inode).meta.mode, 0o700);
}

#[test]
fn hard_links_are_one_file() {
    let tree = tree(&[&["f a", "h d/b -> a"], &["h c -> /d/b", "p .wh.a"]]).unwrap();
    assert_eq!(paths(&tree), ["c", "d/", "d/b"]);
    let Kind::Directory(root) = &tree.inode(Tree::ROOT).kind else { panic!() };
    let Kind::Directory(d) = &tree.inode(root[&b"d"[..]].inode).kind else { panic!() };
    assert_eq!(root[&b"c"[..]].inode, d[&b"b"[..]].inode);
}

#[test]
fn what_leads_elsewhere_is_refused() {
    let refused = |line: &str| tree(&[&["d d", "f f", line]]).unwrap_err();
    assert_eq!(refused("f ../x"), PlaceError::Path);
    assert_eq!(refused("f d/../../x"), PlaceError::Path);
    assert_eq!(refused("f a\0b"), PlaceError::Path);
    assert_eq!(refused("f f/x"), PlaceError::BelowFile);
    assert_eq!(refused("h h -> d"), PlaceError::NoTarget("d".into()));
    assert_eq!(refused("h h -> none"), PlaceError::NoTarget("none".into()));
    assert_eq!(refused("h h -> ../f"), PlaceError::Path);
    assert_eq!(refused("f /"), PlaceError::Root);
    assert_eq!(refused("p d/.wh."), PlaceError::Whiteout);
    assert_eq!(refused("p .wh..."), PlaceError::Whiteout);
    assert_eq!(refused("f .wh.d/x"), PlaceError::Whiteout);
    assert_eq!(refused("l l -> "), PlaceError::Target);
    assert_eq!(refused(&format!("f {}", "x".repeat(256))), PlaceError::TooLong);
    assert_eq!(refused(&format!("f {}", "x/".repeat(201))), PlaceError::TooLong);
}
