//! How much an image may ask of the guest.
//!
//! Images live in the guest's memory and come from outside: every quantity an image can choose has a bound here,
//! and a reserve stays free so that the agent keeps answering when the bound is reached.

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What an inode and its directory entry cost on a tmpfs, about; charged for every entry unpacked.
pub(crate) const ENTRY_COST: u64 = KIB;

/// Bounds of a [`Store`](crate::Store) and of every image that enters it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that all layers together may take, half-received ones included.
    pub total_bytes: u64,
    /// Bytes that stay free on the store's file system whatever an image wants.
    pub reserve_bytes: u64,
    /// Bytes of one layer once it is unpacked, holes of sparse files included.
    pub layer_bytes: u64,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Files, directories, links and whiteouts in one layer.
    pub entries_per_layer: u64,
    /// Layers of one image; overlayfs itself stops at 500.
    pub layers_per_image: usize,
    /// Bytes of a path in a layer, and of a link's target.
    pub path_bytes: usize,
    /// Directories above an entry.
    pub path_depth: usize,
    /// How many times larger than its compressed form a layer may become, once it is above `expansion_floor`.
    pub expansion_ratio: u64,
    pub expansion_floor: u64,
    /// Bytes of a manifest, an index or an image configuration.
    pub document_bytes: u64,
    /// Files in an image archive.
    pub archive_entries: usize,
    /// Images in the store.
    pub images: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total_bytes: 64 * GIB,
            reserve_bytes: 32 * MIB,
            layer_bytes: 16 * GIB,
            file_bytes: 8 * GIB - 1,
            entries_per_layer: 500_000,
            layers_per_image: 128,
            path_bytes: 4095,
            path_depth: 200,
            expansion_ratio: 250,
            expansion_floor: 64 * MIB,
            document_bytes: 4 * MIB,
            archive_entries: 4096,
            images: 1024,
        }
    }
}
