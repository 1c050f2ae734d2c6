//! The exchange that follows the TLS handshake and precedes HTTP/2: a nonce for fresh evidence.
//!
//! ```text
//! owner -> guest   "PSTNCHL1"   nonce[32]
//! guest -> owner   "PSTNEVD1"   status u32   length u32   evidence
//! ```
//! Integers little-endian. Status 0: `evidence` follows, as [`Evidence::to_bytes`] writes it, over
//! `binding::session(nonce, exporter, Purpose::Session)`; its certificates may be empty, which means those that came
//! with the guest's TLS certificate. Status 1: the TEE gave none; length is 0. Both frames are sent exactly once;
//! a frame of another shape ends the connection. The digit in the magic is the version of this exchange.

use std::io;

use postern_evidence::{Evidence, FormatError, format::MAX_EVIDENCE};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const CHALLENGE_MAGIC: &[u8; 8] = b"PSTNCHL1";
const ANSWER_MAGIC: &[u8; 8] = b"PSTNEVD1";
const ANSWER_HEADER: usize = 16;
const STATUS_EVIDENCE: u32 = 0;
const STATUS_NONE: u32 = 1;

/// Why the exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("peer speaks another version of the exchange, or another protocol")]
    Magic,
    #[error("peer announced {0} bytes of evidence; at most {MAX_EVIDENCE} are accepted")]
    TooLarge(usize),
    #[error("guest answered with unknown status {0}")]
    Status(u32),
    #[error("evidence cannot be read")]
    Evidence(#[from] FormatError),
    #[error("connection failed")]
    Io(#[from] io::Error),
}

/// The guest's answer to a challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Evidence(Evidence),
    /// The TEE gave no evidence. Why is the guest's business.
    None,
}

pub(crate) async fn send_challenge<IO: AsyncWrite + Unpin>(
    io: &mut IO,
    nonce: &[u8; 32],
) -> Result<(), WireError> {
    let mut frame = [0; 40];
    frame[..8].copy_from_slice(CHALLENGE_MAGIC);
    frame[8..].copy_from_slice(nonce);
    io.write_all(&frame).await?;
    Ok(io.flush().await?)
}

pub(crate) async fn receive_challenge<IO: AsyncRead + Unpin>(io: &mut IO) -> Result<[u8; 32], WireError> {
    let mut frame = [0; 40];
    io.read_exact(&mut frame).await?;
    if &frame[..8] != CHALLENGE_MAGIC {
        return Err(WireError::Magic);
    }
    let mut nonce = [0; 32];
    nonce.copy_from_slice(&frame[8..]);
    Ok(nonce)
}

pub(crate) async fn send_answer<IO: AsyncWrite + Unpin>(
    io: &mut IO,
    answer: &Answer,
) -> Result<(), WireError> {
    io.write_all(&encode_answer(answer)?).await?;
    Ok(io.flush().await?)
}

pub(crate) async fn receive_answer<IO: AsyncRead + Unpin>(io: &mut IO) -> Result<Answer, WireError> {
    let mut header = [0; ANSWER_HEADER];
    io.read_exact(&mut header).await?;
    match decode_answer_header(&header)? {
        None => Ok(Answer::None),
        Some(length) => {
            let mut evidence = vec![0; length];
            io.read_exact(&mut evidence).await?;
            Ok(Answer::Evidence(Evidence::from_bytes(&evidence)?))
        }
    }
}

fn encode_answer(answer: &Answer) -> Result<Vec<u8>, WireError> {
    let (status, evidence) = match answer {
        Answer::Evidence(evidence) => (STATUS_EVIDENCE, evidence.to_bytes()?),
        Answer::None => (STATUS_NONE, Vec::new()),
    };
    let length = u32::try_from(evidence.len()).map_err(|_| WireError::TooLarge(evidence.len()))?;
    let mut frame = Vec::with_capacity(ANSWER_HEADER + evidence.len());
    frame.extend_from_slice(ANSWER_MAGIC);
    frame.extend_from_slice(&status.to_le_bytes());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&evidence);
    Ok(frame)
}

/// How many bytes of evidence follow, if any.
fn decode_answer_header(header: &[u8; ANSWER_HEADER]) -> Result<Option<usize>, WireError> {
    let [magic @ .., s0, s1, s2, s3, l0, l1, l2, l3] = *header;
    if magic != *ANSWER_MAGIC {
        return Err(WireError::Magic);
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    match u32::from_le_bytes([s0, s1, s2, s3]) {
        STATUS_EVIDENCE if length <= MAX_EVIDENCE => Ok(Some(length)),
        STATUS_NONE if length == 0 => Ok(None),
        STATUS_EVIDENCE | STATUS_NONE => Err(WireError::TooLarge(length)),
        other => Err(WireError::Status(other)),
    }
}

#[cfg(test)]
mod tests {
    use postern_evidence::Tee;

    use super::*;

    #[tokio::test]
    async fn reads_what_it_writes() {
        let (mut a, mut b) = tokio::io::duplex(1 << 16);
        send_challenge(&mut a, &[7; 32]).await.unwrap();
        assert_eq!(receive_challenge(&mut b).await.unwrap(), [7; 32]);
        let evidence = Evidence { tee: Tee::Snp, report: vec![1; 1184], certificates: vec![] };
        for answer in [Answer::Evidence(evidence), Answer::None] {
            send_answer(&mut b, &answer).await.unwrap();
            assert_eq!(receive_answer(&mut a).await.unwrap(), answer);
        }
    }

    #[test]
    fn headers_have_the_documented_bytes() {
        assert_eq!(encode_answer(&Answer::None).unwrap(), b"PSTNEVD1\x01\0\0\0\0\0\0\0");
        assert!(matches!(decode_answer_header(b"PSTNEVD1\0\0\0\0\x10\0\0\0"), Ok(Some(16))));
        assert!(matches!(decode_answer_header(b"PSTNEVD2\0\0\0\0\x10\0\0\0"), Err(WireError::Magic)));
        assert!(matches!(decode_answer_header(b"PSTNEVD1\0\0\0\0\0\0\0\x7f"), Err(WireError::TooLarge(_))));
        assert!(matches!(decode_answer_header(b"PSTNEVD1\x01\0\0\0\x01\0\0\0"), Err(WireError::TooLarge(1))));
        assert!(matches!(decode_answer_header(b"PSTNEVD1\x02\0\0\0\0\0\0\0"), Err(WireError::Status(2))));
    }

    #[tokio::test]
    async fn another_protocol_is_not_answered() {
        let (mut a, mut b) = tokio::io::duplex(1 << 10);
        a.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n0123456789abcdef").await.unwrap();
        assert!(matches!(receive_challenge(&mut b).await, Err(WireError::Magic)));
    }
}
