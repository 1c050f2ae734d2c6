//! One layer: from a tar stream to a directory that overlayfs can use.
//!
//! Docker's whiteouts become overlayfs' own: a character device 0/0 for a deleted name, an attribute for an opaque
//! directory. Device nodes are left out: a container gets its own `/dev`, and the device 0/0 would be a whiteout that
//! nobody declared. Owners, modes with their set-id bits, times, hard links, holes and the attributes that
//! `postern_layer::disposition` names are kept.

mod path;
mod tree;
mod writer;

use postern_layer::{Chunk, Records};

pub use path::PathError;
pub use tree::PlaceError;
pub use writer::{EntryProblem, UnpackError};
pub(crate) use writer::{Unpacked, unpack};

pub(crate) use path::EntryPath;

/// Reads `bytes` as a layer without touching a file system: every byte a fuzzer picks goes through the parser.
#[doc(hidden)]
pub fn fuzz_layer(bytes: &[u8]) {
    let limits = crate::Limits::default();
    let mut records = Records::new(bytes, limits.path_bytes);
    let mut buffer = [0; 4096];
    while let Ok(Some(record)) = records.next_record() {
        let _ = path::EntryPath::parse(&record.path, &limits);
        for (name, _) in &record.attributes {
            let _ = postern_layer::disposition(name);
        }
        while let Ok(Chunk::Data(_) | Chunk::Hole(_)) = records.data(&mut buffer) {}
    }
}
