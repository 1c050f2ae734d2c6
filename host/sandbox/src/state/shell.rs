//! Shells on disk: VMs that are nobody's yet, each in a directory of its own, until one of them is renamed to a pod's.
//!
//! ```text
//! ROOT/shells/NAME/lock        held by the shell's supervisor for its life, also when the directory is a pod's
//! ROOT/shells/NAME/shell.json  written atomically; goes when the shell becomes a pod
//! ROOT/shells/NAME/claim.sock  where it is claimed; there while it can be
//! ```

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read},
    net::SocketAddrV4,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use postern_launch::PodShape;
use postern_model::{Measurement, PodName};
use serde::{Deserialize, Serialize};

use super::{
    ChildRecord, GLANCE, Home, LOCK_WAIT, LockedPod, Place, Pod, PodRecord, StateError, end_processes,
    is_supervised, wait_for_lock, write_json,
};
use crate::process::ProcessId;

/// Version of `shell.json`.
const FORMAT: u32 = 1;

/// What a shell is doing, as its record and its lock say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShellStatus {
    /// Being made.
    Starting,
    /// Stopped before its first instruction, to be claimed.
    Shell,
    /// Its supervisor is gone without having cleaned up.
    Crashed,
}

impl ShellStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Shell => "shell",
            Self::Crashed => "crashed",
        }
    }
}

/// The contents of `shell.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShellRecord {
    pub format: u32,
    pub name: PodName,
    pub created_unix_millis: u64,
    pub supervisor: ProcessId,
    pub children: Vec<ChildRecord>,
    pub image: PathBuf,
    pub shape: PodShape,
    pub listen: SocketAddrV4,
    /// What the simulated platform measured of the stopped QEMU; none until it has.
    pub measurement: Option<Measurement>,
}

impl ShellRecord {
    /// A record with a name of its own.
    pub fn new(
        supervisor: ProcessId,
        image: PathBuf,
        shape: PodShape,
        listen: SocketAddrV4,
    ) -> io::Result<Self> {
        let number = random_number()?;
        // Eight hexadecimal digits after a word are a valid name.
        let name = PodName::new(format!("shell-{number:08x}")).map_err(io::Error::other)?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let created_unix_millis = crate::progress::millis(now);
        let (children, measurement) = (Vec::new(), None);
        Ok(Self {
            format: FORMAT,
            name,
            created_unix_millis,
            supervisor,
            children,
            image,
            shape,
            listen,
            measurement,
        })
    }
}

/// Of the kernel's random numbers.
pub(crate) fn random_number() -> io::Result<u32> {
    let mut bytes = [0; 4];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

impl Home {
    fn shells_directory(&self) -> PathBuf {
        self.root().join("shells")
    }

    /// All shells, alive or not, the oldest first.
    pub fn shells(&self) -> Result<Vec<Shell>, StateError> {
        let directory = self.shells_directory();
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StateError::io("list", &directory)(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(StateError::io("list", &directory))?;
            let name = entry.file_name().to_str().and_then(|name| PodName::new(name).ok());
            found.extend(name.map(|name| Shell { name, directory: entry.path() }));
        }
        found.sort_by_cached_key(|shell| {
            let created = shell.record().map_or(u64::MAX, |record| record.created_unix_millis);
            (created, shell.name.clone())
        });
        Ok(found)
    }

    /// A new shell's directory, locked for the caller.
    pub fn create_shell(&self, record: ShellRecord) -> Result<LockedShell, StateError> {
        self.prepare()?;
        let _lock = self.lock()?;
        let directory = self.shells_directory().join(record.name.as_str());
        let made = DirBuilder::new().recursive(true).mode(0o700).create(self.shells_directory());
        made.and_then(|()| DirBuilder::new().mode(0o700).create(&directory))
            .map_err(StateError::io("create", &directory))?;
        let created = wait_for_lock(&directory.join("lock"), LOCK_WAIT).and_then(|lock| {
            let locked = LockedShell { home: self.clone(), directory: directory.clone(), record, lock };
            locked.save().map(|()| locked)
        });
        if created.is_err() {
            // Half a shell is none. If this fails too, the first error is the one that matters.
            let _ = fs::remove_dir_all(&directory);
        }
        created
    }
}

/// A shell's directory, looked at from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shell {
    name: PodName,
    directory: PathBuf,
}

impl Shell {
    pub fn name(&self) -> &PodName {
        &self.name
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn record(&self) -> Result<ShellRecord, StateError> {
        let path = self.directory.join("shell.json");
        let bytes = fs::read(&path).map_err(StateError::io("read", &path))?;
        serde_json::from_slice(&bytes).map_err(|source| StateError::Malformed { path, source })
    }

    /// What it is doing; none if it has become a pod, or has gone, since it was listed.
    pub fn status(&self) -> Result<Option<ShellStatus>, StateError> {
        let supervised = match is_supervised(&self.directory.join("lock")) {
            Ok(false) | Err(_) if !self.directory.exists() => return Ok(None),
            supervised => supervised?,
        };
        Ok(Some(match (supervised, self.record()) {
            (false, _) => ShellStatus::Crashed,
            (true, Ok(record)) if record.measurement.is_some() => ShellStatus::Shell,
            (true, _) => ShellStatus::Starting,
        }))
    }

    /// Removes what a supervisor has left behind; false if there is one, or nothing is left.
    pub fn remove_if_crashed(&self, home: &Home) -> Result<bool, StateError> {
        // While it is held nobody makes a shell, and no shell becomes a pod.
        let _lock = home.lock()?;
        if !self.directory.exists() {
            return Ok(false);
        }
        let _supervisor = match wait_for_lock(&self.directory.join("lock"), GLANCE) {
            Err(StateError::Locked { .. }) => return Ok(false),
            lock => lock?,
        };
        if let Ok(record) = self.record() {
            end_processes(&record.children, &self.directory)?;
        }
        fs::remove_dir_all(&self.directory).map_err(StateError::io("remove", &self.directory))?;
        Ok(true)
    }
}

/// A shell's directory in the hands of its supervisor.
#[derive(Debug)]
pub struct LockedShell {
    home: Home,
    directory: PathBuf,
    pub record: ShellRecord,
    lock: File,
}

impl LockedShell {
    pub fn name(&self) -> &PodName {
        &self.record.name
    }

    /// Writes `shell.json`, whole or not at all.
    pub fn save(&self) -> Result<(), StateError> {
        write_json(&self.directory.join("shell.json"), &self.record)
    }

    /// Makes it the directory of the pod that `record` describes, or removes it if there is such a pod. The programs that
    /// work in it notice nothing: they know its files by names without a directory.
    pub fn become_pod(self, mut record: PodRecord) -> Result<LockedPod, StateError> {
        record.children.clone_from(&self.record.children);
        record.measurement = self.record.measurement;
        let moved = self.rename(&record);
        match moved {
            Ok(pod) => Ok(LockedPod { pod, record, _lock: self.lock }),
            Err(error) => {
                // The shell is used up either way; the first error is the one that matters.
                let _ = self.remove();
                Err(error)
            }
        }
    }

    fn rename(&self, record: &PodRecord) -> Result<Pod, StateError> {
        let _lock = self.home.lock()?;
        let name = record.name.clone();
        let pod = Pod { directory: self.home.pods().join(name.as_str()), name };
        if pod.directory.exists() {
            return Err(StateError::Exists { name: pod.name.clone(), status: pod.status()?.as_str() });
        }
        write_json(&self.directory.join("state.json"), record)?;
        fs::rename(&self.directory, &pod.directory).map_err(StateError::io("create", &pod.directory))?;
        let _ = fs::remove_file(pod.directory.join("shell.json"));
        Ok(pod)
    }

    /// Leaves nothing behind.
    pub fn remove(self) -> Result<(), StateError> {
        fs::remove_dir_all(&self.directory).map_err(StateError::io("remove", &self.directory))
    }
}

impl Place for LockedShell {
    fn directory(&self) -> &Path {
        &self.directory
    }

    fn remember(&mut self, child: ChildRecord) -> Result<(), StateError> {
        self.record.children.push(child);
        self.save()
    }
}
