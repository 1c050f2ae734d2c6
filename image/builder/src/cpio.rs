//! The archive format of an initramfs: cpio "newc" (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! The same entries give the same bytes, in whatever order they were added: sorted by path, owner 0, time 0, inodes
//! counted from 1. The reader is for looking into an image; it takes what the writer makes.

use std::collections::BTreeMap;

/// Every header, name and content starts at a multiple of this.
const ALIGNMENT: usize = 4;
/// What the archive as a whole is padded to, as cpio(1) does.
const BLOCK: usize = 512;
const MAGIC: &[u8] = b"070701";
/// Magic and 13 fields of eight hexadecimal digits.
const HEADER: usize = 6 + 13 * 8;
const END: &str = "TRAILER!!!";

const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const REGULAR: u32 = 0o100_000;

/// An entry that cannot be in an archive, or an archive that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CpioError {
    #[error("{0:?} is not a path an initramfs can have: relative, without \".\" and \"..\"")]
    Path(String),
    #[error("{0:?} is in the archive twice")]
    Twice(String),
    #[error("{path:?} is too large: {size} bytes")]
    TooLarge { path: String, size: usize },
    #[error("not a newc archive at byte {0}")]
    Malformed(usize),
}

#[derive(Debug, Clone)]
struct Entry {
    mode: u32,
    device: (u32, u32),
    content: Vec<u8>,
}

/// An archive in the making.
#[derive(Debug, Clone, Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// A directory with the given permission bits.
    pub fn directory(&mut self, path: &str, permissions: u32) -> Result<(), CpioError> {
        self.add(path, Entry { mode: DIRECTORY | permissions, device: (0, 0), content: Vec::new() })
    }

    /// A regular file with the given permission bits.
    pub fn file(&mut self, path: &str, permissions: u32, content: Vec<u8>) -> Result<(), CpioError> {
        if u32::try_from(content.len()).is_err() {
            return Err(CpioError::TooLarge { path: path.into(), size: content.len() });
        }
        self.add(path, Entry { mode: REGULAR | permissions, device: (0, 0), content })
    }

    /// A character device.
    pub fn character_device(
        &mut self,
        path: &str,
        permissions: u32,
        device: (u32, u32),
    ) -> Result<(), CpioError> {
        self.add(path, Entry { mode: CHARACTER_DEVICE | permissions, device, content: Vec::new() })
    }

    fn add(&mut self, path: &str, entry: Entry) -> Result<(), CpioError> {
        let is_plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
        if !path.split('/').all(is_plain) || path == END {
            return Err(CpioError::Path(path.into()));
        }
        match self.entries.insert(path.into(), entry) {
            None => Ok(()),
            Some(_) => Err(CpioError::Twice(path.into())),
        }
    }

    /// The archive's bytes. A directory sorts before what is in it, so it exists when that is unpacked.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (inode, (path, entry)) in (1..).zip(&self.entries) {
            let links = if entry.mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
            write_entry(&mut bytes, inode, links, path, entry);
        }
        write_entry(&mut bytes, 0, 1, END, &Entry { mode: 0, device: (0, 0), content: Vec::new() });
        pad(&mut bytes, BLOCK);
        bytes
    }
}

fn write_entry(bytes: &mut Vec<u8>, inode: u32, links: u32, path: &str, entry: &Entry) {
    // `file` has checked that the content fits; a path that does not cannot be held in memory as an entry name.
    let size = u32::try_from(entry.content.len()).unwrap_or(u32::MAX);
    let name_size = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
    let (major, minor) = entry.device;
    bytes.extend_from_slice(MAGIC);
    // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    for field in [inode, entry.mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0] {
        bytes.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    bytes.extend_from_slice(path.as_bytes());
    bytes.push(0);
    pad(bytes, ALIGNMENT);
    bytes.extend_from_slice(&entry.content);
    pad(bytes, ALIGNMENT);
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

/// One entry of an archive that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<'a> {
    pub path: &'a str,
    pub mode: u32,
    pub content: &'a [u8],
}

/// The entries of an archive, in its order.
pub fn list(bytes: &[u8]) -> Result<Vec<Listed<'_>>, CpioError> {
    let mut entries = Vec::new();
    let mut at = 0;
    loop {
        let malformed = CpioError::Malformed(at);
        let header = bytes.get(at..at + HEADER).filter(|header| header.starts_with(MAGIC));
        let header = header.ok_or_else(|| malformed.clone())?;
        let field = |n: usize| {
            let digits = &header[6 + n * 8..14 + n * 8];
            let digits = std::str::from_utf8(digits).ok();
            digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).ok_or_else(|| malformed.clone())
        };
        let (mode, size, name_size) = (field(1)?, field(6)? as usize, field(11)? as usize);
        let name_at = at + HEADER;
        let name = bytes.get(name_at..name_at + name_size).and_then(|name| name.strip_suffix(&[0]));
        let path = name.and_then(|name| std::str::from_utf8(name).ok()).ok_or_else(|| malformed.clone())?;
        if path == END {
            return Ok(entries);
        }
        let content_at = (name_at + name_size).next_multiple_of(ALIGNMENT);
        let content = bytes.get(content_at..content_at + size).ok_or(malformed)?;
        entries.push(Listed { path, mode, content });
        at = (content_at + size).next_multiple_of(ALIGNMENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Archive {
        let mut archive = Archive::default();
        archive.file("init", 0o755, b"agent".to_vec()).unwrap();
        archive.directory("dev", 0o755).unwrap();
        archive.character_device("dev/console", 0o600, (5, 1)).unwrap();
        archive
    }

    #[test]
    fn the_order_of_adding_does_not_matter() {
        let mut other = Archive::default();
        other.character_device("dev/console", 0o600, (5, 1)).unwrap();
        other.directory("dev", 0o755).unwrap();
        other.file("init", 0o755, b"agent".to_vec()).unwrap();
        assert_eq!(sample().to_bytes(), other.to_bytes());
    }

    #[test]
    fn reads_what_it_writes() {
        let bytes = sample().to_bytes();
        let listed = list(&bytes).unwrap();
        let seen: Vec<_> = listed.iter().map(|e| (e.path, e.mode, e.content)).collect();
        let expected: [(&str, u32, &[u8]); 3] =
            [("dev", 0o040_755, b""), ("dev/console", 0o020_600, b""), ("init", 0o100_755, b"agent")];
        assert_eq!(seen, expected);
    }

    #[test]
    fn writes_what_the_format_says() {
        let mut archive = Archive::default();
        archive.file("init", 0o755, b"agent".to_vec()).unwrap();
        let expected = concat!(
            "070701",                           // magic
            "00000001",                         // inode
            "000081ed",                         // a regular file, 0755
            "0000000000000000",                 // root's
            "00000001",                         // one link
            "00000000",                         // from the beginning of time
            "00000005",                         // bytes
            "00000000000000000000000000000000", // on no device, and none itself
            "00000005",                         // bytes of the name, with its end
            "00000000",                         // no checksum
            "init\0\0",
            "agent\0\0\0",
        );
        let bytes = archive.to_bytes();
        assert_eq!(std::str::from_utf8(&bytes[..expected.len()]).unwrap(), expected);
        assert_eq!(bytes.len() % BLOCK, 0);
    }

    #[test]
    fn refuses_bad_paths() {
        let mut archive = sample();
        for path in ["", "/init", "a//b", "a/", "./a", "a/../b", "a\0b", END] {
            assert_eq!(archive.directory(path, 0o755), Err(CpioError::Path(path.into())));
        }
        assert_eq!(archive.directory("dev", 0o755), Err(CpioError::Twice("dev".into())));
    }

    #[test]
    fn refuses_a_broken_archive_wherever_it_is_cut() {
        let bytes = sample().to_bytes();
        let end =
            bytes.windows(END.len()).position(|window| window == END.as_bytes()).unwrap() + END.len() + 1;
        for cut in 0..end {
            assert!(matches!(list(&bytes[..cut]), Err(CpioError::Malformed(_))), "cut at {cut}");
        }
        assert!(list(&bytes[..end]).is_ok());
    }
}
