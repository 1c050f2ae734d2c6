//! Image disks: a container image flattened into one read-only file system (erofs), with the dm-verity tree that lets a
//! guest check every block of it against one digest. The host lends the file to any number of pods and is not trusted.
//!
//! The same image gives the same bytes: nothing of this machine, its clock or its user goes in. [`pack`] writes a disk,
//! [`PackedDisk::open`] reads what one says of itself and [`PackedDisk::verify`] every byte of it.

#![forbid(unsafe_code)]

mod erofs;
mod file;
mod layer;
mod scratch;
mod tree;
mod verity;

pub use erofs::ErofsError;
pub use file::{DiskError, DiskManifest, PackError, PackedDisk, Source, pack};
pub use layer::{LayerBlob, LayerError};
pub use postern_layer::FormatError;
pub use tree::PlaceError;
