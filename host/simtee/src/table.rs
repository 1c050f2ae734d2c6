//! Writes the GHCB certificate table that a platform hands out beside its reports.
//!
//! GHCB 2.0, section 4.1.8.1: GUID[16], offset u32, length u32 for each certificate, an entry of zeroes, the data.

const ENTRY: usize = 24;

/// Kinds of certificate by GUID, in RFC 9562 byte order.
pub(crate) const VCEK: [u8; 16] = *b"\x63\xda\x75\x8d\xe6\x64\x45\x64\xad\xc5\xf4\xb9\x3b\xe8\xac\xcd";
pub(crate) const ASK: [u8; 16] = *b"\x4a\xb7\xb3\x79\xbb\xac\x4f\xe4\xa0\x2f\x05\xae\xf3\x27\xc7\x82";
pub(crate) const ARK: [u8; 16] = *b"\xc0\xb4\x06\xa4\xa8\x03\x49\x52\x97\x43\x3f\xb6\x01\x4c\xd0\xae";

pub(crate) fn write(certificates: &[([u8; 16], &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut offset = ENTRY * (certificates.len() + 1);
    for (guid, der) in certificates {
        out.extend_from_slice(guid);
        // A certificate has a kilobyte or so.
        out.extend_from_slice(&(offset as u32).to_le_bytes());
        out.extend_from_slice(&(der.len() as u32).to_le_bytes());
        offset += der.len();
    }
    out.extend_from_slice(&[0; ENTRY]);
    for (_, der) in certificates {
        out.extend_from_slice(der);
    }
    out
}
