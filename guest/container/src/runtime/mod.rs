//! The containers of one pod, from the side of the program that runs them.
//!
//! ```text
//! create --> created --start--> running <--pause/unpause--> paused
//!               \------------------+------ ends ------> ended --delete--> gone
//! ```
//! All calls may run concurrently. None blocks the caller's thread for longer than a file-system call takes. A caller
//! that goes away in the middle of one does not leave half a container behind: what was begun is carried through.

mod container;
mod copy;
mod create;
mod error;
mod exec;
mod observe;
mod types;

use std::{
    collections::{HashMap, HashSet},
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use oci_spec::runtime::LinuxSeccomp;
use postern_model::ContainerName;
use tokio::time::{Instant, sleep};

use self::container::{Container, Stage};
pub use self::{
    copy::{CopyIn, CopyInOptions, CopyOut, CopyOutOptions, CopySummary},
    error::{
        CopyError, CreateError, DeleteError, ExecError, Failure, FailureKind, InspectError, PauseError,
        RuntimeError, StartError,
    },
    types::{
        CreateContainer, Created, ExecProcess, Init, PodLimits, ProcessInfo, RuntimeConfig, Stats, Target,
    },
};
use crate::{
    cgroup::{Cgroup, Freeze, Hierarchies},
    process::{Signal, SignalError},
    reaper::Reaper,
    sys,
    worker::pool::Pool,
};

/// How long the processes of a container may take to die of SIGKILL, or to freeze.
const END_DEADLINE: Duration = Duration::from_secs(10);
/// How often something is looked at that nothing tells us about.
const POLL: Duration = Duration::from_millis(2);
/// Compiled filters that are kept. There is one profile; more than a few would be a mistake.
const FILTERS: usize = 4;

/// Clones share the containers.
#[derive(Debug, Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: RuntimeConfig,
    reaper: Reaper,
    hierarchies: Hierarchies,
    pool: Pool,
    containers: Mutex<HashMap<ContainerName, Slot>>,
    /// Set for good when the runtime shuts down.
    closing: AtomicBool,
    filters: tokio::sync::Mutex<Vec<(LinuxSeccomp, Arc<[u8]>)>>,
}

/// A name that is taken.
#[derive(Debug, Clone)]
enum Slot {
    /// Being made or removed; not to be touched.
    Busy,
    Ready(Arc<Container>),
}

impl Runtime {
    /// Opens the state directory; workers come with the first operation. Needs a tokio runtime.
    pub fn new(config: RuntimeConfig, reaper: Reaper) -> Result<Self, RuntimeError> {
        let state = |error| RuntimeError::StateDir(config.state_dir.clone(), error);
        for directory in
            [config.state_dir.clone(), config.state_dir.join(BUNDLES), config.state_dir.join(LIBCONTAINER)]
        {
            make_private(&directory).map_err(state)?;
        }
        let hierarchies = Hierarchies::discover().map_err(RuntimeError::Cgroups)?;
        hierarchies.make_parent(&config.cgroup_parent, config.limits).map_err(RuntimeError::Cgroups)?;
        let program = |error| RuntimeError::Program(config.worker.clone(), error);
        let pool = Pool::new(&config.worker, config.deadline).map_err(program)?;
        let (containers, closing, filters) = Default::default();
        let shared = Arc::new(Shared { config, reaper, hierarchies, pool, containers, closing, filters });
        Ok(Self { shared })
    }

    /// Sends `signal` to the container's init or to all its processes.
    pub fn signal(&self, id: &ContainerName, signal: Signal, target: Target) -> Result<(), SignalError> {
        let unknown = || SignalError::UnknownContainer(id.to_string());
        let container = self.shared.container(id).ok_or_else(unknown)?;
        // The end of init is the end of all: the kernel sees to that.
        if target == Target::Init || signal == Signal::KILL {
            return container.process.signal(signal);
        }
        let members = container.members().map_err(SignalError::List)?;
        for (_, pidfd) in members {
            match sys::pidfd_send_signal(&pidfd, signal.number()) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                    return Err(SignalError::Send { signal: signal.number(), source: error });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Kills what still runs and removes every trace but the root file system. Again after a failure: tries again.
    pub async fn delete(&self, id: &ContainerName) -> Result<(), DeleteError> {
        let shared = Arc::clone(&self.shared);
        let id = id.clone();
        finish(async move {
            let container = shared.take(&id).ok_or_else(|| DeleteError::UnknownContainer(id.to_string()))?;
            let result = shared.remove(&container).await;
            match result {
                Ok(()) => shared.forget(&id),
                Err(_) => shared.put(&id, container),
            }
            result
        })
        .await
    }

    pub async fn pause(&self, id: &ContainerName) -> Result<(), PauseError> {
        self.shared.freeze(id, Stage::Running, Stage::Paused).await
    }

    pub async fn unpause(&self, id: &ContainerName) -> Result<(), PauseError> {
        self.shared.freeze(id, Stage::Paused, Stage::Running).await
    }

    /// Kills every container and removes every trace of this runtime; no more are made. For the end of the pod.
    pub async fn shut_down(&self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + self.shared.config.deadline;
        let mut failed = HashSet::new();
        loop {
            // What is just being made or removed will be there, or gone, in a moment.
            let left: Vec<ContainerName> =
                self.shared.lock().keys().filter(|id| !failed.contains(*id)).cloned().collect();
            if left.is_empty() || Instant::now() > deadline {
                break;
            }
            for (id, error) in self.delete_all(left).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "container was not removed cleanly");
                failed.insert(id);
            }
            sleep(POLL).await;
        }
        self.shared.pool.close();
        if let Err((path, error)) = self.shared.hierarchies.at(&self.shared.config.cgroup_parent).remove() {
            tracing::warn!(path = %path.display(), %error, "control group was not removed");
        }
        let _ = fs::remove_dir_all(&self.shared.config.state_dir);
    }
}

impl Runtime {
    /// Deletes those of `ids` that can be deleted now; says which could not, and why.
    async fn delete_all(&self, ids: Vec<ContainerName>) -> Vec<(ContainerName, DeleteError)> {
        let delete = |id: ContainerName| {
            let runtime = self.clone();
            tokio::spawn(async move { runtime.delete(&id).await.map_err(|error| (id, error)) })
        };
        let mut failed = Vec::new();
        for deletion in ids.into_iter().map(delete).collect::<Vec<_>>() {
            match deletion.await {
                Ok(Err((_, DeleteError::UnknownContainer(_)))) | Ok(Ok(())) | Err(_) => {}
                Ok(Err(failure)) => failed.push(failure),
            }
        }
        failed
    }
}

/// Subdirectories of the state directory.
const BUNDLES: &str = "bundles";
const LIBCONTAINER: &str = "run";

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerName, Slot>> {
        // Every critical section is one operation of the map, so a panic elsewhere does not spoil it.
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn container(&self, id: &ContainerName) -> Option<Arc<Container>> {
        match self.lock().get(id) {
            Some(Slot::Ready(container)) => Some(Arc::clone(container)),
            Some(Slot::Busy) | None => None,
        }
    }

    /// Takes the container out, leaving its name taken.
    fn take(&self, id: &ContainerName) -> Option<Arc<Container>> {
        let mut containers = self.lock();
        match containers.get_mut(id) {
            Some(slot) => match std::mem::replace(slot, Slot::Busy) {
                Slot::Ready(container) => Some(container),
                Slot::Busy => None,
            },
            None => None,
        }
    }

    fn put(&self, id: &ContainerName, container: Arc<Container>) {
        self.lock().insert(id.clone(), Slot::Ready(container));
    }

    fn forget(&self, id: &ContainerName) {
        self.lock().remove(id);
    }

    fn bundle(&self, id: &str) -> PathBuf {
        self.config.state_dir.join(BUNDLES).join(id)
    }

    /// libcontainer's directory of one container.
    fn state(&self, id: &str) -> PathBuf {
        self.config.state_dir.join(LIBCONTAINER).join(id)
    }

    fn cgroup_path(&self, id: &str) -> String {
        format!("/{}/{id}", self.config.cgroup_parent.trim_matches('/'))
    }

    async fn remove(&self, container: &Container) -> Result<(), DeleteError> {
        // A frozen process of a v1 hierarchy does not even die.
        let _ = container.cgroup.freeze(Freeze::Thawed);
        let _ = container.process.signal(Signal::KILL);
        let end = container.process.exit();
        tokio::time::timeout(END_DEADLINE, end.wait()).await.map_err(|_| DeleteError::TimedOut)?;
        remove_cgroup(&container.cgroup).await?;
        self.remove_state(&container.id).map_err(DeleteError::State)
    }

    fn remove_state(&self, id: &str) -> io::Result<()> {
        for directory in [self.bundle(id), self.state(id)] {
            match fs::remove_dir_all(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// What is left of a container that was not completed.
    async fn clean_up(&self, id: &str) {
        let cgroup = self.hierarchies.at(&self.cgroup_path(id));
        let deadline = Instant::now() + END_DEADLINE;
        while let Ok(pids) = cgroup.pids() {
            if pids.is_empty() || Instant::now() > deadline {
                break;
            }
            container::kill(&cgroup, &pids);
            sleep(POLL).await;
        }
        if let Err(error) = remove_cgroup(&cgroup).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "control group was left behind");
        }
        if let Err(error) = self.remove_state(id) {
            tracing::warn!(%error, "state of a container was left behind");
        }
    }

    async fn freeze(&self, id: &ContainerName, from: Stage, to: Stage) -> Result<(), PauseError> {
        let container = self.container(id).ok_or_else(|| PauseError::UnknownContainer(id.to_string()))?;
        let mut stage = container.stage.lock().await;
        if *stage != from || container.process.exit().now().is_some() {
            return Err(match from {
                Stage::Paused => PauseError::NotPaused(id.to_string()),
                _ => PauseError::NotRunning(id.to_string()),
            });
        }
        let state = if to == Stage::Paused { Freeze::Frozen } else { Freeze::Thawed };
        container.cgroup.freeze(state).map_err(PauseError::Freeze)?;
        let deadline = Instant::now() + END_DEADLINE;
        while !container.cgroup.is(state).map_err(PauseError::Freeze)? {
            if Instant::now() > deadline {
                let _ = container.cgroup.freeze(Freeze::Thawed);
                return Err(PauseError::TimedOut);
            }
            sleep(POLL).await;
        }
        *stage = to;
        Ok(())
    }
}

/// Removes a control group whose processes are dead, as soon as the kernel has done with them.
async fn remove_cgroup(cgroup: &Cgroup) -> Result<(), DeleteError> {
    let deadline = Instant::now() + END_DEADLINE;
    loop {
        match cgroup.remove() {
            Ok(()) => return Ok(()),
            Err((_, error)) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                sleep(POLL).await;
            }
            Err((path, source)) => {
                return Err(DeleteError::Cgroup { path: path.display().to_string(), source });
            }
        }
    }
}

/// Carries `work` through even if the caller goes away.
async fn finish<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn make_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    match fs::symlink_metadata(directory)?.is_dir() {
        true => fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o700)),
        false => Err(io::ErrorKind::NotADirectory.into()),
    }
}
