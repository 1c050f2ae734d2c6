//! The cgroup that holds every container, with a limit that keeps the agent answering when they take all they can.

use std::{fs, io, path::Path, path::PathBuf};

const ROOT: &str = "/sys/fs/cgroup";
/// The parent of every container's cgroup.
pub const POD_CGROUP: &str = "/sys/fs/cgroup/pod";

/// Without these no limit of a container would hold.
const REQUIRED: [&str; 3] = ["cpu", "memory", "pids"];
const OPTIONAL: [&str; 2] = ["cpuset", "io"];

/// Memory that the agent, and the kernel on its behalf, always have: a sixteenth, within these bounds.
const RESERVE_MIB: std::ops::RangeInclusive<u64> = 12..=128;

/// Why containers cannot be accounted.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("the kernel has no cgroup v2 controller {0:?}")]
    Missing(&'static str),
    #[error("{action} {path}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

pub(super) fn set_up() -> Result<PathBuf, CgroupError> {
    let root = Path::new(ROOT);
    let pod = PathBuf::from(POD_CGROUP);
    let controllers = read(&root.join("cgroup.controllers"))?;
    let enable = plan(&controllers)?;
    write(&root.join("cgroup.subtree_control"), &enable)?;
    fs::create_dir_all(&pod).map_err(|source| CgroupError::Io {
        action: "making",
        path: pod.clone(),
        source,
    })?;
    write(&pod.join("cgroup.subtree_control"), &enable)?;
    write(&pod.join("memory.max"), &limit(crate::system::total_memory()).to_string())?;
    Ok(pod)
}

/// What to write into `cgroup.subtree_control`, from what the kernel offers.
fn plan(offered: &str) -> Result<String, CgroupError> {
    let offers = |name: &&&str| offered.split_ascii_whitespace().any(|word| word == **name);
    if let Some(missing) = REQUIRED.iter().find(|name| !offers(name)) {
        return Err(CgroupError::Missing(missing));
    }
    let enabled = REQUIRED.iter().chain(OPTIONAL.iter().filter(|name| offers(name)));
    Ok(enabled.map(|name| format!("+{name}")).collect::<Vec<_>>().join(" "))
}

fn limit(total: u64) -> u64 {
    const MIB: u64 = 1 << 20;
    let reserve = (total / 16).clamp(RESERVE_MIB.start() * MIB, RESERVE_MIB.end() * MIB);
    total.saturating_sub(reserve)
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Io {
        action: "reading",
        path: path.into(),
        source,
    })
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(path, value).map_err(|source| CgroupError::Io { action: "writing", path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enables_what_the_kernel_offers() {
        let plan = |offered| plan(offered).unwrap();
        assert_eq!(plan("cpuset cpu io memory hugetlb pids rdma"), "+cpu +memory +pids +cpuset +io");
        assert_eq!(plan("cpu memory pids"), "+cpu +memory +pids");
    }

    #[test]
    fn refuses_a_kernel_that_cannot_limit() {
        assert!(matches!(plan("cpu cpuset memory"), Err(CgroupError::Missing("pids"))));
        assert!(matches!(plan("cpu pids hugememory"), Err(CgroupError::Missing("memory"))));
    }

    #[test]
    fn keeps_a_reserve() {
        const MIB: u64 = 1 << 20;
        assert_eq!(limit(128 * MIB), 116 * MIB);
        assert_eq!(limit(512 * MIB), 480 * MIB);
        assert_eq!(limit(64 * 1024 * MIB), (64 * 1024 - 128) * MIB);
        assert_eq!(limit(0), 0);
    }
}
