//! A worker that goes into a container to move files: into its mounts, its memory limit, and out of its own power.

use std::{io, os::fd::OwnedFd};

use rustix::{
    fs::Mode,
    process::{chdir, chroot, fchdir, umask},
    thread::{CapabilitySet, CapabilitySets, ThreadNameSpaceType, set_capabilities, set_no_new_privs},
};

use super::{
    exec::enter,
    protocol::{CopyRoot, JoinCgroup},
};
use crate::runtime::{Failure, FailureKind};

/// The first to go when the container's memory runs out (proc_pid_oom_score_adj(5)).
const FIRST_VICTIM: &str = "1000";

/// Makes the container's root this process's root. Memory that the copy takes (page cache, tmpfs) is the container's;
/// if that is too much, this process ends and not the workload. What the container has placed in the way (links,
/// mounts, devices) is met with the right to read and own files and no other.
pub(super) fn enter_container(
    kind: CopyRoot,
    root: &OwnedFd,
    cgroup: Option<&JoinCgroup>,
) -> Result<(), Failure> {
    let _ = std::fs::write("/proc/self/oom_score_adj", FIRST_VICTIM);
    if let Some(cgroup) = cgroup {
        join(cgroup).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::new(FailureKind::Ended, "the container has ended"),
            _ => Failure::system("control group", error),
        })?;
    }
    match kind {
        CopyRoot::Running => enter(root, ThreadNameSpaceType::MOUNT)?,
        CopyRoot::Stopped => {
            let change = || -> rustix::io::Result<()> {
                fchdir(root)?;
                chroot(".")?;
                chdir("/")
            };
            change().map_err(|error| Failure::system("root file system", error))?;
        }
    }
    umask(Mode::empty());
    let files =
        CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER | CapabilitySet::FSETID;
    let sets = CapabilitySets { effective: files, permitted: files, inheritable: CapabilitySet::empty() };
    set_no_new_privs(true)
        .and_then(|()| set_capabilities(None, sets))
        .map_err(|error| Failure::system("capabilities", error))
}

fn join(cgroup: &JoinCgroup) -> io::Result<()> {
    let directories = match cgroup {
        JoinCgroup::Unified(directory) => std::slice::from_ref(directory),
        JoinCgroup::Legacy(directories) => directories,
    };
    directories.iter().try_for_each(|directory| std::fs::write(directory.join("cgroup.procs"), "0"))
}

/// In terms of what was copied: whose fault an error is.
pub(super) fn explain(what: impl std::fmt::Display, error: &io::Error) -> Failure {
    let kind = match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => FailureKind::Space,
        Some(
            libc::ENOENT
            | libc::ENOTDIR
            | libc::EISDIR
            | libc::ELOOP
            | libc::EXDEV
            | libc::EROFS
            | libc::EACCES,
        ) => FailureKind::Path,
        Some(libc::ENOTEMPTY | libc::EEXIST | libc::EPERM | libc::ENAMETOOLONG | libc::EBUSY) => {
            FailureKind::Path
        }
        Some(_) => FailureKind::System,
        None => FailureKind::Archive,
    };
    Failure::new(kind, format!("{what}: {error}"))
}
