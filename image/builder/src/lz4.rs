//! LZ4 in its old frame, the only one that the kernel unpacks (`lib/decompress_unlz4.c`): a magic word, then blocks of
//! 8 MiB, each after its packed length.

use std::io;

use lz4::block::{CompressionMode, compress, decompress};

/// `LZ4_LEGACY`, little-endian.
const MAGIC: [u8; 4] = 0x184C_2102_u32.to_le_bytes();
/// What a block holds; the last one may hold less.
const BLOCK: usize = 8 << 20;
/// The highest: packing is done once, and what is packed best also unpacks fastest.
const LEVEL: i32 = 12;

/// The same bytes from the same input, always.
pub fn pack(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut packed = MAGIC.to_vec();
    for block in bytes.chunks(BLOCK) {
        let block = compress(block, Some(CompressionMode::HIGHCOMPRESSION(LEVEL)), false)?;
        let length = u32::try_from(block.len()).map_err(|_| invalid("a block does not fit its length"))?;
        packed.extend_from_slice(&length.to_le_bytes());
        packed.extend_from_slice(&block);
    }
    Ok(packed)
}

/// What was packed, if it is at most `limit` bytes.
pub fn unpack(packed: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    let mut rest =
        packed.strip_prefix(&MAGIC).ok_or_else(|| invalid("not packed with LZ4 in its old frame"))?;
    let mut bytes = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (block, after) = after.split_at_checked(length).ok_or_else(|| invalid("a block is cut short"))?;
        bytes.extend_from_slice(&decompress(block, i32::try_from(BLOCK).ok())?);
        if bytes.len() > limit {
            return Err(invalid("it unpacks to more than was expected"));
        }
        rest = after;
    }
    match rest {
        [] => Ok(bytes),
        _ => Err(invalid("the last block's length is cut short")),
    }
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was() {
        let long: Vec<u8> = (0..BLOCK + 100_000).map(|i| (i / 7 % 251) as u8).collect();
        for bytes in [&b"agent"[..], &[], &long] {
            assert!(unpack(&pack(bytes).unwrap(), 2 * BLOCK).unwrap() == bytes, "{}", bytes.len());
        }
    }

    #[test]
    fn refuses_what_is_cut_foreign_or_too_much() {
        let packed = pack(&[7; 1000]).unwrap();
        for cut in 1..packed.len() {
            let cut = unpack(&packed[..cut], 1000);
            assert!(cut.is_err() || cut.unwrap().is_empty());
        }
        assert!(unpack(&packed, 999).is_err());
        assert!(unpack(b"070701", 1000).is_err());
    }
}
