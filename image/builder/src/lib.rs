//! The image a pod boots from: a kernel, an initramfs with the agent and the modules it needs, and `image.json`.
//!
//! Every step is a function of its inputs alone, so two builds from the same inputs give the same bytes wherever they
//! run: [`build::build`] puts them together, [`lock::Lock`] writes down what went in.

#![forbid(unsafe_code)]

pub mod build;
pub mod cpio;
pub mod elf;
pub mod figures;
pub mod initramfs;
pub mod kernel;
pub mod lock;
pub mod lz4;
pub mod modules;
pub mod profile;
pub mod provenance;
pub mod records;
pub mod sbom;
pub mod sources;

#[cfg(test)]
mod test_files;

use postern_model::Sha256;

fn sha256(bytes: &[u8]) -> Sha256 {
    let mut digest = [0; Sha256::LENGTH];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    Sha256::new(digest)
}
