//! A container's control groups: where they are, what they count, and their end.
//!
//! Set up by libcontainer when a container is made. In the guest there is one hierarchy (cgroup v2); a machine with
//! v1 hierarchies works too, for running outside of a VM.

pub(crate) mod devices;
mod read;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::fs::statfs;

use crate::{
    runtime::{PodLimits, Stats},
    worker::protocol::JoinCgroup,
};

const MOUNT_POINT: &str = "/sys/fs/cgroup";
/// `CGROUP2_SUPER_MAGIC` (linux/magic.h).
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// The hierarchies of this machine.
#[derive(Debug, Clone)]
pub(crate) enum Hierarchies {
    Unified,
    /// Mount points of the v1 controllers that libcontainer uses.
    Legacy(Vec<PathBuf>),
}

/// Controllers of v1 that libcontainer puts a container in (libcgroups, `CONTROLLERS`).
const LEGACY_CONTROLLERS: [&str; 12] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "hugetlb",
    "memory",
    "pids",
    "perf_event",
    "blkio",
    "net_prio",
    "net_cls",
    "freezer",
];

impl Hierarchies {
    pub(crate) fn discover() -> io::Result<Self> {
        if statfs(MOUNT_POINT)?.f_type as u64 == CGROUP2_MAGIC {
            return Ok(Self::Unified);
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mut points: Vec<PathBuf> = mounts.lines().filter_map(legacy_mount).collect();
        points.sort();
        points.dedup();
        match points.is_empty() {
            true => Err(io::Error::other(format!("no control groups are mounted below {MOUNT_POINT}"))),
            false => Ok(Self::Legacy(points)),
        }
    }

    /// Makes the control group at `path`, below which the containers' are, and limits it.
    pub(crate) fn make_parent(&self, path: &str, limits: PodLimits) -> io::Result<()> {
        let parts: Vec<&str> = path.split('/').collect();
        if parts.iter().any(|part| part.is_empty() || *part == "." || *part == "..") {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{path:?} is no control group path"),
            ));
        }
        let parent = self.at(path);
        if let Self::Unified = self {
            let mut directory = PathBuf::from(MOUNT_POINT);
            for part in parts {
                delegate_controllers(&directory)?;
                directory.push(part);
                make_directory(&directory)?;
            }
        }
        let wanted =
            [("memory.max", "memory.limit_in_bytes", limits.memory), ("pids.max", "pids.max", limits.pids)];
        for (unified, legacy, limit) in wanted {
            let Some(limit) = limit else { continue };
            let path = match &parent {
                Cgroup::Unified(directory) => directory.join(unified),
                Cgroup::Legacy(directories) => {
                    let controller = legacy.split('.').next().unwrap_or(legacy);
                    let of = |directory: &&PathBuf| {
                        directory.components().any(|part| part.as_os_str() == controller)
                    };
                    let directory = directories.iter().find(of).ok_or(io::ErrorKind::NotFound)?;
                    make_directory(directory)?;
                    directory.join(legacy)
                }
            };
            fs::write(path, limit.to_string())?;
        }
        Ok(())
    }

    /// The control group at `path` in each hierarchy.
    pub(crate) fn at(&self, path: &str) -> Cgroup {
        let path = path.trim_start_matches('/');
        match self {
            Self::Unified => Cgroup::Unified(Path::new(MOUNT_POINT).join(path)),
            Self::Legacy(points) => Cgroup::Legacy(points.iter().map(|point| point.join(path)).collect()),
        }
    }
}

/// Lets the children of `directory` use all controllers that it has.
fn delegate_controllers(directory: &Path) -> io::Result<()> {
    let controllers = fs::read_to_string(directory.join("cgroup.controllers"))?;
    for controller in controllers.split_whitespace() {
        // Some cannot be delegated everywhere (cpu, with real-time processes in the root); a limit that needs one of
        // those fails later, by name.
        let _ = fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
    }
    Ok(())
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The mount point in a line of mountinfo, if a v1 controller of ours is mounted there (proc_pid_mountinfo(5)).
fn legacy_mount(line: &str) -> Option<PathBuf> {
    let (mount, super_block) = line.split_once(" - ")?;
    let mut super_block = super_block.split(' ');
    if super_block.next()? != "cgroup" {
        return None;
    }
    let mut options = super_block.nth(1)?.split(',');
    let ours = options.any(|option| LEGACY_CONTROLLERS.contains(&option));
    ours.then(|| mount.split(' ').nth(4).map(PathBuf::from))?
}

/// The directories of one container.
#[derive(Debug, Clone)]
pub(crate) enum Cgroup {
    Unified(PathBuf),
    Legacy(Vec<PathBuf>),
}

impl Cgroup {
    fn directories(&self) -> &[PathBuf] {
        match self {
            Self::Unified(directory) => std::slice::from_ref(directory),
            Self::Legacy(directories) => directories,
        }
    }

    /// The directory that has `file`.
    fn with(&self, file: &str) -> io::Result<PathBuf> {
        let mut paths = self.directories().iter().map(|directory| directory.join(file));
        paths.find(|path| path.exists()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Whether a process whose `/proc/PID/cgroup` is `text` is in this control group or below.
    pub(crate) fn is_named_in(&self, text: &str) -> bool {
        let Some(name) =
            self.directories().first().and_then(|directory| directory.strip_prefix(MOUNT_POINT).ok())
        else {
            return false;
        };
        // In v1 the first part is the hierarchy's mount point.
        let skip = if matches!(self, Self::Unified(_)) { 0 } else { 1 };
        let name: PathBuf = name.components().skip(skip).collect();
        text.lines()
            .filter_map(|line| line.splitn(3, ':').nth(2))
            .any(|path| Path::new(path).strip_prefix("/").is_ok_and(|path| path.starts_with(&name)))
    }

    /// How a process joins.
    pub(crate) fn join(&self) -> JoinCgroup {
        match self {
            Self::Unified(directory) => JoinCgroup::Unified(directory.clone()),
            Self::Legacy(directories) => JoinCgroup::Legacy(
                directories.iter().filter(|directory| directory.is_dir()).cloned().collect(),
            ),
        }
    }

    pub(crate) fn needs_device_filter(&self) -> Option<PathBuf> {
        match self {
            Self::Unified(directory) => Some(directory.clone()),
            Self::Legacy(_) => None,
        }
    }

    pub(crate) fn stats(&self) -> io::Result<Stats> {
        match self {
            Self::Unified(directory) => read::unified(directory),
            Self::Legacy(_) => read::legacy(|file| self.with(file)),
        }
    }

    /// Process ids in the control group, as this process sees them.
    pub(crate) fn pids(&self) -> io::Result<Vec<u32>> {
        // Any v1 hierarchy would do; devices has no reason to be shared with others.
        let path = match self {
            Self::Unified(directory) => directory.join("cgroup.procs"),
            Self::Legacy(directories) => {
                let devices = directories.iter().find(|directory| directory.join("devices.list").exists());
                devices.or(directories.first()).ok_or(io::ErrorKind::NotFound)?.join("cgroup.procs")
            }
        };
        Ok(fs::read_to_string(path)?.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Freezes or thaws all processes; takes effect in the background.
    pub(crate) fn freeze(&self, state: Freeze) -> io::Result<()> {
        match self {
            Self::Unified(directory) => {
                fs::write(directory.join("cgroup.freeze"), if state == Freeze::Frozen { "1" } else { "0" })
            }
            Self::Legacy(_) => fs::write(
                self.with("freezer.state")?,
                if state == Freeze::Frozen { "FROZEN" } else { "THAWED" },
            ),
        }
    }

    pub(crate) fn is(&self, state: Freeze) -> io::Result<bool> {
        let frozen = match self {
            Self::Unified(directory) => {
                read::keyed(&fs::read_to_string(directory.join("cgroup.events"))?, "frozen") == Some(1)
            }
            Self::Legacy(_) => match fs::read_to_string(self.with("freezer.state")?)?.trim() {
                "FROZEN" => true,
                "THAWED" => false,
                // On its way to either.
                _ => return Ok(false),
            },
        };
        Ok(frozen == (state == Freeze::Frozen))
    }

    /// Removes the directories, which must hold no process.
    pub(crate) fn remove(&self) -> Result<(), (PathBuf, io::Error)> {
        for directory in self.directories() {
            remove_directory(directory).map_err(|error| (directory.clone(), error))?;
        }
        Ok(())
    }
}

/// Removes a control group with those below it that the container may have made.
fn remove_directory(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.raw_os_error() != Some(libc::EBUSY) => return Err(error),
        Err(_) => {}
        Ok(()) => return Ok(()),
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_directory(&entry.path())?;
        }
    }
    fs::remove_dir(directory)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freeze {
    Frozen,
    Thawed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_v1_mounts() {
        let line =
            "36 25 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct";
        assert_eq!(legacy_mount(line), Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct")));
        for other in [
            "37 25 0:32 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd",
            "38 25 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
            "39 25 0:34 / / rw - ext4 /dev/vda rw,cpu",
            "nonsense",
        ] {
            assert_eq!(legacy_mount(other), None, "{other}");
        }
    }
}
