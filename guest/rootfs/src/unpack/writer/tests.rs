//! Layers on a real file system: what is kept, what is refused, and that nothing leaves the layer's root.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
};

use proptest::prelude::*;
use rustix::fs::{CWD, Mode as FileMode, OFlags, getxattr, openat};
use tar::{Builder, EntryType, Header};

use super::*;
use crate::budget::Budget;

/// A tar archive, written entry by entry; names and targets go in as they are.
struct Layer(Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn entry(mut self, path: &str, kind: EntryType, target: &str, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, path: &str, data: &[u8]) -> Self {
        self.entry(path, EntryType::Regular, "", data)
    }

    fn directory(self, path: &str) -> Self {
        self.entry(path, EntryType::Directory, "", b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Symlink, target, b"")
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Link, target, b"")
    }

    fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

struct Unpacking {
    /// The layer's root is one level down, with a witness beside it.
    outer: tempfile::TempDir,
    result: Result<Unpacked, UnpackError>,
}

impl Unpacking {
    fn of(layer: Layer) -> Self {
        Self::bytes(&layer.bytes(), &Limits::default())
    }

    fn bytes(bytes: &[u8], limits: &Limits) -> Self {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("root")).unwrap();
        fs::write(outer.path().join("witness"), "untouched").unwrap();
        let root = openat(CWD, outer.path().join("root"), OFlags::RDONLY, FileMode::empty()).unwrap();
        let budget = Budget::new(root.try_clone().unwrap(), limits.total_bytes, 0);
        let result = unpack(bytes, root, limits, &mut budget.charge()).map(|(unpacked, _)| unpacked);
        Self { outer, result }
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.outer.path().join("root").join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn is_contained(&self) -> bool {
        let mut names: Vec<_> =
            fs::read_dir(self.outer.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names == ["root", "witness"] && fs::read(self.outer.path().join("witness")).unwrap() == b"untouched"
    }

    /// The error with its causes, as a user sees it.
    fn error(&self) -> String {
        chain(self.result.as_ref().unwrap_err())
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 256];
    getxattr(path, name, &mut value).ok().map(|length| value[..length].to_vec())
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

fn is_opaque(path: &Path) -> bool {
    xattr(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
}

/// Whiteouts and owners need root, as the guest's agent is.
fn without_root(test: &str) -> bool {
    let skip = !rustix::process::geteuid().is_root();
    if skip {
        eprintln!("skipped {test}: needs root");
    }
    skip
}

#[test]
fn writes_files_directories_and_links() {
    let unpacking = Unpacking::of(
        Layer::new()
            .directory("etc/")
            .file("./etc/passwd", b"root")
            .symlink("etc/link", "/etc/passwd")
            .symlink("out", "../../../witness")
            .link("hard", "/etc/passwd")
            .file("implied/deep/file", b"x")
            .entry("pipe", EntryType::Fifo, "", b""),
    );
    unpacking.result.as_ref().unwrap();
    assert_eq!(unpacking.read("etc/passwd"), "root");
    assert_eq!(fs::read_link(unpacking.path("etc/link")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::read_link(unpacking.path("out")).unwrap(), Path::new("../../../witness"));
    assert_eq!(fs::metadata(unpacking.path("hard")).unwrap().nlink(), 2);
    assert_eq!(unpacking.read("implied/deep/file"), "x");
    assert!(fs::symlink_metadata(unpacking.path("pipe")).unwrap().file_type().is_fifo());
    assert!(unpacking.is_contained());
}

#[test]
fn keeps_times_even_of_directories_filled_later() {
    let unpacking = Unpacking::of(
        Layer::new()
            .directory("./")
            .directory("a/")
            .directory("b/")
            .file("a/one", b"")
            .file("b/one", b"")
            .file("a/new/two", b"")
            .symlink("a/link", "one")
            .file("top", b""),
    );
    unpacking.result.as_ref().unwrap();
    for path in ["", "a", "b", "a/one", "a/new/two", "top", "a/link"] {
        assert_eq!(fs::symlink_metadata(unpacking.path(path)).unwrap().mtime(), 1_000_000_000, "{path:?}");
    }
}

#[test]
fn keeps_owner_mode_and_attributes() {
    if without_root("keeps_owner_mode_and_attributes") {
        return;
    }
    // VFS_CAP_REVISION_2 with cap_net_raw, effective (linux/capability.h).
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut layer = Layer::new().pax(&[
        ("SCHILY.xattr.security.capability", &capability),
        ("SCHILY.xattr.security.selinux", b"ignored"),
        ("SCHILY.xattr.user.note", b"line\nline"),
        ("uid", b"12345"),
        ("mtime", b"1500000000.25"),
    ]);
    let mut header = Header::new_ustar();
    header.set_path("ping").unwrap();
    header.set_mode(0o104_755);
    header.set_uid(1);
    header.set_gid(2);
    header.set_size(0);
    header.set_cksum();
    layer.0.append(&header, &b""[..]).unwrap();
    let unpacking = Unpacking::of(layer);
    assert_eq!(unpacking.result.as_ref().unwrap().skipped_attributes, 1);
    let ping = fs::metadata(unpacking.path("ping")).unwrap();
    assert_eq!((ping.uid(), ping.gid(), ping.permissions().mode() & 0o7777), (12345, 2, 0o4755));
    assert_eq!((ping.mtime(), ping.mtime_nsec()), (1_500_000_000, 250_000_000));
    assert_eq!(xattr(&unpacking.path("ping"), "security.capability").unwrap(), capability);
    assert_eq!(xattr(&unpacking.path("ping"), "user.note").unwrap(), b"line\nline");
}

#[test]
fn later_entries_replace_earlier_ones_of_any_kind() {
    let unpacking = Unpacking::of(
        Layer::new()
            .file("a", b"first")
            .link("b", "a")
            .file("a", b"second")
            .directory("d/")
            .file("d/inner", b"")
            .file("d", b"now a file")
            .file("e", b"")
            .directory("e/")
            .file("e/inner", b"x")
            .symlink("s", "e")
            .directory("s/")
            .file("s/inner", b"y"),
    );
    unpacking.result.as_ref().unwrap();
    assert_eq!(unpacking.read("a"), "second");
    assert_eq!(unpacking.read("b"), "first");
    assert_eq!(unpacking.read("d"), "now a file");
    assert_eq!(unpacking.read("e/inner"), "x");
    assert_eq!(unpacking.read("s/inner"), "y");
}

#[test]
fn whiteouts_become_overlayfs_own() {
    if without_root("whiteouts_become_overlayfs_own") {
        return;
    }
    let unpacking = Unpacking::of(
        Layer::new()
            .file("etc/.wh.gone", b"")
            .file("opaque/.wh..wh..opq", b"")
            .file("opaque/kept", b"")
            // The same layer both deletes and makes these, in either order.
            .file(".wh.before", b"")
            .file("before/x", b"")
            .directory("after/")
            .file(".wh.after", b"")
            .file("file", b"new")
            .file(".wh.file", b"")
            .file(".wh.early", b"")
            .directory("early/")
            .file(".wh..wh.plnk", b""),
    );
    unpacking.result.as_ref().unwrap();
    assert!(is_whiteout(&unpacking.path("etc/gone")));
    for (path, opaque) in
        [("opaque", true), ("before", true), ("after", true), ("early", true), ("etc", false)]
    {
        assert_eq!(is_opaque(&unpacking.path(path)), opaque, "{path}");
    }
    assert_eq!(unpacking.read("file"), "new");
    assert!(!unpacking.path(".wh..wh.plnk").exists() && !unpacking.path(".wh.file").exists());
}

#[test]
fn devices_are_left_out() {
    let unpacking = Unpacking::of(
        Layer::new()
            .entry("null", EntryType::Char, "", b"")
            .entry("disk", EntryType::Block, "", b"")
            .file("x", b""),
    );
    assert_eq!(unpacking.result.as_ref().unwrap().skipped_devices, 2);
    assert_eq!(fs::read_dir(unpacking.path("")).unwrap().count(), 1);
}

#[test]
fn nothing_leaves_the_layer() {
    let attacks: [(&str, Layer, &str); 12] = [
        ("parent", Layer::new().file("../witness", b"x"), "it contains \"..\""),
        ("inner parent", Layer::new().file("a/../../witness", b"x"), "it contains \"..\""),
        (
            "below a link out",
            Layer::new().symlink("l", "..").file("l/witness", b"x"),
            "through a symbolic link",
        ),
        (
            "below an absolute link",
            Layer::new().symlink("l", "/").file("l/tmp/x", b"x"),
            "through a symbolic link",
        ),
        (
            "below a link inside",
            Layer::new().directory("d/").symlink("l", "d").file("l/x", b""),
            "through a symbolic link",
        ),
        (
            "directory below a link",
            Layer::new().symlink("l", "..").directory("l/new/"),
            "through a symbolic link",
        ),
        (
            "link below a link",
            Layer::new().symlink("l", "..").symlink("l/new", "x"),
            "through a symbolic link",
        ),
        (
            "whiteout below a link",
            Layer::new().symlink("l", "..").file("l/.wh.witness", b""),
            "through a symbolic link",
        ),
        (
            "opaque below a link",
            Layer::new().symlink("l", "..").file("l/.wh..wh..opq", b""),
            "through a symbolic link",
        ),
        (
            "hard link out",
            Layer::new().link("h", "../witness"),
            "its link target cannot be used: it contains \"..\"",
        ),
        (
            "hard link through a link",
            Layer::new().symlink("l", "..").link("h", "l/witness"),
            "through a symbolic link",
        ),
        (
            "whiteout of the parent",
            Layer::new().file("a/.wh...", b""),
            "a whiteout of nothing that can be named",
        ),
    ];
    for (name, layer, reason) in attacks {
        let unpacking = Unpacking::of(layer);
        assert!(unpacking.error().contains(reason), "{name}: {}", unpacking.error());
        assert!(unpacking.is_contained(), "{name}");
    }
    // The same shapes without the escape are fine.
    let honest = Unpacking::of(
        Layer::new()
            .directory("d/")
            .symlink("l", "..")
            .file("d/x", b"")
            .link("h", "d/x")
            .file("d/.wh.gone..", b""),
    );
    assert!(without_root("nothing_leaves_the_layer") || honest.result.is_ok(), "{}", honest.error());
}

#[test]
fn a_file_over_a_link_replaces_the_link_and_not_its_target() {
    let unpacking = Unpacking::of(Layer::new().symlink("l", "../witness").file("l", b"mine"));
    unpacking.result.as_ref().unwrap();
    assert!(unpacking.is_contained());
    assert_eq!(unpacking.read("l"), "mine");
}

#[test]
fn says_which_entry_is_refused_and_why() {
    let long = "x".repeat(90) + "/";
    for (layer, expected) in [
        (
            Layer::new().link("h", "missing"),
            "entry \"h\" of the layer is refused: it links to \"missing\", which is no file of the same layer",
        ),
        (
            Layer::new().directory("d/").link("h", "d"),
            "entry \"h\" of the layer is refused: it links to \"d\", which is no file of the same layer",
        ),
        (
            Layer::new().file("h", b"").link("h", "./h"),
            "entry \"h\" of the layer is refused: it links to \"./h\", which is no file of the same layer",
        ),
        (
            Layer::new().directory("h/").file("h/f", b"").link("h", "h/f"),
            "entry \"h\" of the layer is refused: it links to \"h/f\", which is no file of the same layer",
        ),
        (Layer::new().symlink("s", ""), "entry \"s\" of the layer is refused: its link target is empty"),
        (
            Layer::new().file("./", b""),
            "entry \"./\" of the layer is refused: it would replace the root directory",
        ),
        (
            Layer::new().file("f", b"").file("f/x", b""),
            "entry \"f/x\" of the layer is refused: it cannot be put in its place: its path leads through something that is no directory",
        ),
        (
            Layer::new().pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")]).directory("d/"),
            "entry \"d/\" of the layer is refused: it carries the attribute \"trusted.overlay.opaque\", with which a layer could forge overlayfs' own marks",
        ),
        (
            Layer::new().pax(&[("uid", b"4294967295")]).file("f", b""),
            "entry \"f\" of the layer is refused: its owner 4294967295 is no user or group of Linux",
        ),
        (
            Layer::new().pax(&[("path", long.repeat(50).as_bytes())]).file("f", b""),
            "it has 4550 bytes; at most 4095 are allowed",
        ),
    ] {
        let error = Unpacking::of(layer).error();
        assert!(error.ends_with(expected), "{error}\n{expected}");
    }
}

#[test]
fn limits_hold() {
    let small = Limits {
        entries_per_layer: 3,
        file_bytes: 100,
        layer_bytes: 150,
        total_bytes: 1 << 16,
        ..Limits::default()
    };
    let names: Vec<_> = (0..4).map(|i| format!("f{i}")).collect();
    let entries = |count: usize, size: usize| {
        names[..count].iter().fold(Layer::new(), |layer, name| layer.file(name, &vec![1; size])).bytes()
    };
    for (bytes, expected) in [
        (entries(4, 0), "layer has more than 3 entries"),
        (entries(2, 90), "layer unpacks to more than 150 bytes"),
        (Layer::new().file("a/b/c/d", b"").bytes(), "layer has more than 3 entries"),
        (entries(1, 101), "entry \"f0\" of the layer is refused: it has 101 bytes; at most 100 are allowed"),
    ] {
        assert_eq!(Unpacking::bytes(&bytes, &small).error(), expected);
    }
    let tiny = Limits { total_bytes: 2000, ..Limits::default() };
    assert_eq!(
        Unpacking::bytes(&entries(4, 0), &tiny).error(),
        "no space for the layer: images would take more than the 2000 bytes they may; remove images that are not needed"
    );
    assert!(Unpacking::bytes(&entries(3, 40), &small).result.is_ok());
}

#[test]
fn zeros_cost_no_space() {
    let mut content = vec![0; 4 << 20];
    content[2 << 20] = 1;
    let unpacking = Unpacking::of(Layer::new().file("sparse", &content));
    unpacking.result.as_ref().unwrap();
    assert!(fs::read(unpacking.path("sparse")).unwrap() == content);
    assert!(fs::metadata(unpacking.path("sparse")).unwrap().blocks() * 512 < 1 << 20);
}

/// One arbitrary entry: paths that collide, climb, go through links; every kind.
fn any_entry() -> impl Strategy<Value = (String, u8, String, usize)> {
    let part = prop_oneof![
        4 => "[abc]", 1 => Just("..".to_owned()), 1 => Just(".".to_owned()), 1 => Just(String::new()),
        1 => "\\.wh\\.[abc]", 1 => Just(".wh..wh..opq".to_owned()), 1 => Just(".wh...".to_owned()),
    ];
    let path = proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"));
    let target = prop_oneof![
        path.clone(),
        Just("..".to_owned()),
        Just("../witness".to_owned()),
        Just("/".to_owned()),
        Just("../../../../../../tmp".to_owned()),
        "[abc]",
    ];
    (
        path,
        prop_oneof![Just(b'0'), Just(b'1'), Just(b'2'), Just(b'5'), Just(b'6'), Just(b'3')],
        target,
        0_usize..3000,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Each entry is a layer of its own on the same root, so that one that is refused does not end the attack.
    #[test]
    fn arbitrary_entries_stay_beneath_their_root(entries in proptest::collection::vec(any_entry(), 1..24)) {
        let unpacking = Unpacking::of(Layer::new());
        for (path, kind, target, size) in &entries {
            let data = if *kind == b'0' { vec![7; *size] } else { Vec::new() };
            let layer = Layer::new().entry(path, EntryType::new(*kind), target, &data);
            let root = openat(CWD, unpacking.path(""), OFlags::RDONLY, FileMode::empty()).unwrap();
            let budget = Budget::new(root.try_clone().unwrap(), u64::MAX, 0);
            let _ = unpack(&layer.bytes()[..], root, &Limits::default(), &mut budget.charge());
            prop_assert!(unpacking.is_contained(), "{path:?}");
        }
    }
}
