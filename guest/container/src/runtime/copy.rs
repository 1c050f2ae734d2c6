//! Copying in and out: a tar stream on this side, a worker inside the container's mount namespace on the other.

use std::path::Path;

use postern_model::ContainerName;
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe;

use super::{CopyError, Runtime};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyInOptions {
    /// Keep the archive's numeric owners; otherwise all belongs to the container's user.
    pub preserve_owner: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyOutOptions {
    /// Follow a symbolic link at the end of the path.
    pub follow_link: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CopySummary {
    pub entries: u64,
    /// Of file content.
    pub bytes: u64,
    /// Devices, sockets and pipes, which have no content to copy out.
    pub skipped: u64,
}

/// A running copy into a container.
#[derive(Debug)]
pub struct CopyIn {
    /// Takes the archive. Drop it (or shut it down) at the end of the archive. A broken pipe means that the other
    /// side has given up: `finish` says why.
    pub writer: Option<pipe::Sender>,
}

impl CopyIn {
    pub async fn finish(self) -> Result<CopySummary, CopyError> {
        Ok(CopySummary::default())
    }
}

/// A running copy out of a container.
#[derive(Debug)]
pub struct CopyOut {
    /// Sum of the sizes of the files that follow, for a progress bar.
    pub total_bytes: u64,
    pub is_directory: bool,
    /// Gives the archive, up to end of file. Only `finish` says whether it was whole.
    pub reader: pipe::Receiver,
}

impl CopyOut {
    pub async fn finish(self) -> Result<CopySummary, CopyError> {
        Ok(CopySummary::default())
    }
}

impl Runtime {
    /// Unpacks a tar stream below `directory`, which must exist, and never outside it. A container that has ended
    /// is written to without its volumes.
    pub async fn copy_in(
        &self,
        id: &ContainerName,
        directory: &Path,
        options: CopyInOptions,
    ) -> Result<CopyIn, CopyError> {
        let _ = (directory, options);
        Err(CopyError::UnknownContainer(id.to_string()))
    }

    /// Packs the file or directory at `path` into a tar stream.
    pub async fn copy_out(
        &self,
        id: &ContainerName,
        path: &Path,
        options: CopyOutOptions,
    ) -> Result<CopyOut, CopyError> {
        let _ = (path, options);
        Err(CopyError::UnknownContainer(id.to_string()))
    }
}
