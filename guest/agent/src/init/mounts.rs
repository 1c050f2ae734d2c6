//! The file systems of the guest: the root that containers can pivot away from, the kernel's own, and memory-backed
//! ones for run-time state and for images.

use std::{fs, io, path::Path};

use rustix::mount::{MountFlags, mount, mount_bind, mount_move};

use super::console;

/// Images and containers' root file systems.
pub const DATA_DIR: &str = "/var/lib/postern";

/// A step of building the guest's file systems that failed.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path}")]
pub struct MountError {
    action: &'static str,
    path: &'static str,
    source: io::Error,
}

impl MountError {
    pub(super) fn new(action: &'static str, path: &'static str, source: io::Error) -> Self {
        Self { action, path, source }
    }
}

/// Puts the initramfs under a mount of its own. The kernel's first root cannot be pivoted away from
/// (pivot_root(2), NOTES), and every container wants to.
pub(super) fn move_root() -> Result<(), MountError> {
    const NEW: &str = "/newroot";
    let step =
        |action, result: rustix::io::Result<()>| result.map_err(|e| MountError::new(action, NEW, e.into()));
    fs::create_dir_all(NEW).map_err(|source| MountError::new("making", NEW, source))?;
    step("binding the root to", mount_bind("/", NEW))?;
    step("entering", rustix::process::chdir(NEW))?;
    step("moving the root to", mount_move(".", "/"))?;
    step("changing the root to", rustix::process::chroot("."))
}

struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    options: &'static str,
}

const GUARDED: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// What everything after it needs.
pub(super) fn mount_first() -> Result<(), MountError> {
    const DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);
    for mount in [
        Mount { kind: "proc", target: "/proc", flags: GUARDED, options: "" },
        Mount { kind: "sysfs", target: "/sys", flags: GUARDED, options: "" },
        Mount { kind: "devtmpfs", target: "/dev", flags: DEVICES, options: "mode=0755" },
    ] {
        mount.make()?;
    }
    Ok(())
}

/// What containers need; after the modules, because some are file systems.
pub(super) fn mount_rest() -> Result<(), MountError> {
    const NO_SETUID: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
    const CGROUP: &str = "nsdelegate,memory_recursiveprot";
    const TERMINALS: &str = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    let terminal_flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    for mount in [
        Mount { kind: "devpts", target: "/dev/pts", flags: terminal_flags, options: TERMINALS },
        Mount { kind: "tmpfs", target: "/dev/shm", flags: GUARDED, options: "mode=1777" },
        Mount { kind: "mqueue", target: "/dev/mqueue", flags: GUARDED, options: "" },
        Mount { kind: "cgroup2", target: "/sys/fs/cgroup", flags: GUARDED, options: CGROUP },
        Mount { kind: "tmpfs", target: "/run", flags: NO_SETUID, options: "mode=0755,size=16m" },
        Mount { kind: "tmpfs", target: "/tmp", flags: NO_SETUID, options: "mode=1777,size=10%" },
        // Set-user-id programs of images work inside their containers, so no nosuid here.
        Mount { kind: "tmpfs", target: DATA_DIR, flags: MountFlags::NODEV, options: "mode=0700,size=75%" },
    ] {
        mount.make()?;
    }
    // devtmpfs has a node of its own for the first instance; programs want the one of /dev/pts.
    let _ = fs::remove_file("/dev/ptmx");
    std::os::unix::fs::symlink("pts/ptmx", "/dev/ptmx")
        .map_err(|source| MountError::new("linking", "/dev/ptmx", source))?;
    // configfs-tsm, where reports come from: only kernels for a TEE have it.
    let optional = Mount { kind: "configfs", target: "/sys/kernel/config", flags: GUARDED, options: "" };
    if Path::new(optional.target).is_dir() {
        optional.make()?;
    }
    Ok(())
}

impl Mount {
    fn make(&self) -> Result<(), MountError> {
        match self.try_make() {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {
                // The kernel was built without it (a specialised one may lack message queues): only what needs
                // it will notice. What nothing works without is checked where it is used.
                console::write_line(format_args!("postern: this kernel has no {}\r\n", self.kind));
                Ok(())
            }
            result => result.map_err(|source| MountError::new("mounting", self.target, source)),
        }
    }

    fn try_make(&self) -> io::Result<()> {
        fs::create_dir_all(self.target)?;
        let options = std::ffi::CString::new(self.options)?;
        mount(self.kind, self.target, self.kind, self.flags, Some(options.as_c_str()))
            .map_err(io::Error::from)
    }
}
