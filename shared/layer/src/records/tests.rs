//! Tar as tools write it, and as nobody should.

use proptest::prelude::*;

use super::*;

fn header(path: &str, flag: u8, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_path(path).unwrap();
    header.set_size(size);
    header.set_mode(0o644);
    (header.as_old_mut()).linkflag = [flag];
    header.set_cksum();
    header
}

fn block(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(BLOCK), 0);
    padded
}

fn archive(parts: &[(Header, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (header, data) in parts {
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend(block(data));
    }
    bytes.extend([0; 2 * BLOCK]);
    bytes
}

fn records(bytes: &[u8]) -> Records<&[u8]> {
    Records::new(bytes, 4095)
}

fn content(records: &mut Records<&[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 100];
    loop {
        match records.data(&mut buffer).unwrap() {
            Chunk::Data(length) => bytes.extend_from_slice(&buffer[..length]),
            Chunk::Hole(length) => bytes.resize(bytes.len() + length as usize, 0),
            Chunk::End => return bytes,
        }
    }
}

#[test]
fn reads_entries_and_passes_over_unread_data() {
    let bytes = archive(&[
        (header("a", b'0', 600), &[1; 600]),
        (header("b/", b'5', 0), b""),
        (header("c", b'0', 3), b"xyz"),
    ]);
    let mut records = records(&bytes);
    assert_eq!(records.next_record().unwrap().unwrap().size, 600);
    assert_eq!(records.next_record().unwrap().unwrap().kind, Kind::Directory);
    assert_eq!(records.next_record().unwrap().unwrap().path, b"c");
    assert_eq!(content(&mut records), b"xyz");
    assert!(records.next_record().unwrap().is_none());
    assert!(records.next_record().unwrap().is_none());
}

#[test]
fn reads_long_names_of_both_kinds() {
    let long = "d/".repeat(150) + "f";
    let pax = format!("{} path={long}\n", long.len() + 10);
    let gnu = [long.as_bytes(), b"\0"].concat();
    let bytes = archive(&[
        (header("././@LongLink", b'L', gnu.len() as u64), &gnu),
        (header("short", b'0', 0), b""),
        (header("PaxHeaders/x", b'x', pax.len() as u64), pax.as_bytes()),
        (header("short", b'0', 0), b""),
    ]);
    let mut records = records(&bytes);
    assert_eq!(records.next_record().unwrap().unwrap().path, long.as_bytes());
    assert_eq!(records.next_record().unwrap().unwrap().path, long.as_bytes());
}

#[test]
fn a_pax_size_counts_over_the_headers() {
    let pax = b"10 size=3\n";
    let bytes = archive(&[
        (header("x", b'x', pax.len() as u64), pax),
        (header("a", b'0', 0), b"abc"),
        (header("b", b'0', 0), b""),
    ]);
    let mut records = records(&bytes);
    assert_eq!(records.next_record().unwrap().unwrap().size, 3);
    assert_eq!(content(&mut records), b"abc");
    assert_eq!(records.next_record().unwrap().unwrap().path, b"b");
}

#[test]
fn expands_sparse_files_of_three_formats() {
    let expected = [&[0; 1000][..], b"data", &[0; 96]].concat();

    let mut old = header("s", b'S', 4);
    let gnu = old.as_gnu_mut().unwrap();
    gnu.sparse[0].set_offset(1000);
    gnu.sparse[0].set_length(4);
    gnu.set_real_size(1100);
    old.set_cksum();

    let pax_01 = b"25 GNU.sparse.size=1100\n25 GNU.sparse.map=1000,4\n";
    let pax_10 =
        b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n29 GNU.sparse.realsize=1100\n21 GNU.sparse.name=s\n";
    let map = [block(b"1\n1000\n4\n"), b"data".to_vec()].concat();
    let pax_10 = fix_lengths(pax_10);
    let pax_01 = fix_lengths(pax_01);
    let bytes = archive(&[
        (old, b"data"),
        (header("x", b'x', pax_01.len() as u64), &pax_01),
        (header("s", b'0', 4), b"data"),
        (header("x", b'x', pax_10.len() as u64), &pax_10),
        (header("GNUSparseFile.0/s", b'0', map.len() as u64), &map),
        (header("last", b'0', 0), b""),
    ]);
    let mut records = records(&bytes);
    for _ in 0..3 {
        let record = records.next_record().unwrap().unwrap();
        assert_eq!((record.path.as_slice(), record.size), (&b"s"[..], 1100));
        assert_eq!(content(&mut records), expected);
    }
    assert_eq!(records.next_record().unwrap().unwrap().path, b"last");
}

/// Puts the right length before each record.
fn fix_lengths(pax: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(pax).unwrap();
    let mut fixed = String::new();
    for line in text.lines() {
        let body = line.split_once(' ').unwrap().1;
        fixed += &format!("{} {body}\n", body.len() + 4);
    }
    fixed.into_bytes()
}

#[test]
fn refuses_broken_archives() {
    let good = archive(&[(header("a", b'0', 600), &[1; 600])]);
    assert!(matches!(exhaust(&good[..700]), Err(FormatError::Truncated)));
    assert!(matches!(exhaust(&good[..300]), Err(FormatError::Truncated)));
    let mut flipped = good.clone();
    flipped[0] ^= 1;
    assert!(matches!(exhaust(&flipped), Err(FormatError::Checksum)));
    assert!(matches!(exhaust(b"not a tar archive, and shorter than a block"), Err(FormatError::Truncated)));
    let strange = archive(&[(header("v", b'V', 0), b"")]);
    assert!(matches!(exhaust(&strange), Err(FormatError::Type { flag: 'V', .. })));
    let huge_name = archive(&[(header("l", b'L', 1 << 30), b"")]);
    assert!(matches!(exhaust(&huge_name), Err(FormatError::ExtensionTooLong { length: 0x4000_0000, .. })));
    let dangling = archive(&[(header("l", b'L', 2), b"a\0")]);
    assert!(matches!(exhaust(&dangling), Err(FormatError::DanglingExtension)));
    let many: Vec<_> = (0..20).map(|_| (header("l", b'L', 2), &b"a\0"[..])).collect();
    assert!(matches!(exhaust(&archive(&many)), Err(FormatError::TooManyExtensions)));
}

#[test]
fn refuses_a_sparse_map_that_lies() {
    for (pax, data) in [
        (&b"0 GNU.sparse.size=1100\n0 GNU.sparse.map=1000,4,900,4\n"[..], &b"datadata"[..]),
        (b"0 GNU.sparse.size=1001\n0 GNU.sparse.map=1000,4\n", b"data"),
        (b"0 GNU.sparse.size=1100\n0 GNU.sparse.map=1000,9\n", b"data"),
        (b"0 GNU.sparse.size=1100\n0 GNU.sparse.map=1000\n", b"data"),
    ] {
        let pax = fix_lengths(pax);
        let bytes = archive(&[
            (header("x", b'x', pax.len() as u64), &pax),
            (header("s", b'0', data.len() as u64), data),
        ]);
        assert!(matches!(exhaust(&bytes), Err(FormatError::Sparse { .. })), "{pax:?}");
    }
}

#[test]
fn numbers_in_octal_and_base_256() {
    assert_eq!(number(b"0000644\0"), Some(0o644));
    assert_eq!(number(b"   17 \0\0"), Some(0o17));
    assert_eq!(number(&[0; 8]), Some(0));
    assert_eq!(number(b"8\0"), None);
    assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
    assert_eq!(number(&[0xff; 12]), Some(-1));
    assert_eq!(number(&[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
}

fn exhaust(bytes: &[u8]) -> Result<(), FormatError> {
    let mut records = records(bytes);
    let mut buffer = [0; 4096];
    while records.next_record()?.is_some() {
        while records.data(&mut buffer)? != Chunk::End {}
    }
    Ok(())
}

proptest! {
    #[test]
    fn never_panics_on_noise(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = exhaust(&bytes);
    }

    /// Well-formed headers with arbitrary fields get past the checksum and into the rest of the parser.
    #[test]
    fn never_panics_on_strange_headers(
        fields in proptest::collection::vec((0_usize..512, any::<u8>()), 0..40),
        flag in prop_oneof![Just(b'0'), Just(b'x'), Just(b'L'), Just(b'S'), Just(b'1'), any::<u8>()],
        size in 0_u64..2000,
        data in proptest::collection::vec(any::<u8>(), 0..1500),
    ) {
        let mut strange = header("a/b", flag, size);
        for (at, value) in fields {
            strange.as_mut_bytes()[at] = value;
        }
        strange.set_cksum();
        let _ = exhaust(&archive(&[(strange, &data), (header("next", b'0', 0), b"")]));
    }
}
