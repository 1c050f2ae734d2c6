//! The wire between a guest and a *simulated* SNP platform: what `SNP_GET_EXT_REPORT` is on a real one.
//!
//! One request, one answer, any number of times on one connection. All integers little-endian.
//! ```text
//! request  "PSIMREQ1"  report_data[64]
//! answer   "PSIMANS1"  status u32   report length u32   report   certificates length u32   certificates
//! ```
//! The certificates are the GHCB certificate table (GHCB 2.0, section 4.1.8.1), as `auxblob` of configfs-tsm.

use thiserror::Error;

pub const REQUEST_LENGTH: usize = 72;
pub const ANSWER_HEADER_LENGTH: usize = 16;
/// Largest report or certificate table that is accepted, in bytes.
pub const MAX_BLOB: usize = 64 * 1024;
/// vsock port on the host at which a guest finds its simulated platform.
pub const VSOCK_PORT: u32 = 1025;

const REQUEST_MAGIC: &[u8; 8] = b"PSIMREQ1";
const ANSWER_MAGIC: &[u8; 8] = b"PSIMANS1";

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SimDeviceError {
    #[error("simulated platform spoke another protocol")]
    Magic,
    #[error("simulated platform refused with status {0}")]
    Status(u32),
    #[error("simulated platform announced {0} bytes; at most {MAX_BLOB} are accepted")]
    TooLarge(usize),
}

pub fn encode_request(report_data: &[u8; 64]) -> [u8; REQUEST_LENGTH] {
    let mut request = [0; REQUEST_LENGTH];
    request[..8].copy_from_slice(REQUEST_MAGIC);
    request[8..].copy_from_slice(report_data);
    request
}

pub fn decode_request(request: &[u8; REQUEST_LENGTH]) -> Result<[u8; 64], SimDeviceError> {
    if &request[..8] != REQUEST_MAGIC {
        return Err(SimDeviceError::Magic);
    }
    let mut report_data = [0; 64];
    report_data.copy_from_slice(&request[8..]);
    Ok(report_data)
}

/// The whole answer of a platform that has a report to give.
pub fn encode_answer(report: &[u8], certificates: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut answer = Vec::with_capacity(ANSWER_HEADER_LENGTH + report.len() + 4 + certificates.len());
    answer.extend_from_slice(ANSWER_MAGIC);
    answer.extend_from_slice(&0u32.to_le_bytes());
    answer.extend_from_slice(&length(report));
    answer.extend_from_slice(report);
    answer.extend_from_slice(&length(certificates));
    answer.extend_from_slice(certificates);
    answer
}

/// The answer of a platform that has none. `status` is not zero.
pub fn encode_refusal(status: u32) -> [u8; ANSWER_HEADER_LENGTH] {
    let mut answer = [0; ANSWER_HEADER_LENGTH];
    answer[..8].copy_from_slice(ANSWER_MAGIC);
    answer[8..12].copy_from_slice(&status.to_le_bytes());
    answer
}

/// Length of the report that follows this header. The report is followed by a [`decode_length`] of its own.
pub fn decode_answer_header(header: &[u8; ANSWER_HEADER_LENGTH]) -> Result<usize, SimDeviceError> {
    if &header[..8] != ANSWER_MAGIC {
        return Err(SimDeviceError::Magic);
    }
    let status = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    if status != 0 {
        return Err(SimDeviceError::Status(status));
    }
    decode_length([header[12], header[13], header[14], header[15]])
}

/// A length as it stands on the wire, bounded by [`MAX_BLOB`].
pub fn decode_length(bytes: [u8; 4]) -> Result<usize, SimDeviceError> {
    let length = u32::from_le_bytes(bytes) as usize;
    if length > MAX_BLOB {
        return Err(SimDeviceError::TooLarge(length));
    }
    Ok(length)
}
