//! The references: `crun` and `runc`, on the same machine, in the same minutes, at the same work.
//!
//! A reference gets the very specification that the agent made of its container, and around it does what the agent does:
//! an overlay above the image's files, in memory, and the three network files. All of that is timed.

use std::{
    ffi::CString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use postern_tests::{archive, programs};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use serde_json::Value;

/// One OCI runtime with a place of its own.
#[derive(Debug)]
pub(crate) struct Runtime {
    program: PathBuf,
    /// A file system in memory is mounted here, as the agent's files are in memory.
    folder: tempfile::TempDir,
    /// As the agent wrote it.
    specification: Value,
    counter: u32,
}

impl Runtime {
    /// `specification` is the agent's own, of a container that sleeps.
    pub(crate) fn new(name: &str, specification: &str) -> anyhow::Result<Self> {
        let program = programs::system(name, name)?;
        let mut specification: Value = serde_json::from_str(specification).context("the specification")?;
        // The newest that crun 1.8 knows.
        specification["ociVersion"] = "1.0.2".into();
        let folder = tempfile::tempdir()?;
        mount("postern-bench", folder.path(), "tmpfs", MountFlags::empty(), None)?;
        let runtime = Self { program, folder, specification, counter: 0 };
        let image = runtime.folder.path().join("image");
        for sub in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
            std::fs::create_dir_all(image.join(sub))?;
        }
        std::fs::copy(archive::busybox()?, image.join("bin/busybox"))?;
        for applet in ["sh", "true", "sleep", "cat"] {
            std::os::unix::fs::symlink("busybox", image.join("bin").join(applet))?;
        }
        Ok(runtime)
    }

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

    fn bundle(&self, id: &str) -> PathBuf {
        self.folder.path().join(id)
    }

    /// Creates a container that sleeps; returns its id.
    pub(crate) fn create(&mut self) -> anyhow::Result<String> {
        self.counter += 1;
        let id = format!("postern-bench-{}-{}", std::process::id(), self.counter);
        let bundle = self.bundle(&id);
        for sub in ["", "upper", "work", "rootfs"] {
            std::fs::create_dir(bundle.join(sub))?;
        }
        let shown = |path: PathBuf| path.display().to_string();
        let options = CString::new(format!(
            "lowerdir={},upperdir={},workdir={}",
            shown(self.folder.path().join("image")),
            shown(bundle.join("upper")),
            shown(bundle.join("work")),
        ))?;
        mount("overlay", bundle.join("rootfs"), "overlay", MountFlags::empty(), options.as_c_str())?;
        self.write_config(&id, &bundle)?;
        self.run(&["create", "--bundle", &shown(bundle), &id])?;
        Ok(id)
    }

    fn write_config(&mut self, id: &str, bundle: &Path) -> anyhow::Result<()> {
        self.specification["root"]["path"] = "rootfs".into();
        self.specification["linux"]["cgroupsPath"] = format!("/{id}").into();
        for mount in self.specification["mounts"].as_array_mut().into_iter().flatten() {
            let Some(name) = mount["destination"].as_str().and_then(|path| path.strip_prefix("/etc/")) else {
                continue;
            };
            let file = bundle.join(name);
            std::fs::write(&file, "127.0.0.1\tlocalhost\n")?;
            mount["source"] = file.display().to_string().into();
        }
        Ok(std::fs::write(bundle.join("config.json"), serde_json::to_vec(&self.specification)?)?)
    }

    pub(crate) fn start(&self, id: &str) -> anyhow::Result<()> {
        self.run(&["start", id])
    }

    pub(crate) fn exec(&self, id: &str) -> anyhow::Result<()> {
        self.run(&["exec", id, "/bin/true"])
    }

    pub(crate) fn delete(&self, id: &str) -> anyhow::Result<()> {
        self.run(&["delete", "--force", id])?;
        let bundle = self.bundle(id);
        unmount(bundle.join("rootfs"), UnmountFlags::DETACH)?;
        Ok(std::fs::remove_dir_all(bundle)?)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // With all that is mounted below it.
        let _ = unmount(self.folder.path(), UnmountFlags::DETACH);
    }
}

/// Gives this process and its children mounts of their own, without the unified cgroup hierarchy where there are others:
/// crun 1.8 refuses a hybrid one. Must be called before there are threads.
pub(crate) fn leave_mounts() -> anyhow::Result<()> {
    // SAFETY-free: rustix wraps the calls; the process is still single-threaded.
    #[allow(deprecated)]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let unified = Path::new("/sys/fs/cgroup/unified");
    match unified.is_dir() {
        true => Ok(unmount(unified, UnmountFlags::DETACH)?),
        false => Ok(()),
    }
}
