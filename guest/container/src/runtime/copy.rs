//! Copying in and out: a tar stream on this side, a worker inside the container's mount namespace on the other.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use postern_model::ContainerName;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe;

use super::{CopyError, Runtime, container::Container};
use crate::{
    io::large_pipe,
    worker::{
        WorkerError,
        pool::Job,
        protocol::{CopyInRequest, CopyOutRequest, CopyRoot, JoinCgroup, Reply, Request},
    },
};

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
    /// Takes the archive. Drop it at the end of the archive. A broken pipe means that the other side has given up:
    /// `finish` says why.
    pub writer: Option<pipe::Sender>,
    job: Job,
}

impl CopyIn {
    /// Waits until everything is unpacked. Closes the writer, if it is still here.
    pub async fn finish(mut self) -> Result<CopySummary, CopyError> {
        drop(self.writer.take());
        conclude(self.job).await
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
    job: Job,
}

impl CopyOut {
    /// How the copy ended. To be called after the reader has come to its end.
    pub async fn finish(self) -> Result<CopySummary, CopyError> {
        drop(self.reader);
        conclude(self.job).await
    }
}

async fn conclude(mut job: Job) -> Result<CopySummary, CopyError> {
    match job.answer_at_last().await.map_err(CopyError::Worker)?.body {
        Reply::CopyDone(summary) => {
            job.finished();
            Ok(summary)
        }
        Reply::Failed(failure) => Err(CopyError::Refused(failure)),
        _ => Err(CopyError::Worker(WorkerError::Protocol)),
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
        let (container, place) = self.place(id)?;
        let (theirs, ours) = data_pipe()?;
        let defaults = &container.defaults;
        let request = Request::CopyIn(CopyInRequest {
            root: place.kind,
            cgroup: place.cgroup(&container),
            directory: absolute(directory),
            owner: (!options.preserve_owner).then_some((defaults.uid, defaults.gid)),
        });
        let fds = [place.root(&container), theirs.as_fd()];
        let job = self.shared.pool.begin(&request, &[], &fds).await.map_err(CopyError::Worker)?;
        let writer = Some(pipe::Sender::from_owned_fd(ours).map_err(CopyError::SetUp)?);
        Ok(CopyIn { writer, job })
    }

    /// Packs the file or directory at `path` into a tar stream.
    pub async fn copy_out(
        &self,
        id: &ContainerName,
        path: &Path,
        options: CopyOutOptions,
    ) -> Result<CopyOut, CopyError> {
        let (container, place) = self.place(id)?;
        let (ours, theirs) = data_pipe()?;
        let request = Request::CopyOut(CopyOutRequest {
            root: place.kind,
            cgroup: place.cgroup(&container),
            path: absolute(path),
            follow_link: options.follow_link,
        });
        let fds = [place.root(&container), theirs.as_fd()];
        let mut job = self.shared.pool.begin(&request, &[], &fds).await.map_err(CopyError::Worker)?;
        drop(theirs);
        match job.answer_at_last().await.map_err(CopyError::Worker)?.body {
            Reply::CopyBegin { total_bytes, is_directory } => {
                let reader = pipe::Receiver::from_owned_fd(ours).map_err(CopyError::SetUp)?;
                Ok(CopyOut { total_bytes, is_directory, reader, job })
            }
            Reply::Failed(failure) => Err(CopyError::Refused(failure)),
            _ => Err(CopyError::Worker(WorkerError::Protocol)),
        }
    }

    fn place(&self, id: &ContainerName) -> Result<(Arc<Container>, Place), CopyError> {
        let container =
            self.shared.container(id).ok_or_else(|| CopyError::UnknownContainer(id.to_string()))?;
        let place = match container.process.exit().now() {
            None => Place { kind: CopyRoot::Running, rootfs: None },
            Some(_) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let rootfs = rustix::fs::open(&container.rootfs, flags, Mode::empty())
                    .map_err(|error| CopyError::SetUp(error.into()))?;
                Place { kind: CopyRoot::Stopped, rootfs: Some(rootfs) }
            }
        };
        Ok((container, place))
    }
}

/// Where a worker finds the container's files.
struct Place {
    kind: CopyRoot,
    rootfs: Option<OwnedFd>,
}

impl Place {
    fn root<'a>(&'a self, container: &'a Container) -> BorrowedFd<'a> {
        self.rootfs.as_ref().unwrap_or(container.process.pidfd()).as_fd()
    }

    fn cgroup(&self, container: &Container) -> Option<JoinCgroup> {
        Some(container.cgroup.join())
    }
}

fn data_pipe() -> Result<(OwnedFd, OwnedFd), CopyError> {
    large_pipe().map_err(CopyError::SetUp)
}

/// Paths are the container's, from its root.
fn absolute(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}
