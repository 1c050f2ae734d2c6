//! An image disk as a guest takes it: how large its file system is and what its dm-verity tree must hash to.
//!
//! Data blocks come first, the hash tree follows them at once, top level first, as `veritysetup --no-superblock` lays it
//! out: SHA-256, blocks of 4096 bytes, no salt.

use crate::Sha256;

/// Bytes of a block of data, and of one of the hash tree.
pub const BLOCK: u64 = 4096;
/// Digests in one block of the tree.
const FAN_OUT: u64 = BLOCK / Sha256::LENGTH as u64;
/// With a single block the root would be the digest of data, and there would be no tree.
const MIN_BLOCKS: u64 = 2;
/// 16 TiB: an erofs counts its blocks with 32 bits.
const MAX_BLOCKS: u64 = 1 << 32;
/// A virtio disk's serial number has at most 20 bytes.
const SERIAL: usize = 20;

/// Numbers of blocks that no image disk has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an image disk has {MIN_BLOCKS} to {MAX_BLOCKS} blocks of data, not {0}")]
pub struct BlockCountError(u64);

/// The root hash and what it is the root of. Everything else about a disk is the host's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageDisk {
    root_hash: Sha256,
    data_blocks: u64,
}

impl ImageDisk {
    pub fn new(root_hash: Sha256, data_blocks: u64) -> Result<Self, BlockCountError> {
        match (MIN_BLOCKS..=MAX_BLOCKS).contains(&data_blocks) {
            true => Ok(Self { root_hash, data_blocks }),
            false => Err(BlockCountError(data_blocks)),
        }
    }

    pub fn root_hash(&self) -> Sha256 {
        self.root_hash
    }

    pub fn data_blocks(&self) -> u64 {
        self.data_blocks
    }

    /// Bytes of the file system, and where the hash tree begins.
    pub fn data_bytes(&self) -> u64 {
        self.data_blocks * BLOCK
    }

    /// Bytes of the file system and its tree: a device that is shorter cannot be the disk.
    pub fn verified_bytes(&self) -> u64 {
        (self.data_blocks + tree_blocks(self.data_blocks)) * BLOCK
    }

    /// The name by which the host plugs it in and the guest finds it: the root hash's first digits. Trusted by nobody.
    pub fn serial(&self) -> String {
        let mut digits = self.root_hash.to_hex();
        digits.truncate(SERIAL);
        digits
    }
}

/// Blocks of the hash tree over so many blocks of data.
fn tree_blocks(data_blocks: u64) -> u64 {
    let level = |below: &u64| (*below > 1).then(|| below.div_ceil(FAN_OUT));
    std::iter::successors(Some(data_blocks), level).skip(1).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_grows_a_level_when_a_block_of_digests_is_full() {
        for (data, tree) in [(2, 1), (128, 1), (129, 3), (16_384, 129), (16_385, 132)] {
            let disk = ImageDisk::new(Sha256::new([0xab; 32]), data).unwrap();
            assert_eq!(disk.verified_bytes() - disk.data_bytes(), tree * BLOCK, "{data}");
        }
    }

    #[test]
    fn no_disk_is_empty_or_endless() {
        for blocks in [0, 1, (1 << 32) + 1, u64::MAX] {
            assert_eq!(ImageDisk::new(Sha256::new([0; 32]), blocks), Err(BlockCountError(blocks)));
        }
        let largest = ImageDisk::new(Sha256::new([0; 32]), 1 << 32).unwrap();
        assert!(largest.verified_bytes() > largest.data_bytes());
    }

    #[test]
    fn a_serial_fits_a_virtio_disk() {
        let disk = ImageDisk::new(Sha256::new([0xab; 32]), 2).unwrap();
        assert_eq!(disk.serial(), "ab".repeat(10));
    }
}
