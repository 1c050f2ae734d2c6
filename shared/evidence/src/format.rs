//! Evidence as bytes: length-framed, versioned, bounded; one encoding per value, nothing after it.
//!
//! ```text
//! "PEVI"   version u8 = 1   tee u8   reserved u16 = 0
//! report length u32   report   certificates length u32   certificates
//! ```
//! All integers little-endian. Longer than [`MAX_EVIDENCE`] is refused before anything is copied.

use std::fmt;

/// Largest report, in bytes. An SNP report has 1184.
pub const MAX_REPORT: usize = 4 * 1024;
/// Largest certificate table, in bytes. AMD's three certificates take about 5 KiB.
pub const MAX_CERTIFICATES: usize = 32 * 1024;
/// Longest encoding of evidence, in bytes.
pub const MAX_EVIDENCE: usize = HEADER + 4 + MAX_REPORT + 4 + MAX_CERTIFICATES;

const MAGIC: &[u8; 4] = b"PEVI";
const VERSION: u8 = 1;
const HEADER: usize = 8;

/// The kind of TEE that made a piece of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tee {
    /// AMD SEV-SNP.
    Snp,
}

impl Tee {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Snp => "snp",
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Snp => 1,
        }
    }
}

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a TEE signs about a guest, with the certificates the platform hands out beside it. Not verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Evidence {
    pub tee: Tee,
    /// The report as the TEE wrote it.
    pub report: Vec<u8>,
    /// The platform's certificates, as a GHCB certificate table. May be empty where the reader knows them already.
    pub certificates: Vec<u8>,
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evidence")
            .field("tee", &self.tee)
            .field("report_bytes", &self.report.len())
            .field("certificate_bytes", &self.certificates.len())
            .finish()
    }
}

/// Bytes that are no evidence, or evidence too large to be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("evidence does not start with its magic bytes")]
    Magic,
    #[error("evidence has format version {0}; this program reads version {VERSION}")]
    Version(u8),
    #[error("evidence is from an unknown kind of TEE (code {0})")]
    Tee(u8),
    #[error("reserved bytes of the evidence header are not zero")]
    Reserved,
    #[error("evidence ends in the middle of its {part}")]
    Truncated { part: &'static str },
    #[error("{part} of the evidence has {length} bytes; at most {limit} are accepted")]
    TooLarge { part: &'static str, length: usize, limit: usize },
    #[error("{0} bytes follow the evidence")]
    Trailing(usize),
}

impl Evidence {
    /// The one encoding of this evidence. Fails if a part is larger than its bound.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        let mut out = Vec::with_capacity(HEADER + 8 + self.report.len() + self.certificates.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[VERSION, self.tee.code(), 0, 0]);
        for (part, bytes, limit) in
            [("report", &self.report, MAX_REPORT), ("certificates", &self.certificates, MAX_CERTIFICATES)]
        {
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            if bytes.len() > limit {
                return Err(FormatError::TooLarge { part, length: bytes.len(), limit });
            }
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(bytes);
        }
        Ok(out)
    }

    /// Reads one piece of evidence that fills `bytes` exactly.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let (header, rest) =
            bytes.split_at_checked(HEADER).ok_or(FormatError::Truncated { part: "header" })?;
        if &header[..4] != MAGIC {
            return Err(FormatError::Magic);
        }
        if header[4] != VERSION {
            return Err(FormatError::Version(header[4]));
        }
        let tee = match header[5] {
            1 => Tee::Snp,
            other => return Err(FormatError::Tee(other)),
        };
        if header[6..8] != [0, 0] {
            return Err(FormatError::Reserved);
        }
        let (report, rest) = framed(rest, "report", MAX_REPORT)?;
        let (certificates, rest) = framed(rest, "certificates", MAX_CERTIFICATES)?;
        if !rest.is_empty() {
            return Err(FormatError::Trailing(rest.len()));
        }
        Ok(Self { tee, report: report.to_vec(), certificates: certificates.to_vec() })
    }
}

/// Splits a `u32` length and that many bytes off the front of `bytes`.
fn framed<'a>(
    bytes: &'a [u8],
    part: &'static str,
    limit: usize,
) -> Result<(&'a [u8], &'a [u8]), FormatError> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(FormatError::Truncated { part })?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > limit {
        return Err(FormatError::TooLarge { part, length, limit });
    }
    rest.split_at_checked(length).ok_or(FormatError::Truncated { part })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Evidence {
        Evidence { tee: Tee::Snp, report: vec![1; 1184], certificates: vec![2; 99] }
    }

    #[test]
    fn reads_what_it_writes() {
        let bytes = sample().to_bytes().unwrap();
        assert_eq!(Evidence::from_bytes(&bytes).unwrap(), sample());
    }

    #[test]
    fn each_broken_part_is_named() {
        let good = sample().to_bytes().unwrap();
        let broken = |change: fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            Evidence::from_bytes(&bytes).unwrap_err()
        };
        assert_eq!(broken(|b| b[0] = b'X'), FormatError::Magic);
        assert_eq!(broken(|b| b[4] = 2), FormatError::Version(2));
        assert_eq!(broken(|b| b[5] = 9), FormatError::Tee(9));
        assert_eq!(broken(|b| b[7] = 1), FormatError::Reserved);
        assert_eq!(broken(|b| b.push(0)), FormatError::Trailing(1));
        assert_eq!(broken(|b| b.truncate(5)), FormatError::Truncated { part: "header" });
        assert_eq!(broken(|b| b.truncate(100)), FormatError::Truncated { part: "report" });
        let last = FormatError::Truncated { part: "certificates" };
        assert_eq!(
            broken(|b| {
                b.pop();
            }),
            last
        );
        assert!(matches!(broken(|b| b[8..12].fill(0xff)), FormatError::TooLarge { part: "report", .. }));
    }

    #[test]
    fn what_is_too_large_is_not_written() {
        let evidence = Evidence { certificates: vec![0; MAX_CERTIFICATES + 1], ..sample() };
        assert!(matches!(evidence.to_bytes(), Err(FormatError::TooLarge { part: "certificates", .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = Evidence::from_bytes(&bytes);
        }

        #[test]
        fn one_encoding_per_value(cut in 0usize..1300, byte in any::<u8>()) {
            let mut bytes = sample().to_bytes().unwrap();
            let place = cut % bytes.len();
            bytes[place] = byte;
            if let Ok(evidence) = Evidence::from_bytes(&bytes) {
                prop_assert_eq!(evidence.to_bytes().unwrap(), bytes);
            }
        }
    }
}
