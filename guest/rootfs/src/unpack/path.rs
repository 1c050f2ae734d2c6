//! Paths in a layer: bytes an image chose, brought to one plain form or refused.
//!
//! An [`EntryPath`] is relative, has no empty, `.` or `..` part, no NUL, and is within the limits. It may still lead
//! through a symbolic link on disk; [`Tree`](super::tree::Tree) sees to that.

use std::fmt;

use postern_layer::printable;

use crate::Limits;

/// Longest file name Linux knows (`NAME_MAX`).
const MAX_NAME: usize = 255;

/// Why a path was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("it has {length} bytes; at most {limit} are allowed")]
    TooLong { length: usize, limit: usize },
    #[error("a part of it has {length} bytes; at most {MAX_NAME} are allowed")]
    NameTooLong { length: usize },
    #[error("it is {depth} directories deep; at most {limit} are allowed")]
    TooDeep { depth: usize, limit: usize },
    #[error("it contains a NUL byte")]
    Nul,
    #[error("it contains \"..\"")]
    DotDot,
    #[error("a directory in it has the name of a whiteout (\".wh.\")")]
    BelowWhiteout,
}

/// A path below a layer's root. The root itself is the empty path.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct EntryPath(Vec<u8>);

impl EntryPath {
    /// An absolute path is taken as one below the root, as every unpacker of images does.
    pub(crate) fn parse(bytes: &[u8], limits: &Limits) -> Result<Self, PathError> {
        if bytes.len() > limits.path_bytes {
            return Err(PathError::TooLong { length: bytes.len(), limit: limits.path_bytes });
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        let mut joined = Vec::with_capacity(bytes.len());
        let mut depth = 0;
        for part in bytes.split(|&c| c == b'/').filter(|part| !matches!(*part, b"" | b".")) {
            if part == b".." {
                return Err(PathError::DotDot);
            }
            if part.len() > MAX_NAME {
                return Err(PathError::NameTooLong { length: part.len() });
            }
            if depth > 0 {
                joined.push(b'/');
            }
            joined.extend_from_slice(part);
            depth += 1;
        }
        if depth > limits.path_depth {
            return Err(PathError::TooDeep { depth, limit: limits.path_depth });
        }
        let path = Self(joined);
        if path.parent().split(|&c| c == b'/').any(|part| part.starts_with(b".wh.")) {
            return Err(PathError::BelowWhiteout);
        }
        Ok(path)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory it is in; empty for the root's own entries.
    pub(crate) fn parent(&self) -> &[u8] {
        self.slash().map_or(b"", |at| &self.0[..at])
    }

    /// Its last part; empty for the root.
    pub(crate) fn name(&self) -> &[u8] {
        self.slash().map_or(&self.0, |at| &self.0[at + 1..])
    }

    fn slash(&self) -> Option<usize> {
        self.0.iter().rposition(|&c| c == b'/')
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&printable(&self.0), f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &[u8]) -> Result<EntryPath, PathError> {
        EntryPath::parse(text, &Limits::default())
    }

    #[test]
    fn brings_paths_to_one_form() {
        for (text, parent, name) in [
            ("etc/passwd", "etc", "passwd"),
            ("./etc//passwd/", "etc", "passwd"),
            ("/bin", "", "bin"),
            ("./", "", ""),
            ("", "", ""),
            ("a/./b/c", "a/b", "c"),
            (".wh.x", "", ".wh.x"),
        ] {
            let path = parse(text.as_bytes()).unwrap();
            assert_eq!((path.parent(), path.name()), (parent.as_bytes(), name.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn refuses_paths_that_lead_out_or_do_not_fit() {
        assert_eq!(parse(b"../x"), Err(PathError::DotDot));
        assert_eq!(parse(b"a/../../x"), Err(PathError::DotDot));
        assert_eq!(parse(b"a/.."), Err(PathError::DotDot));
        assert_eq!(parse(b"a\0b"), Err(PathError::Nul));
        assert_eq!(parse(b".wh.a/b"), Err(PathError::BelowWhiteout));
        assert_eq!(parse(&[b'x'; 256]), Err(PathError::NameTooLong { length: 256 }));
        assert_eq!(parse(&[b'/'; 5000]), Err(PathError::TooLong { length: 5000, limit: 4095 }));
        assert_eq!(parse("a/".repeat(201).as_bytes()), Err(PathError::TooDeep { depth: 201, limit: 200 }));
    }

    proptest! {
        #[test]
        fn a_parsed_path_has_only_plain_parts(bytes in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..64)) {
            if let Ok(path) = parse(&bytes) {
                for part in path.0.split(|&c| c == b'/') {
                    prop_assert!(path.is_root() || (!part.is_empty() && part != b"." && part != b".." && !part.contains(&0)));
                }
            }
        }
    }
}
