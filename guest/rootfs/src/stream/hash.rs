//! SHA-256 of what passes.

use std::io::{self, Read};

use postern_model::Sha256;
use ring::digest;

pub(crate) fn sha256(bytes: &[u8]) -> Sha256 {
    finish(digest::digest(&digest::SHA256, bytes))
}

/// Hashes and counts what is read through it.
pub(crate) struct Hashed<R> {
    inner: R,
    context: digest::Context,
    count: u64,
}

impl<R: Read> Hashed<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, context: digest::Context::new(&digest::SHA256), count: 0 }
    }

    pub(crate) fn finish(self) -> (Sha256, u64) {
        (finish(self.context.finish()), self.count)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.context.update(&buffer[..length]);
        self.count += length as u64;
        Ok(length)
    }
}

fn finish(digest: digest::Digest) -> Sha256 {
    let mut bytes = [0; Sha256::LENGTH];
    bytes.copy_from_slice(digest.as_ref());
    Sha256::new(bytes)
}
