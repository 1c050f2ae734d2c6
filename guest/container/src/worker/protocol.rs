//! What the runtime and a worker say to each other, over one socket per operation.
//!
//! ```text
//! runtime                                worker
//!         <-- Hello                      its pid and pidfd
//!         --> Request                    with descriptors
//!         <-- Reply ...                  one, or CopyBegin and CopyDone
//! ```
//! After `Spawned` the new process itself holds the socket: the runtime sends one byte ([`GO`]) once it has taken
//! charge of the process, and end of file means that the command runs; a `Failed` that it does not.

use std::path::PathBuf;

use oci_spec::runtime::LinuxSeccomp;
use serde::{Deserialize, Serialize};

use crate::runtime::{CopySummary, Failure, Init};

pub(crate) const GO: u8 = b'G';

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Create(CreateRequest),
    Exec(ExecRequest),
    /// Answered with `Filter`.
    CompileFilter(LinuxSeccomp),
    CopyIn(CopyInRequest),
    CopyOut(CopyOutRequest),
}

/// Blob: the seccomp filter. Descriptors: the status pipe, then three streams unless there is a terminal.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CreateRequest {
    pub(crate) id: String,
    /// Holds `config.json`.
    pub(crate) bundle: PathBuf,
    /// libcontainer's own state, one directory per container.
    pub(crate) root: PathBuf,
    pub(crate) init: Init,
    pub(crate) terminal: bool,
    /// Owner of the streams.
    pub(crate) uid: u32,
    /// Control group that needs a device filter of ours (cgroup v2).
    pub(crate) filter_devices_of: Option<PathBuf>,
}

/// Blob: the seccomp filter. Descriptors: pidfd of the container's init, then three streams unless there is a terminal.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecRequest {
    pub(crate) cgroup: JoinCgroup,
    pub(crate) args: Vec<String>,
    /// `KEY=value`, complete but for HOME.
    pub(crate) env: Vec<String>,
    pub(crate) home: Home,
    pub(crate) cwd: PathBuf,
    pub(crate) user: ExecUser,
    pub(crate) terminal: Option<(u16, u16)>,
    pub(crate) confinement: Confinement,
}

/// How a process gets into a container's control group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum JoinCgroup {
    /// Born in this one (cgroup v2).
    Unified(PathBuf),
    /// Moved into each of these (cgroup v1).
    Legacy(Vec<PathBuf>),
}

#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) enum Home {
    /// In the environment already.
    Given,
    /// To be looked up for the user.
    OfUser,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ExecUser {
    Ids {
        uid: u32,
        gid: u32,
        groups: Vec<u32>,
    },
    /// `user[:group]`, to be looked up in the container.
    Named(String),
}

/// What holds a process in: the same for a container's init and everything executed later.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Confinement {
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    /// Resource number as in getrlimit(2), soft, hard.
    pub(crate) rlimits: Vec<(u32, u64, u64)>,
    pub(crate) umask: u32,
}

/// Where to copy: descriptors are pidfd of the init (running) or the root file system's directory (not running), then
/// the data pipe.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) enum CopyRoot {
    Running,
    Stopped,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CopyInRequest {
    pub(crate) root: CopyRoot,
    pub(crate) cgroup: Option<JoinCgroup>,
    pub(crate) directory: PathBuf,
    /// Owner of everything unpacked; `None` keeps the archive's.
    pub(crate) owner: Option<(u32, u32)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CopyOutRequest {
    pub(crate) root: CopyRoot,
    pub(crate) cgroup: Option<JoinCgroup>,
    pub(crate) path: PathBuf,
    pub(crate) follow_link: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Descriptor: the worker's pidfd.
    Hello {
        pid: u32,
    },
    /// Descriptors: init's pidfd, then the terminal's master if there is one.
    Created {
        pid: u32,
    },
    /// Descriptors: the process's pidfd, then the terminal's master if there is one.
    Spawned {
        pid: u32,
    },
    /// Blob: the compiled filter.
    Filter,
    CopyBegin {
        total_bytes: u64,
        is_directory: bool,
    },
    CopyDone(CopySummary),
    Failed(Failure),
}
