//! From what an owner asks for and what an image says to an OCI runtime specification.

use std::path::PathBuf;

use oci_spec::{image::ImageConfiguration, runtime::Spec};
use postern_model::ContainerSpec;

/// What the pod supplies to every container.
#[derive(Debug, Clone)]
pub struct SpecContext {
    /// The container's root file system, ready and mounted; nobody else writes to it.
    pub rootfs: PathBuf,
    /// Files to appear as `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`. Each must exist.
    pub hosts: PathBuf,
    pub hostname_file: PathBuf,
    pub resolv_conf: PathBuf,
    /// Host name where the owner asks for none.
    pub hostname: String,
    /// Directory with one directory per volume of the pod. Those that are asked for are made.
    pub volumes: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error("image names no command and none was given")]
    NoCommand,
}

/// Builds the specification. Reads the root file system (users, working directory) and makes what the container
/// expects to find in it (working directory, mount points of volumes); blocking.
pub fn build(spec: &ContainerSpec, image: &ImageConfiguration, context: &SpecContext) -> Result<Spec, SpecError> {
    let _ = (spec, image, context);
    Err(SpecError::NoCommand)
}
