//! What is mounted in a container: the kernel's file systems, the pod's files, the owner's mounts, the image's volumes.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
    path::{Component, Path, PathBuf},
};

use oci_spec::runtime::{Mount, MountBuilder};
use postern_model::container::{MountKind, MountSpec};
use rustix::fs::fstat;

use super::{SpecContext, SpecError, kernel, rootfs::Root};
use crate::cgroup::Hierarchies;

/// Below these nothing else is mounted, and no process starts: they are the kernel's.
const KERNELS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Hidden, as docker does: what tells about the machine and not about the container.
pub(super) const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/security",
];
pub(super) const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub(super) fn is_kernels(path: &Path) -> bool {
    KERNELS.iter().any(|kernel| path.starts_with(kernel))
}

/// Mounts that every container has, in order.
pub(super) fn standard(context: &SpecContext, read_only: bool) -> Result<Vec<Mount>, SpecError> {
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"])?,
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])?,
    ];
    if kernel::has_message_queues() {
        mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?);
    }
    // Only in a single (v2) hierarchy does a container see just its own control group.
    if matches!(Hierarchies::discover(), Ok(Hierarchies::Unified)) {
        mounts.push(mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        )?);
    }
    let files = [
        ("/etc/hosts", &context.hosts),
        ("/etc/hostname", &context.hostname_file),
        ("/etc/resolv.conf", &context.resolv_conf),
    ];
    for (destination, source) in files {
        let source = source.to_str().ok_or_else(|| SpecError::NotText(source.clone()))?;
        let access = if read_only { "ro" } else { "rw" };
        mounts.push(mount(
            destination,
            "bind",
            source,
            &["bind", "rprivate", "nosuid", "nodev", "noexec", access],
        )?);
    }
    Ok(mounts)
}

/// Mounts that the owner asks for.
pub(super) fn owners(
    wanted: &[MountSpec],
    context: &SpecContext,
    root: &Root,
) -> Result<Vec<Mount>, SpecError> {
    let mut taken = BTreeSet::new();
    let mut mounts = Vec::new();
    for want in wanted {
        let destination = check_destination(&want.destination)?;
        if !taken.insert(destination) {
            return Err(SpecError::MountTwice(want.destination.clone()));
        }
        let access = if want.read_only { "ro" } else { "rw" };
        mounts.push(match &want.kind {
            MountKind::Tmpfs { size } => {
                let size = size.map(|size| format!("size={size}"));
                let options = ["nosuid", "nodev", "noexec", "mode=1777", access];
                mount(
                    destination,
                    "tmpfs",
                    "tmpfs",
                    &[&options[..], &size.as_deref().into_iter().collect::<Vec<_>>()].concat(),
                )?
            }
            MountKind::Volume { name } => {
                let source = context.volumes.join(name.as_str());
                make_volume(&source, &want.destination, root)
                    .map_err(|source| SpecError::Volume { name: name.to_string(), source })?;
                let source = source.to_str().ok_or_else(|| SpecError::NotText(source.clone()))?;
                mount(destination, "bind", source, &["rbind", "rprivate", "nosuid", "nodev", access])?
            }
        });
    }
    Ok(mounts)
}

/// What the image declares as `VOLUME`. On a writable root file system, which is the container's alone and ends with
/// it, a directory there is just what an anonymous volume is, content included. On a read-only one the place is made
/// writable by an empty tmpfs with the directory's owner and mode.
pub(super) fn images(
    volumes: &[String],
    owners: &[MountSpec],
    root: &Root,
    read_only: bool,
) -> Result<Vec<Mount>, SpecError> {
    let mut mounts = Vec::new();
    for volume in volumes.iter().filter(|_| read_only) {
        let destination = check_destination(Path::new(volume))?;
        if owners.iter().any(|mount| mount.destination == Path::new(volume)) {
            continue;
        }
        let failed = |source: io::Error| SpecError::Volume { name: volume.clone(), source };
        let (mode, uid, gid) = match root.existing(Path::new(destination)).map_err(failed)? {
            Some(directory) => {
                let stat = fstat(directory).map_err(|error| failed(error.into()))?;
                (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid)
            }
            None => (0o755, 0, 0),
        };
        let [mode, uid, gid] = [format!("mode={mode:o}"), format!("uid={uid}"), format!("gid={gid}")];
        mounts.push(mount(destination, "tmpfs", "tmpfs", &["nosuid", "nodev", &mode, &uid, &gid])?);
    }
    Ok(mounts)
}

fn check_destination(path: &Path) -> Result<&str, SpecError> {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute()
        || !plain
        || path == Path::new("/")
        || (is_kernels(path) && path != Path::new("/dev/shm"))
    {
        return Err(SpecError::MountDestination(path.into()));
    }
    path.to_str().ok_or_else(|| SpecError::NotText(path.into()))
}

/// A volume is a directory of the pod. At its first use it takes owner and mode of the directory it covers, so that a
/// program that may write there may still.
fn make_volume(path: &PathBuf, destination: &Path, root: &Root) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Never through a link: the directory of volumes is ours, but a volume's content is the containers'.
            match fs::symlink_metadata(path)?.is_dir() {
                true => return Ok(()),
                false => return Err(io::ErrorKind::NotADirectory.into()),
            }
        }
        result => result?,
    }
    if let Some(covered) = root.existing(destination)? {
        let covered = fs::metadata(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&covered)))?;
        chown(path, Some(covered.uid()), Some(covered.gid()))?;
        fs::set_permissions(path, Permissions::from_mode(covered.mode() & 0o7777))?;
    }
    Ok(())
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Result<Mount, SpecError> {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(source)
        .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
        .build()
        .map_err(SpecError::Build)
}
