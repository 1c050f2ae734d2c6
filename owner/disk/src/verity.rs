//! The hash tree of dm-verity (Linux, Documentation/admin-guide/device-mapper/verity.rst): format 1, SHA-256, blocks of
//! 4096 bytes, no superblock.
//!
//! No salt: it would only keep equal blocks of different disks from having equal digests, which a disk that everybody may
//! read has no use for, and it would make one image into many root hashes.

use std::io::{self, Read};

use postern_model::{Sha256, disk::BLOCK};
use ring::digest::{Context, SHA256, digest};

const BYTES: usize = BLOCK as usize;

pub(crate) fn sha256(bytes: &[u8]) -> Sha256 {
    from(digest(&SHA256, bytes))
}

pub(crate) fn sha256_of(context: Context) -> Sha256 {
    from(context.finish())
}

fn from(digest: ring::digest::Digest) -> Sha256 {
    let mut bytes = [0; Sha256::LENGTH];
    bytes.copy_from_slice(digest.as_ref());
    Sha256::new(bytes)
}

/// A tree as it lies on the disk, top level first.
pub(crate) struct HashTree {
    pub(crate) root_hash: Sha256,
    pub(crate) bytes: Vec<u8>,
}

/// Reads `blocks` blocks of data. There are at least two.
pub(crate) fn hash_tree(mut data: impl Read, blocks: u64) -> io::Result<HashTree> {
    let mut block = vec![0; BYTES];
    let mut level = Vec::new();
    for _ in 0..blocks {
        data.read_exact(&mut block)?;
        level.extend_from_slice(sha256(&block).as_bytes());
    }
    let mut levels = Vec::new();
    loop {
        level.resize(level.len().next_multiple_of(BYTES), 0);
        let above: Vec<u8> = level.chunks(BYTES).flat_map(|block| *sha256(block).as_bytes()).collect();
        levels.push(level);
        if let Ok(root) = <[u8; Sha256::LENGTH]>::try_from(above.as_slice()) {
            let bytes = levels.into_iter().rev().flatten().collect();
            return Ok(HashTree { root_hash: Sha256::new(root), bytes });
        }
        level = above;
    }
}
