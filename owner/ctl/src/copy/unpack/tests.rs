//! Streams an honest container sends, and streams a hostile one might.

use std::{fs, os::unix::fs::PermissionsExt};

use tar::EntryType;

use super::*;

struct Stream(tar::Builder<Vec<u8>>);

impl Stream {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Writes names as they are, which the tar crate would refuse to do.
    fn raw(mut self, kind: EntryType, name: &str, link: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o6755);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn dir(self, name: &str) -> Self {
        self.raw(EntryType::Directory, name, "", b"")
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.raw(EntryType::Regular, name, "", content.as_bytes())
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(EntryType::Symlink, name, target, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// An outer directory that must stay as it is, and the destination in it.
fn destination() -> (tempfile::TempDir, PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("destination");
    fs::create_dir(&inner).unwrap();
    (outer, inner)
}

fn landing(parent: &Path, name: Option<&str>) -> Landing {
    Landing { parent: parent.to_owned(), name: name.map(str::to_owned), must_be_directory: false }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_tree_lands_under_its_new_name_without_set_id_bits() {
    let (_outer, inner) = destination();
    let stream = Stream::new()
        .dir("etc/")
        .file("etc/hosts", "a")
        .symlink("etc/link", "hosts")
        .dir("etc/d")
        .file("etc/d/x", "b");
    let done = unpack(&stream.bytes()[..], &landing(&inner, Some("copy"))).unwrap();
    assert_eq!(done, Unpacked { files: 3, bytes: 2, ..Unpacked::default() });
    assert_eq!(fs::read_to_string(inner.join("copy/link")).unwrap(), "a");
    assert_eq!(fs::read_to_string(inner.join("copy/d/x")).unwrap(), "b");
    let mode = fs::metadata(inner.join("copy/hosts")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    assert_eq!(names(&inner.join("copy")), ["d", "hosts", "link"], "no temporary file is left");
}

#[test]
fn content_merges_into_an_existing_directory() {
    let (_outer, inner) = destination();
    fs::write(inner.join("old"), "old").unwrap();
    fs::write(inner.join("hosts"), "old").unwrap();
    let stream = Stream::new().dir("etc/").file("etc/hosts", "new").bytes();
    unpack(&stream[..], &landing(&inner, None)).unwrap();
    assert_eq!(fs::read_to_string(inner.join("hosts")).unwrap(), "new");
    assert_eq!(names(&inner), ["hosts", "old"]);
}

#[test]
fn a_single_file_replaces_a_single_file() {
    let (_outer, inner) = destination();
    fs::write(inner.join("x"), "old").unwrap();
    unpack(&Stream::new().file("hosts", "new").bytes()[..], &landing(&inner, Some("x"))).unwrap();
    assert_eq!(fs::read_to_string(inner.join("x")).unwrap(), "new");
}

#[test]
fn nothing_is_written_outside() {
    for attack in [
        Stream::new().file("../evil", "x"),
        Stream::new().dir("d").file("d/../../evil", "x"),
        Stream::new().file("/d/../../evil", "x"),
        // A link out, and then a path through it.
        Stream::new().dir("d").symlink("d/link", "..").file("d/link/../evil", "x"),
        Stream::new().dir("d").symlink("d/up", "../..").file("d/up/evil", "x"),
        Stream::new().dir("d").symlink("d/a", ".").symlink("d/a/b", "../..").file("d/a/b/evil", "x"),
        Stream::new().dir("d").raw(EntryType::Link, "d/hard", "../../secret", b""),
        Stream::new().dir("d").dir("e").file("e/evil", "x"),
    ] {
        let (outer, inner) = destination();
        fs::write(outer.path().join("secret"), "secret").unwrap();
        let _ = unpack(&attack.bytes()[..], &landing(&inner, Some("d")));
        assert_eq!(names(outer.path()), ["destination", "secret"]);
        assert_eq!(fs::read_to_string(outer.path().join("secret")).unwrap(), "secret");
        for name in names(&inner) {
            assert_eq!(name, "d");
        }
    }
}

#[test]
fn a_link_that_is_there_already_is_not_followed() {
    let (outer, inner) = destination();
    fs::create_dir(outer.path().join("other")).unwrap();
    fs::create_dir(inner.join("d")).unwrap();
    std::os::unix::fs::symlink("../../other", inner.join("d/link")).unwrap();
    let through = Stream::new().dir("d").file("d/link/evil", "x").bytes();
    let error = unpack(&through[..], &landing(&inner, Some("d"))).unwrap_err();
    assert!(matches!(error, UnpackError::Write { .. }), "{error}");
    assert!(names(&outer.path().join("other")).is_empty());
    // A file of that name takes the link's place and does not go through it.
    let instead = Stream::new().dir("d").file("d/link", "x").bytes();
    unpack(&instead[..], &landing(&inner, Some("d"))).unwrap();
    assert!(fs::symlink_metadata(inner.join("d/link")).unwrap().is_file());
}

#[test]
fn links_out_and_devices_are_left_out_and_named() {
    let (_outer, inner) = destination();
    let stream = Stream::new()
        .dir("d")
        .symlink("d/passwd", "/etc/passwd")
        .raw(EntryType::Fifo, "d/fifo", "", b"")
        .raw(EntryType::Block, "d/disk", "", b"")
        .file("d/good", "x");
    let done = unpack(&stream.bytes()[..], &landing(&inner, Some("d"))).unwrap();
    assert_eq!((done.files, done.skipped_total, done.skipped.len()), (1, 3, 3));
    assert_eq!(names(&inner.join("d")), ["good"]);
}

#[test]
fn an_interrupted_stream_leaves_no_half_file() {
    let (_outer, inner) = destination();
    fs::write(inner.join("x"), "old").unwrap();
    let bytes = Stream::new().file("big", &"y".repeat(4096)).bytes();
    let (_pieces, cut) = super::super::pipe::from_tunnel();
    drop(_pieces);
    let stream = io::Read::chain(&bytes[..1024], cut);
    assert!(matches!(unpack(stream, &landing(&inner, Some("x"))), Err(UnpackError::Stream(_))));
    assert_eq!(names(&inner), ["x"]);
    assert_eq!(fs::read_to_string(inner.join("x")).unwrap(), "old");
}

#[test]
fn a_name_without_end_is_not_read() {
    let (_outer, inner) = destination();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(8 << 30);
    header.set_cksum();
    let stream = io::Read::chain(&header.as_bytes()[..], io::repeat(b'x').take(8 << 30));
    let refused = unpack(stream, &landing(&inner, None));
    assert!(matches!(refused, Err(UnpackError::Stream(FormatError::ExtensionTooLong { .. }))), "{refused:?}");
}

#[test]
fn a_file_cannot_take_the_place_of_a_wanted_directory() {
    let (_outer, inner) = destination();
    let file = Stream::new().file("f", "x").bytes();
    let mut wanted = landing(&inner, Some("f"));
    wanted.must_be_directory = true;
    assert!(matches!(unpack(&file[..], &wanted), Err(UnpackError::NotADirectory)));
    assert!(matches!(unpack(&file[..], &landing(&inner, None)), Err(UnpackError::NotADirectory)));
    assert!(matches!(unpack(&Stream::new().bytes()[..], &landing(&inner, None)), Err(UnpackError::Empty)));
}
