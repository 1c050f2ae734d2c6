//! Bytes on their way into the store: across threads, through a hash, out of their compression.

mod decode;
mod hash;
mod pipe;

pub(crate) use decode::{Compression, Decoder};
pub(crate) use hash::{Hashed, sha256};
pub(crate) use pipe::{PipeWriter, pipe};
