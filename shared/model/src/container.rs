//! What an owner asks of a container, and what state it is in.

use std::{collections::BTreeMap, path::PathBuf};

use crate::ContainerName;

/// The owner's wish for one container. What it leaves open comes from the image's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    pub name: ContainerName,
    /// Reference or digest of an image that is in the pod's store.
    pub image: String,
    /// Replaces the image's entry point; `None` keeps it.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command; empty keeps it.
    pub args: Vec<String>,
    /// Added to the image's environment; the same key replaces.
    pub env: BTreeMap<String, String>,
    pub working_dir: Option<PathBuf>,
    pub user: RunUser,
    pub hostname: Option<String>,
    /// The init process gets a pseudo-terminal.
    pub terminal: bool,
    /// Standard input stays open; without it the process reads end of file.
    pub stdin: bool,
    pub read_only_rootfs: bool,
    pub mounts: Vec<MountSpec>,
    pub resources: Resources,
    /// Capabilities on top of, and taken from, the default set; `ALL` is accepted in `drop_capabilities`.
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    /// Remove the container, its logs and its root file system when it ends.
    pub auto_remove: bool,
    /// Whether a host's trigger may start it (Kubernetes restarts); the spec is the owner's either way.
    pub host_may_start: bool,
    pub labels: BTreeMap<String, String>,
}

impl ContainerSpec {
    /// A container of `image` with everything else as the image says.
    pub fn new(name: ContainerName, image: impl Into<String>) -> Self {
        Self {
            name,
            image: image.into(),
            entrypoint: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            working_dir: None,
            user: RunUser::Image,
            hostname: None,
            terminal: false,
            stdin: false,
            read_only_rootfs: false,
            mounts: Vec::new(),
            resources: Resources::default(),
            add_capabilities: Vec::new(),
            drop_capabilities: Vec::new(),
            auto_remove: false,
            host_may_start: false,
            labels: BTreeMap::new(),
        }
    }
}

/// The user a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RunUser {
    /// As the image says; root when it says nothing.
    #[default]
    Image,
    /// `user[:group]`, by name or number, looked up in the container's own `/etc/passwd` and `/etc/group`.
    Named(String),
}

/// A mount the owner asks for. Nothing of the host's file system can be named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSpec {
    /// Absolute path in the container.
    pub destination: PathBuf,
    pub kind: MountKind,
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// Memory of the guest, at most `size` bytes.
    Tmpfs { size: Option<u64> },
    /// A volume of the pod: lives as long as the pod, shared by the containers that name it.
    Volume { name: ContainerName },
}

/// Limits of one container; `None` is no limit but the pod's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    /// Bytes.
    pub memory: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContainerState {
    Created,
    Running,
    Paused,
    Exited,
}

impl ContainerState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Exited => "exited",
        }
    }
}
