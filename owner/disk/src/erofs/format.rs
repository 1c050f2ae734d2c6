//! Structures of erofs as they lie on the disk, little-endian (Linux, fs/erofs/erofs_fs.h).

use std::collections::BTreeMap;

use postern_model::disk::BLOCK;

use crate::tree::Inode;

/// Offset and size of the superblock.
pub(super) const SUPERBLOCK: u64 = 1024;
pub(super) const SUPERBLOCK_BYTES: u64 = 128;
const MAGIC: u32 = 0xe0f5_e1e2;
/// `EROFS_FEATURE_COMPAT_MTIME`: times are of modification.
const COMPATIBLE: u32 = 0x2;
const BLOCK_BITS: u8 = 12;
/// Inodes are numbered by the slots of this size that lie before them.
const SLOT: u64 = 32;
/// The extended inode: with 32-bit owners and a time of its own.
const INODE: u64 = 64;
const INODE_EXTENDED: u16 = 1;
/// `EROFS_INODE_FLAT_PLAIN` and `_FLAT_INLINE`, in `i_format`.
const PLAIN: u16 = 0 << 1;
const INLINE: u16 = 2 << 1;
/// Before an inode's attributes.
const ATTRIBUTES_HEADER: usize = 12;

pub(super) struct Superblock {
    pub(super) root: u64,
    pub(super) inodes: u64,
    pub(super) blocks: u32,
}

impl Superblock {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_le_bytes());
        // No checksum: dm-verity checks every block.
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(COMPATIBLE.to_le_bytes());
        bytes.extend([BLOCK_BITS, 0]);
        // The root is the first inode, right behind this.
        bytes.extend(u16::try_from(self.root).unwrap_or_default().to_le_bytes());
        bytes.extend(self.inodes.to_le_bytes());
        // When the file system was made: never, so that it is the same tomorrow.
        bytes.extend([0; 12]);
        bytes.extend(self.blocks.to_le_bytes());
        // Inodes are counted from block 0. No shared attributes, no identifier, no name, no incompatible feature.
        bytes.resize(SUPERBLOCK_BYTES as usize, 0);
        bytes
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum FileType {
    File = 1,
    Directory = 2,
    Fifo = 5,
    Symlink = 7,
}

impl FileType {
    /// `S_IFMT` bits of `st_mode`.
    fn mode(self) -> u16 {
        match self {
            Self::File => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Fifo => 0o010_000,
            Self::Symlink => 0o120_000,
        }
    }
}

/// Where an inode and its data are.
#[derive(Debug, Clone)]
pub(super) struct Placement {
    ordinal: u32,
    pub(super) parent: usize,
    pub(super) links: u32,
    pub(super) size: u64,
    attributes: u64,
    pub(super) at: u64,
    pub(super) first_block: u32,
}

impl Placement {
    pub(super) const NOWHERE: Self =
        Self { ordinal: 0, parent: 0, links: 0, size: 0, attributes: 0, at: 0, first_block: 0 };

    pub(super) fn new(
        ordinal: u32,
        parent: usize,
        size: u64,
        attributes: &BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Self {
        let attributes = self::attributes(attributes).len() as u64;
        Self { ordinal, parent, links: 1, size, attributes, at: 0, first_block: 0 }
    }

    /// Takes the next place at or after `at`; returns what follows it. An inode does not straddle blocks if it can be
    /// avoided, and never with data at its end.
    pub(super) fn place(&mut self, at: u64) -> u64 {
        let length = self.head() + self.inline_bytes();
        let room = BLOCK - at % BLOCK;
        self.at = if length > room { at.next_multiple_of(BLOCK) } else { at };
        (self.at + length).next_multiple_of(SLOT)
    }

    fn head(&self) -> u64 {
        INODE + self.attributes
    }

    /// Bytes at the end of the data that lie behind the inode.
    pub(super) fn inline_bytes(&self) -> u64 {
        match self.size % BLOCK {
            tail if self.head() + tail <= BLOCK => tail,
            _ => 0,
        }
    }

    /// Blocks of data elsewhere.
    pub(super) fn whole_blocks(&self) -> u64 {
        (self.size - self.inline_bytes()).div_ceil(BLOCK)
    }

    /// The inode's number.
    pub(super) fn number(&self) -> u64 {
        self.at / SLOT
    }

    pub(super) fn inode(&self, inode: &Inode, file_type: FileType) -> Vec<u8> {
        let layout = if self.inline_bytes() > 0 { INLINE } else { PLAIN };
        // In units of four bytes, where the header counts as one.
        let attributes = match self.attributes {
            0 => 0,
            bytes => (bytes - ATTRIBUTES_HEADER as u64) / 4 + 1,
        };
        let meta = &inode.meta;
        let mut bytes = Vec::new();
        bytes.extend((INODE_EXTENDED | layout).to_le_bytes());
        bytes.extend(u16::try_from(attributes).unwrap_or_default().to_le_bytes());
        bytes.extend((file_type.mode() | meta.mode).to_le_bytes());
        bytes.extend(0_u16.to_le_bytes());
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(self.first_block.to_le_bytes());
        bytes.extend(self.ordinal.to_le_bytes());
        bytes.extend(meta.uid.to_le_bytes());
        bytes.extend(meta.gid.to_le_bytes());
        bytes.extend(meta.mtime.0.to_le_bytes());
        bytes.extend(meta.mtime.1.to_le_bytes());
        bytes.extend(self.links.to_le_bytes());
        bytes.resize(INODE as usize, 0);
        bytes
    }
}

/// An inode's extended attributes; nothing at all when it has none.
pub(super) fn attributes(attributes: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    /// `EROFS_XATTR_INDEX_*`: prefixes that are not written out.
    const PREFIXES: [(&[u8], u8); 2] = [(b"user.", 1), (b"security.", 6)];
    let mut bytes = Vec::new();
    for (name, value) in attributes {
        let known = PREFIXES.iter().find_map(|(prefix, index)| Some((name.strip_prefix(*prefix)?, *index)));
        // Others were left out when their layer was read.
        let Some((rest, index)) = known else { continue };
        if bytes.is_empty() {
            bytes.resize(ATTRIBUTES_HEADER, 0);
        }
        bytes.extend([u8::try_from(rest.len()).unwrap_or(u8::MAX), index]);
        bytes.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend(rest);
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}
