//! The references: `crun` and `runc`, on the same machine, in the same minutes.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::ensure;
use postern_tests::{archive, programs};
use serde_json::{Value, json};

/// One OCI runtime with a bundle of its own.
#[derive(Debug)]
pub(crate) struct Runtime {
    program: PathBuf,
    folder: tempfile::TempDir,
    counter: u32,
}

impl Runtime {
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        let program = programs::system(name, name)?;
        let folder = tempfile::tempdir()?;
        let rootfs = folder.path().join("rootfs");
        for sub in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
            std::fs::create_dir_all(rootfs.join(sub))?;
        }
        std::fs::copy(archive::busybox()?, rootfs.join("bin/busybox"))?;
        for applet in ["sh", "true", "sleep", "cat"] {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet))?;
        }
        std::fs::write(folder.path().join("config.json"), serde_json::to_vec(&config())?)?;
        Ok(Self { program, folder, counter: 0 })
    }

    /// A command in a mount namespace that hides the unified cgroup hierarchy, which crun cannot use half.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(self.folder.path().join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> anyhow::Result<()> {
        let status = self.command().args(args).status()?;
        ensure!(status.success(), "{} {}: {status}", self.program.display(), args.join(" "));
        Ok(())
    }

    /// Creates a container that sleeps; returns its id.
    pub(crate) fn create(&mut self) -> anyhow::Result<String> {
        self.counter += 1;
        let id = format!("postern-bench-{}-{}", std::process::id(), self.counter);
        self.run(&["create", "--bundle", &self.folder.path().display().to_string(), &id])?;
        Ok(id)
    }

    pub(crate) fn start(&self, id: &str) -> anyhow::Result<()> {
        self.run(&["start", id])
    }

    pub(crate) fn exec(&self, id: &str) -> anyhow::Result<()> {
        self.run(&["exec", id, "/bin/true"])
    }

    pub(crate) fn delete(&self, id: &str) -> anyhow::Result<()> {
        self.run(&["delete", "--force", id])
    }
}

/// Hides the unified cgroup hierarchy from this process and its children, in a mount namespace of its own: crun 1.8
/// refuses a hybrid one. Must be called before there are threads.
pub(crate) fn hide_unified_cgroups() -> anyhow::Result<()> {
    let unified = Path::new("/sys/fs/cgroup/unified");
    if !unified.is_dir() {
        return Ok(());
    }
    // SAFETY-free: rustix wraps both calls; the process is still single-threaded.
    #[allow(deprecated)]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS)?;
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )?;
    Ok(rustix::mount::unmount(unified, rustix::mount::UnmountFlags::DETACH)?)
}

/// As close to what the agent makes of a default container as the reference allows.
fn config() -> Value {
    let namespaces: Vec<Value> =
        ["pid", "ipc", "uts", "mount", "cgroup"].into_iter().map(|kind| json!({"type": kind})).collect();
    let capabilities = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sleep", "100000"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs"},
        "hostname": "bench",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "namespaces": namespaces,
            "resources": {"pids": {"limit": 512}},
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"names": ["kexec_load", "bpf", "perf_event_open"], "action": "SCMP_ACT_ERRNO"}],
            },
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/sys", "/proc/irq", "/proc/bus"],
        },
    })
}
