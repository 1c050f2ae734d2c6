//! What a layer's tar stream says: its entries one by one, with their extended headers, sparse files and attributes.
//!
//! A pod unpacks a layer into its memory, an owner packs the same layer into a disk. Both read it here, so that no stream
//! means one thing to one and another to the other. Nothing here touches a file system or trusts a length, and every
//! quantity that a stream chooses has a bound.

#![forbid(unsafe_code)]

mod attribute;
mod pax;
mod records;
mod sparse;

pub use attribute::{Disposition, disposition};
pub use pax::PaxError;
pub use records::{Chunk, FormatError, Kind, Record, Records};
pub use sparse::SparseError;

/// What an image calls something, fit for one line of a terminal.
pub fn printable(bytes: &[u8]) -> String {
    const SHOWN: usize = 200;
    let text = bytes[..bytes.len().min(SHOWN)].escape_ascii().to_string();
    if bytes.len() > SHOWN { format!("{text}...") } else { text }
}
