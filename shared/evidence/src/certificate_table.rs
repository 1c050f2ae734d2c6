//! The GHCB certificate table: what a platform hands out beside its reports.
//!
//! GHCB 2.0, section 4.1.8.1: 24-byte entries (GUID[16], offset u32, length u32, little-endian), closed by an entry
//! of zeroes; offsets count from the start of the table. The host writes it, so nothing in it is trusted: a
//! certificate from here counts only through the chain it is part of.

/// Most entries a table may have. AMD defines five kinds.
const MAX_ENTRIES: usize = 16;
const ENTRY: usize = 24;

// GUIDs of GHCB 2.0, section 4.1.8.1, table "Attestation Report Certificates", in RFC 9562 byte order.
const GUID_VCEK: [u8; 16] = *b"\x63\xda\x75\x8d\xe6\x64\x45\x64\xad\xc5\xf4\xb9\x3b\xe8\xac\xcd";
const GUID_VLEK: [u8; 16] = *b"\xa8\x07\x4b\xc2\xa2\x5a\x48\x3e\xaa\xe6\x39\xc0\x45\xa0\xb8\xa1";
const GUID_ASK: [u8; 16] = *b"\x4a\xb7\xb3\x79\xbb\xac\x4f\xe4\xa0\x2f\x05\xae\xf3\x27\xc7\x82";

/// A table that breaks its own format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("certificate table has no closing entry")]
    Unterminated,
    #[error("certificate table has more than {MAX_ENTRIES} entries")]
    TooMany,
    #[error("certificate table entry {index} points outside the table")]
    OutOfBounds { index: usize },
    #[error("certificate table has two {kind} entries")]
    Doubled { kind: &'static str },
}

/// The entries a verifier has a use for, as DER, borrowed from the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CertificateTable<'a> {
    /// Key of this chip at this TCB; signs reports.
    pub vcek: Option<&'a [u8]>,
    /// Key loaded by the cloud provider in the VCEK's place.
    pub vlek: Option<&'a [u8]>,
    /// Signs the VCEK.
    pub ask: Option<&'a [u8]>,
}

impl<'a> CertificateTable<'a> {
    /// Reads a table. An empty slice is a table without entries; unknown kinds are passed over.
    pub fn parse(table: &'a [u8]) -> Result<Self, TableError> {
        let mut parsed = Self::default();
        if table.is_empty() {
            return Ok(parsed);
        }
        for (index, entry) in table.chunks(ENTRY).enumerate() {
            let Ok(entry) = <&[u8; ENTRY]>::try_from(entry) else { return Err(TableError::Unterminated) };
            if entry.iter().all(|&byte| byte == 0) {
                return Ok(parsed);
            }
            if index == MAX_ENTRIES {
                return Err(TableError::TooMany);
            }
            let word = |at: usize| {
                u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]) as usize
            };
            let (offset, length) = (word(16), word(20));
            let data = offset
                .checked_add(length)
                .and_then(|end| table.get(offset..end))
                .ok_or(TableError::OutOfBounds { index })?;
            parsed.insert(&entry[..16], data)?;
        }
        Err(TableError::Unterminated)
    }

    fn insert(&mut self, guid: &[u8], data: &'a [u8]) -> Result<(), TableError> {
        let (kind, slot) = if guid == GUID_VCEK {
            ("VCEK", &mut self.vcek)
        } else if guid == GUID_VLEK {
            ("VLEK", &mut self.vlek)
        } else if guid == GUID_ASK {
            ("ASK", &mut self.ask)
        } else {
            return Ok(());
        };
        match slot.replace(data) {
            None => Ok(()),
            Some(_) => Err(TableError::Doubled { kind }),
        }
    }

    /// Writes the table that has these entries.
    pub fn to_bytes(&self) -> Vec<u8> {
        let entries: Vec<([u8; 16], &[u8])> =
            [(GUID_VCEK, self.vcek), (GUID_VLEK, self.vlek), (GUID_ASK, self.ask)]
                .into_iter()
                .filter_map(|(guid, data)| data.map(|data| (guid, data)))
                .collect();
        let mut out = Vec::new();
        let mut offset = ENTRY * (entries.len() + 1);
        for (guid, data) in &entries {
            out.extend_from_slice(guid);
            out.extend_from_slice(&u32::try_from(offset).unwrap_or(u32::MAX).to_le_bytes());
            out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
            offset = offset.saturating_add(data.len());
        }
        out.extend_from_slice(&[0; ENTRY]);
        for (_, data) in &entries {
            out.extend_from_slice(data);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let table = CertificateTable { vcek: Some(b"vcek"), vlek: None, ask: Some(b"signing key") };
        assert_eq!(CertificateTable::parse(&table.to_bytes()), Ok(table));
        assert_eq!(CertificateTable::parse(b""), Ok(CertificateTable::default()));
    }

    #[test]
    fn refuses_broken_tables() {
        let good = CertificateTable { vcek: Some(b"vcek"), ..CertificateTable::default() }.to_bytes();
        let mut far = good.clone();
        far[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(CertificateTable::parse(&far), Err(TableError::OutOfBounds { index: 0 }));
        assert_eq!(CertificateTable::parse(&good[..30]), Err(TableError::OutOfBounds { index: 0 }));
        let mut doubled = good[..24].to_vec();
        doubled.extend_from_slice(&good);
        assert_eq!(CertificateTable::parse(&doubled), Err(TableError::Doubled { kind: "VCEK" }));
        let unknown = [b"\x01".repeat(16), vec![0; 8]].concat();
        assert_eq!(CertificateTable::parse(&unknown), Err(TableError::Unterminated));
        assert_eq!(CertificateTable::parse(&unknown.repeat(17)), Err(TableError::TooMany));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = CertificateTable::parse(&bytes);
        }
    }
}
