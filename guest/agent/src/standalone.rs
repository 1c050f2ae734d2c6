//! The agent as an ordinary process, for tests and benchmarks: namespaces of its own, state in memory, nothing left at
//! the end.
//!
//! Several run side by side: the mount namespace is private, and the state directory and control group carry a name of
//! their own.

use std::{
    env,
    ffi::CString,
    fs,
    io::{Read, Write},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, FileTypeExt},
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use postern_evidence::collect::Simulated;
use postern_launch::init_data::MAX_DEVICE;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use tokio::net::UnixListener;

use crate::{
    agent::{self, Place},
    config::Standalone,
    host_api::HostListener,
    identity::Identity,
    init::{Stamps, network::Recorder},
    runtime, sys,
};

/// Runs until SIGTERM, SIGINT or the end of the pod.
pub fn run(config: Standalone) -> Result<()> {
    let mut stamps = Stamps::start();
    let init_data = read_init_data(&config.init_data)?;
    let evidence = Simulated::unix(&config.tee_device)?;
    let identity = Identity::establish(&init_data, Arc::new(evidence))?;
    stamps.mark("identity");
    let scratch = Scratch::make()?;
    let place = Place {
        data_dir: scratch.path.clone(),
        // Not /proc/self/exe: that file is on a mount of the namespace that was left.
        program: env::current_exe().context("finding this program")?,
        cgroup_parent: scratch.name.clone(),
        owner_listen: config.owner_listen,
        network: Arc::new(Recorder::default()),
        rereadable: true,
        settle: || {},
        stamps,
    };
    let socket = HostSocket(config.host_listen);
    let result = runtime::build()?.block_on(async {
        let host = socket.listen()?;
        agent::serve(place, identity, host, |owner, _| announce(owner, &socket.0)).await
    });
    drop(socket);
    let cleared = scratch.clear();
    result.and(cleared)
}

/// The one line on stdout, for whoever started this.
fn announce(owner: SocketAddr, host: &Path) -> Result<()> {
    let line = serde_json::json!({
        "owner": format!("tcp://{owner}"),
        "host": format!("unix://{}", host.display()),
    });
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("writing to standard output")
}

fn read_init_data(path: &Path) -> Result<Vec<u8>> {
    let file = fs::File::open(path).with_context(|| format!("opening init data {}", path.display()))?;
    let mut bytes = Vec::new();
    file.take(MAX_DEVICE as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading init data {}", path.display()))?;
    Ok(bytes)
}

/// The host's socket; its file goes with it.
struct HostSocket(PathBuf);

impl HostSocket {
    fn listen(&self) -> Result<HostListener> {
        // A socket that nobody listens on was left by a process that was killed.
        let stale = fs::symlink_metadata(&self.0).is_ok_and(|file| file.file_type().is_socket())
            && std::os::unix::net::UnixStream::connect(&self.0).is_err();
        if stale {
            let _ = fs::remove_file(&self.0);
        }
        let listener = UnixListener::bind(&self.0)
            .with_context(|| format!("listening for the host on {}", self.0.display()))?;
        Ok(HostListener::Unix(listener))
    }
}

impl Drop for HostSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A tmpfs that only this process and its containers see.
struct Scratch {
    name: String,
    path: PathBuf,
}

impl Scratch {
    fn make() -> Result<Self> {
        leave_namespaces()?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("postern-agent-{}-{:x}", process::id(), since.as_nanos());
        let path = env::temp_dir().join(&name);
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700).create(&path).with_context(|| format!("making {}", path.display()))?;
        let scratch = Self { name, path };
        let options = CString::new("mode=0700").unwrap_or_default();
        match mount("postern", &scratch.path, "tmpfs", MountFlags::NODEV, options.as_c_str()) {
            Ok(()) => Ok(scratch),
            Err(error) => {
                let _ = fs::remove_dir(&scratch.path);
                bail!("mounting a file system in memory on {}: {error}", scratch.path.display())
            }
        }
    }

    fn clear(self) -> Result<()> {
        let path = &self.path;
        unmount(path, UnmountFlags::DETACH).with_context(|| format!("unmounting {}", path.display()))?;
        fs::remove_dir(path).with_context(|| format!("removing {}", path.display()))
    }
}

/// Mounts, host name and IPC of its own; what is mounted here shows nowhere else.
fn leave_namespaces() -> Result<()> {
    sys::leave_namespaces().context("making namespaces of its own; this needs root")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).context("making the mounts private")
}
