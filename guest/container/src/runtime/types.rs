//! What goes into and comes out of a [`Runtime`](super::Runtime).

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use oci_spec::runtime::Spec;
use postern_model::ContainerName;

use crate::{io::ProcessIo, io::Stdio, process::Process};

/// Where a runtime keeps and finds things.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// A directory of the runtime's own, which no container can write to. Made if missing; private (0700).
    pub state_dir: PathBuf,
    /// The program to execute as a worker, which calls [`worker::main`](crate::worker::main) first thing.
    pub worker: PathBuf,
    /// Control group, below the root of the hierarchy, below which each container gets its own. One or more names
    /// separated by `/`. Two runtimes on one machine need two.
    pub cgroup_parent: String,
    /// What all containers of the pod together may take; the rest is the agent's.
    pub limits: PodLimits,
    /// How long a worker may take for one operation (copies aside, which last as long as bytes move).
    pub deadline: Duration,
}

impl RuntimeConfig {
    pub fn new(
        state_dir: impl Into<PathBuf>,
        worker: impl Into<PathBuf>,
        cgroup_parent: impl Into<String>,
    ) -> Self {
        Self {
            state_dir: state_dir.into(),
            worker: worker.into(),
            cgroup_parent: cgroup_parent.into(),
            limits: PodLimits::default(),
            deadline: Duration::from_secs(30),
        }
    }
}

/// Limits of the pod's containers together, so that the agent keeps answering whatever they do. `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PodLimits {
    /// Bytes.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// What runs as the container's first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Init {
    /// `process.args` of the specification.
    Command,
    /// Nothing of the root file system: the worker's own code, sleeping and reaping. For the pod's pause container,
    /// whose root file system may be empty.
    Pause,
    /// As [`Init::Pause`], and made to be removed again: while nothing else has to be done, and never to run.
    Rehearsal,
}

#[derive(Debug)]
pub struct CreateContainer {
    pub id: ContainerName,
    /// From [`spec::build`](crate::spec::build). Its control group is the runtime's business and is replaced.
    pub spec: Spec,
    pub init: Init,
    pub stdio: Stdio,
}

#[derive(Debug)]
pub struct Created {
    /// The container's init process; waits for `start`.
    pub process: Process,
    pub io: ProcessIo,
}

/// A further process in a running container. What is left open is as for the container's init process.
#[derive(Debug, Clone, Default)]
pub struct ExecProcess {
    pub args: Vec<String>,
    /// On top of the container's environment; the same key replaces.
    pub env: BTreeMap<String, String>,
    pub cwd: Option<PathBuf>,
    /// `user[:group]`, by name or number.
    pub user: Option<String>,
}

/// Whom a signal goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Init,
    /// Every process of the container.
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    pub cpu_usage_nanos: u64,
    /// In use, without page cache that can be given back at once.
    pub memory_bytes: u64,
    pub memory_limit: Option<u64>,
    pub pids: u64,
    pub pids_limit: Option<u64>,
    /// Processes killed because memory ran out.
    pub oom_kills: u64,
}

/// One line of `top`. Everything but the numbers is the container's own word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Ids as the container sees them.
    pub pid: u32,
    pub parent_pid: u32,
    pub uid: u32,
    /// One letter, as in `/proc/PID/stat`.
    pub state: char,
    pub cpu_millis: u64,
    pub resident_bytes: u64,
    pub command: Vec<String>,
}
