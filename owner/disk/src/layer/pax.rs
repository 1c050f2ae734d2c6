//! The extended header of a tar entry (POSIX.1-2017, pax, "Extended Header"): `LENGTH KEY=VALUE\n` records, read by
//! length, because values are bytes.

/// `XATTR_NAME_MAX` of Linux, and what an erofs keeps of a value.
const MAX_ATTRIBUTE_NAME: usize = 255;
const MAX_ATTRIBUTE: usize = 65_535;
const MAX_ATTRIBUTES: usize = 64;

/// Why an extended header was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PaxError {
    #[error("a record has no valid length")]
    Length,
    #[error("a record has no \"=\"")]
    NoKey,
    #[error("{0} is not a valid number")]
    Number(&'static str),
    #[error("it has more than {MAX_ATTRIBUTES} extended attributes, or one that is too large")]
    Attributes,
}

/// What an extended header says of the entry after it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// It describes a sparse file.
    pub(super) sparse: bool,
}

impl Pax {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, PaxError> {
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
            let fits = name.len() <= MAX_ATTRIBUTE_NAME && value.len() <= MAX_ATTRIBUTE;
            if !fits || self.attributes.len() == MAX_ATTRIBUTES {
                return Err(PaxError::Attributes);
            }
            self.attributes.push((name.to_vec(), value.to_vec()));
            return Ok(());
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
            key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
            _ => {}
        }
        Ok(())
    }
}

/// The first record without its length and newline, and what follows.
fn split_record(bytes: &[u8]) -> Result<(&[u8], &[u8]), PaxError> {
    let space = bytes.iter().take(20).position(|&c| c == b' ').ok_or(PaxError::Length)?;
    let length = decimal(&bytes[..space]).and_then(|length| usize::try_from(length).ok());
    let length = length.ok_or(PaxError::Length)?;
    if length < space + 2 || length > bytes.len() || bytes[length - 1] != b'\n' {
        return Err(PaxError::Length);
    }
    Ok((&bytes[space + 1..length - 1], &bytes[length..]))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
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
    let wrong = PaxError::Number("mtime");
    let (negative, unsigned) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut halves = unsigned.splitn(2, |&c| c == b'.');
    let seconds = halves.next().and_then(decimal).and_then(|seconds| i64::try_from(seconds).ok());
    let seconds = seconds.ok_or(wrong)?;
    let fraction = halves.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(wrong);
    }
    let nanos = (0..9).fold(0, |nanos, at| nanos * 10 + fraction.get(at).map_or(0, |c| u32::from(c - b'0')));
    Ok(Some(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    }))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One record, its length included in its length.
    pub(in super::super) fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let length = (1..).find(|digits| (rest.len() + digits).to_string().len() == *digits).unwrap();
        [(rest.len() + length).to_string().as_bytes(), &rest].concat()
    }

    #[test]
    fn values_are_bytes() {
        let records =
            [record("SCHILY.xattr.user.x", b"\n\xff=\0\n\n"), record("mtime", b"12.0000005")].concat();
        let pax = Pax::parse(&records).unwrap();
        assert_eq!(pax.attributes, [(b"user.x".to_vec(), b"\n\xff=\0\n\n".to_vec())]);
        assert_eq!(pax.mtime, Some((12, 500)));
    }

    #[test]
    fn times_before_the_epoch_count_down() {
        assert_eq!(time(b"-1.25").unwrap(), Some((-2, 750_000_000)));
        assert_eq!(time(b"-1").unwrap(), Some((-1, 0)));
        for wrong in ["1.2.3", "x", "-", "1.-2", "+1"] {
            assert_eq!(time(wrong.as_bytes()), Err(PaxError::Number("mtime")), "{wrong}");
        }
    }

    #[test]
    fn broken_records_are_refused() {
        for (bytes, error) in [
            (&b"x"[..], PaxError::Length),
            (b"99 a=b\n", PaxError::Length),
            (b"6 a=bX", PaxError::Length),
            (b"4 a\n", PaxError::NoKey),
            (b"11 uid=1x2\n", PaxError::Number("uid")),
        ] {
            assert_eq!(Pax::parse(bytes).unwrap_err(), error, "{}", bytes.escape_ascii());
        }
        let long = record("SCHILY.xattr.user.x", &[b'v'; 65_536]);
        assert_eq!(Pax::parse(&long).unwrap_err(), PaxError::Attributes);
    }
}
