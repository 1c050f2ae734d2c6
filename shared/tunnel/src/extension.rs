//! Evidence inside a certificate: a RATS conceptual message wrapper in the extension made for it.
//!
//! draft-ietf-rats-msg-wrap, sections 3.1 and 6: extension `id-pe-cmw`, an OCTET STRING with a CBOR record
//! `[type, value, indicator]`. Type and indicator are constant here, so the record is a constant frame around the
//! evidence, and exactly one encoding of it is accepted.

use postern_evidence::{Evidence, FormatError, format::MAX_EVIDENCE};

/// `id-pe-cmw`, 1.3.6.1.5.5.7.1.35.
pub(crate) const OID: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 35];

/// CBOR: array of three; text of 32 bytes; then a byte string with a 16-bit length.
const RECORD_HEAD: &[u8] = b"\x83\x78\x20application/vnd.postern.evidence\x59";
/// CBOR: unsigned 4, the indicator's bit for evidence.
const RECORD_TAIL: u8 = 0x04;
/// DER: OCTET STRING with a 16-bit length.
const OCTET_STRING: &[u8] = &[0x04, 0x82];

// Both length fields have 16 bits; nothing that is accepted needs more.
const _: () = assert!(MAX_EVIDENCE + RECORD_HEAD.len() + 3 <= u16::MAX as usize);
/// Below this length DER and CBOR would ask for a shorter form. No evidence is that short.
const SHORTEST: usize = 256;

/// Why an extension holds no evidence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    #[error("extension is no wrapper around evidence of this protocol")]
    Wrapper,
    #[error("evidence in the extension cannot be read")]
    Evidence(#[from] FormatError),
}

pub(crate) fn encode(evidence: &Evidence) -> Result<Vec<u8>, ExtensionError> {
    let evidence = evidence.to_bytes()?;
    let record_length = RECORD_HEAD.len() + 2 + evidence.len() + 1;
    let (Ok(length), Ok(record_length)) = (u16::try_from(evidence.len()), u16::try_from(record_length))
    else {
        return Err(ExtensionError::Wrapper);
    };
    if evidence.len() < SHORTEST {
        return Err(ExtensionError::Wrapper);
    }
    let mut out = Vec::with_capacity(usize::from(record_length) + 4);
    out.extend_from_slice(OCTET_STRING);
    out.extend_from_slice(&record_length.to_be_bytes());
    out.extend_from_slice(RECORD_HEAD);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&evidence);
    out.push(RECORD_TAIL);
    Ok(out)
}

pub(crate) fn decode(extension: &[u8]) -> Result<Evidence, ExtensionError> {
    let evidence = unwrap(extension).ok_or(ExtensionError::Wrapper)?;
    Ok(Evidence::from_bytes(evidence)?)
}

fn unwrap(extension: &[u8]) -> Option<&[u8]> {
    let (length, record) = extension.strip_prefix(OCTET_STRING)?.split_first_chunk::<2>()?;
    if usize::from(u16::from_be_bytes(*length)) != record.len() {
        return None;
    }
    let (length, rest) = record.strip_prefix(RECORD_HEAD)?.split_first_chunk::<2>()?;
    let evidence = rest.strip_suffix(&[RECORD_TAIL])?;
    let exact = usize::from(u16::from_be_bytes(*length)) == evidence.len() && evidence.len() >= SHORTEST;
    exact.then_some(evidence)
}

#[cfg(test)]
mod tests {
    use postern_evidence::Tee;

    use super::*;

    fn sample() -> Evidence {
        Evidence { tee: Tee::Snp, report: vec![7; 1184], certificates: vec![9; 3000] }
    }

    #[test]
    fn reads_what_it_writes() {
        assert_eq!(decode(&encode(&sample()).unwrap()), Ok(sample()));
    }

    #[test]
    fn any_changed_frame_byte_is_refused() {
        let good = encode(&sample()).unwrap();
        let frame = (0..4 + RECORD_HEAD.len() + 2).chain([good.len() - 1]);
        for place in frame {
            let mut bad = good.clone();
            bad[place] ^= 1;
            assert_eq!(decode(&bad), Err(ExtensionError::Wrapper), "byte {place}");
        }
        for cut in 0..60 {
            assert!(decode(&good[..cut]).is_err());
        }
        assert!(decode(&[good, vec![0]].concat()).is_err());
    }
}
