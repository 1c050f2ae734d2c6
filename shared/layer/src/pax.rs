//! The extended header of a tar entry (POSIX.1-2017, pax, "Extended Header"): `LENGTH KEY=VALUE\n` records.
//!
//! Read by length and not by line, because values are bytes: a file capability may well contain a newline.

use crate::attribute::{MAX_BYTES, MAX_COUNT};

/// Why an extended header was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PaxError {
    #[error("a record has no valid length")]
    Length,
    #[error("a record has no \"=\"")]
    NoKey,
    #[error("{0} is not a valid number")]
    Number(&'static str),
    #[error("there are more than {MAX_COUNT} extended attributes")]
    TooManyAttributes,
    #[error("the extended attributes have more than {MAX_BYTES} bytes together")]
    AttributesTooLarge,
    #[error("a sparse file's map has an unknown version")]
    SparseVersion,
}

/// What an extended header says of the entry after it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pax {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) mtime: Option<(i64, u32)>,
    pub(crate) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse: PaxSparse,
}

/// GNU tar's sparse files in pax archives ("Storing Sparse Files", versions 0.1 and 1.0).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PaxSparse {
    pub(crate) version: Option<u64>,
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) real_size: Option<u64>,
    pub(crate) map: Option<Vec<u8>>,
}

impl Pax {
    pub(crate) fn parse(mut bytes: &[u8]) -> Result<Self, PaxError> {
        let mut pax = Self::default();
        while !bytes.is_empty() {
            let (record, rest) = split_record(bytes)?;
            bytes = rest;
            let equals = record.iter().position(|&c| c == b'=').ok_or(PaxError::NoKey)?;
            pax.set(&record[..equals], &record[equals + 1..])?;
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), PaxError> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            return self.attribute(name, value);
        }
        // An empty value takes an earlier one back.
        let bytes = (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = bytes,
            b"linkpath" => self.link = bytes,
            b"size" => self.size = number("size", value)?,
            b"uid" => self.uid = number("uid", value)?,
            b"gid" => self.gid = number("gid", value)?,
            b"mtime" => self.mtime = time(value)?,
            b"GNU.sparse.major" => self.sparse.version = number("GNU.sparse.major", value)?,
            b"GNU.sparse.minor" if value != b"0" && value != b"1" => return Err(PaxError::SparseVersion),
            b"GNU.sparse.name" => self.sparse.name = bytes,
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => {
                self.sparse.real_size = number("GNU.sparse.size", value)?
            }
            b"GNU.sparse.map" => self.sparse.map = bytes,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => return Err(PaxError::SparseVersion),
            _ => {}
        }
        Ok(())
    }

    fn attribute(&mut self, name: &[u8], value: &[u8]) -> Result<(), PaxError> {
        if self.attributes.len() == MAX_COUNT {
            return Err(PaxError::TooManyAttributes);
        }
        let taken: usize = self.attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        if taken + name.len() + value.len() > MAX_BYTES {
            return Err(PaxError::AttributesTooLarge);
        }
        self.attributes.push((name.to_vec(), value.to_vec()));
        Ok(())
    }
}

/// The first record without its length and newline, and what follows.
fn split_record(bytes: &[u8]) -> Result<(&[u8], &[u8]), PaxError> {
    let space = bytes.iter().take(20).position(|&c| c == b' ').ok_or(PaxError::Length)?;
    let length =
        decimal(&bytes[..space]).and_then(|length| usize::try_from(length).ok()).ok_or(PaxError::Length)?;
    if length < space + 2 || length > bytes.len() || bytes[length - 1] != b'\n' {
        return Err(PaxError::Length);
    }
    Ok((&bytes[space + 1..length - 1], &bytes[length..]))
}

fn number(key: &'static str, value: &[u8]) -> Result<Option<u64>, PaxError> {
    match value {
        [] => Ok(None),
        digits => decimal(digits).map(Some).ok_or(PaxError::Number(key)),
    }
}

/// `[-]SECONDS[.FRACTION]`.
fn time(value: &[u8]) -> Result<Option<(i64, u32)>, PaxError> {
    if value.is_empty() {
        return Ok(None);
    }
    let (negative, unsigned) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let point = unsigned.iter().position(|&c| c == b'.').unwrap_or(unsigned.len());
    let fraction = unsigned.get(point + 1..).unwrap_or(b"");
    let seconds = decimal(&unsigned[..point]).and_then(|seconds| i64::try_from(seconds).ok());
    let (Some(seconds), true) = (seconds, fraction.iter().all(u8::is_ascii_digit)) else {
        return Err(PaxError::Number("mtime"));
    };
    let nanos = (0..9).fold(0, |nanos, at| nanos * 10 + fraction.get(at).map_or(0, |c| u32::from(c - b'0')));
    Ok(Some(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    }))
}

/// A plain decimal number; no sign, no blank.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, c| match c {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(c - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let mut length = body + 1;
        while length != body + length.to_string().len() {
            length = body + length.to_string().len();
        }
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn reads_binary_values() {
        let bytes = [
            record("SCHILY.xattr.security.capability", b"\x01\n=\0\n"),
            record("path", b"a/b"),
            record("mtime", b"1700000000.5"),
        ]
        .concat();
        let pax = Pax::parse(&bytes).unwrap();
        assert_eq!(pax.attributes, [(b"security.capability".to_vec(), b"\x01\n=\0\n".to_vec())]);
        assert_eq!(pax.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(pax.mtime, Some((1_700_000_000, 500_000_000)));
    }

    #[test]
    fn times_before_the_epoch() {
        assert_eq!(time(b"-1.25"), Ok(Some((-2, 750_000_000))));
        assert_eq!(time(b"-3"), Ok(Some((-3, 0))));
        assert_eq!(time(b"1.x"), Err(PaxError::Number("mtime")));
    }

    #[test]
    fn refuses_broken_records() {
        for (bytes, error) in [
            (&b"x"[..], PaxError::Length),
            (b"99 path=a\n", PaxError::Length),
            (b"0 a=b\n", PaxError::Length),
            (b"3 \n", PaxError::NoKey),
            (b"9 path=ab", PaxError::Length),
            (b"9 size=x\n", PaxError::Number("size")),
            (b"99999999999999999999999 a=b\n", PaxError::Length),
        ] {
            assert_eq!(Pax::parse(bytes), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn attributes_are_bounded_in_number_and_together() {
        let attribute =
            |at: usize, length| record(&format!("SCHILY.xattr.user.{at:02}"), &vec![b'v'; length]);
        let many = |count, length| (0..count).flat_map(|at| attribute(at, length)).collect::<Vec<_>>();
        assert_eq!(Pax::parse(&many(MAX_COUNT, 1000)).unwrap().attributes.len(), MAX_COUNT);
        assert_eq!(Pax::parse(&many(MAX_COUNT + 1, 0)), Err(PaxError::TooManyAttributes));
        assert!(Pax::parse(&attribute(0, MAX_BYTES - 7)).is_ok());
        assert_eq!(Pax::parse(&attribute(0, MAX_BYTES - 6)), Err(PaxError::AttributesTooLarge));
        assert_eq!(Pax::parse(&many(2, MAX_BYTES / 2)), Err(PaxError::AttributesTooLarge));
    }

    #[test]
    fn an_empty_value_takes_an_earlier_one_back() {
        let bytes =
            [record("path", b"a"), record("uid", b"7"), record("path", b""), record("uid", b"")].concat();
        assert_eq!(Pax::parse(&bytes), Ok(Pax::default()));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = Pax::parse(&bytes);
        }

        /// Lengths that are right lead past the framing to the keys and their values.
        #[test]
        fn never_panics_on_strange_values(
            records in proptest::collection::vec(
                (
                    prop_oneof![
                        "path|linkpath|size|uid|gid|mtime|GNU\\.sparse\\.(major|minor|name|size|realsize|map|offset)",
                        "SCHILY\\.xattr\\.[a-z.]{0,8}",
                        "[ -~]{0,12}",
                    ],
                    prop_oneof![
                        "[-+0-9., ]{0,24}".prop_map(String::into_bytes),
                        proptest::collection::vec(any::<u8>(), 0..40),
                    ],
                ),
                0..12,
            ),
        ) {
            let bytes: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
            if let Ok(pax) = Pax::parse(&bytes) {
                prop_assert!(pax.mtime.is_none_or(|(_, nanos)| nanos < 1_000_000_000));
            }
        }

        /// What a writer has said comes back to the byte, newlines and all.
        #[test]
        fn values_come_back(
            path in proptest::collection::vec(any::<u8>(), 1..300),
            attributes in proptest::collection::vec(("[a-z]{1,9}", proptest::collection::vec(any::<u8>(), 0..99)), 0..9),
            mtime in (i64::MIN / 2..i64::MAX / 2, 0_u32..1_000_000_000),
        ) {
            let mut bytes = record("path", &path);
            let (seconds, nanos) = mtime;
            // What lies before the epoch counts towards it.
            let text = match seconds {
                0.. => format!("{seconds}.{nanos:09}"),
                _ if nanos == 0 => format!("{seconds}"),
                _ => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
            };
            bytes.extend(record("mtime", text.as_bytes()));
            for (name, value) in &attributes {
                bytes.extend(record(&format!("SCHILY.xattr.{name}"), value));
            }
            let pax = Pax::parse(&bytes).unwrap();
            prop_assert_eq!(pax.path, Some(path));
            prop_assert_eq!(pax.mtime, Some(mtime));
            let expected: Vec<_> = attributes.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
            prop_assert_eq!(pax.attributes, expected);
        }
    }
}
