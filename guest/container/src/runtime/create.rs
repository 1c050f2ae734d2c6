//! Create and start.

use std::{
    collections::hash_map::Entry,
    fs,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{fs::OpenOptionsExt, net::UnixStream},
    },
    sync::{Arc, atomic::Ordering},
};

use oci_spec::runtime::{LinuxNamespaceType, LinuxSeccomp, Spec};
use postern_model::ContainerName;
use rustix::{
    fs::{Mode, OFlags},
    pipe::{PipeFlags, pipe_with},
};
use tokio::{io::AsyncReadExt, net::unix::pipe, time::timeout};

use super::{
    CreateContainer, CreateError, Created, FILTERS, Failure, LIBCONTAINER, Runtime, Shared, Slot, StartError,
    container::{Container, Defaults, Stage},
    finish,
};
use crate::{
    io::{ChildStdio, ProcessIo, Stdio, open_pipes, set_window_size},
    process::Process,
    spec::kernel,
    worker::{
        WorkerError,
        channel::Message,
        protocol::{CreateRequest, Reply, Request},
    },
};

/// Longest explanation that is read from a container's init.
const MAX_STATUS: u64 = 64 * 1024;
/// libcontainer's socket on which init waits for the start (libcontainer, `NOTIFY_FILE`).
const NOTIFY_SOCKET: &str = "notify.sock";

impl Runtime {
    /// Makes the container up to the point where its command would run.
    pub async fn create(&self, container: CreateContainer) -> Result<Created, CreateError> {
        let shared = Arc::clone(&self.shared);
        check_confinement(&container.spec)?;
        finish(async move {
            let id = container.id.clone();
            shared.reserve(&id)?;
            match shared.make(container).await {
                Ok((container, io)) => {
                    let created = Created { process: container.process.clone(), io };
                    shared.put(&id, Arc::new(container));
                    Ok(created)
                }
                Err(error) => {
                    shared.clean_up(id.as_str()).await;
                    shared.forget(&id);
                    Err(error)
                }
            }
        })
        .await
    }

    /// Lets the container's command run; returns when it does.
    pub async fn start(&self, id: &ContainerName) -> Result<(), StartError> {
        let unknown = || StartError::UnknownContainer(id.to_string());
        let container = self.shared.container(id).ok_or_else(unknown)?;
        let shared = Arc::clone(&self.shared);
        finish(async move {
            let mut stage = container.stage.lock().await;
            let status = container.status.lock().await.take();
            let (Stage::Created, Some(status)) = (*stage, status) else {
                return Err(StartError::AlreadyStarted(container.id.clone()));
            };
            *stage = Stage::Running;
            shared.notify(&container.id).map_err(StartError::Notify)?;
            let told = timeout(shared.config.deadline, read_status(status))
                .await
                .map_err(|_| StartError::TimedOut)?;
            match told {
                Some(failure) => Err(StartError::Refused(failure)),
                None => Ok(()),
            }
        })
        .await
    }
}

/// A specification that would run a process with less confinement than this crate promises is refused, whoever made it.
fn check_confinement(spec: &Spec) -> Result<(), CreateError> {
    let refuse = |what| Err(CreateError::Unconfined(what));
    let (Some(process), Some(linux)) = (spec.process(), spec.linux()) else {
        return refuse("process and linux are needed");
    };
    if linux.seccomp().is_none() {
        return refuse("it has no seccomp profile");
    }
    if process.no_new_privileges() != Some(true) {
        return refuse("it does not set no-new-privileges");
    }
    if process.capabilities().is_none() {
        return refuse("it does not name capabilities");
    }
    if spec.hooks().is_some() {
        return refuse("it has hooks");
    }
    let has = |kind| linux.namespaces().iter().flatten().any(|space| space.typ() == kind);
    let needed = [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Cgroup,
    ];
    let needed = needed.into_iter().filter(|kind| *kind != LinuxNamespaceType::Ipc || kernel::has_ipc());
    match needed.into_iter().all(has) && !has(LinuxNamespaceType::User) {
        true => Ok(()),
        false => refuse("it does not name exactly the name spaces that are entered later"),
    }
}

impl Shared {
    fn reserve(&self, id: &ContainerName) -> Result<(), CreateError> {
        let mut containers = self.lock();
        // Looked at under the lock that shutting down takes after saying so: what it does not see, sees it.
        if self.closing.load(Ordering::SeqCst) {
            return Err(CreateError::ShuttingDown);
        }
        match containers.entry(id.clone()) {
            Entry::Occupied(_) => Err(CreateError::Exists(id.to_string())),
            Entry::Vacant(vacant) => {
                vacant.insert(Slot::Busy);
                Ok(())
            }
        }
    }

    async fn make(&self, container: CreateContainer) -> Result<(Container, ProcessIo), CreateError> {
        let CreateContainer { id, mut spec, init, stdio } = container;
        let id = String::from(id);
        // Left from a run that ended without cleaning up.
        self.remove_state(&id).map_err(CreateError::State)?;
        let filter = self.filter(&mut spec).await?;
        let defaults = Defaults::of(&spec).ok_or(CreateError::Unconfined("process and linux are needed"))?;
        let rootfs = spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
        let cgroup = self.hierarchies.at(&self.cgroup_path(&id));
        self.write_bundle(&id, spec, stdio).map_err(CreateError::State)?;

        let (status, child_status) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|error| CreateError::Stdio(error.into()))?;
        let mut status = pipe::Receiver::from_owned_fd(status).map_err(CreateError::Stdio)?;
        let pipes = open_pipes(stdio).map_err(CreateError::Stdio)?;
        let request = Request::Create(CreateRequest {
            id: id.clone(),
            bundle: self.bundle(&id),
            root: self.config.state_dir.join(LIBCONTAINER),
            init,
            terminal: pipes.is_none(),
            uid: defaults.uid,
            filter_devices_of: cgroup.needs_device_filter(),
        });
        let answer =
            self.run_create(&request, &filter, child_status, pipes.as_ref().map(|(child, _)| child)).await;
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Err(explain(error, &mut status).await),
        };
        let Reply::Created { pid } = answer.body else {
            return Err(CreateError::Worker(WorkerError::Protocol));
        };
        let mut next = || answer.attached.fd().map_err(CreateError::Stdio);
        let pidfd = next()?;
        let exit = self.reaper.exit_of_pinned(pid, Some(&pidfd));
        let process = Process::new(pid, pidfd, exit);
        let io = match (pipes, stdio) {
            (Some((_, io)), _) => io,
            (None, stdio) => terminal(next()?, stdio).map_err(CreateError::Stdio)?,
        };
        let stage = tokio::sync::Mutex::new(Stage::Created);
        let status = tokio::sync::Mutex::new(Some(status));
        Ok((Container { id, process, cgroup, rootfs, defaults, filter, stage, status }, io))
    }

    async fn run_create(
        &self,
        request: &Request,
        filter: &[u8],
        status: OwnedFd,
        pipes: Option<&ChildStdio>,
    ) -> Result<Message<Reply>, CreateError> {
        let mut fds: Vec<BorrowedFd<'_>> = vec![status.as_fd()];
        fds.extend(pipes.iter().flat_map(|pipes| pipes.iter().map(AsFd::as_fd)));
        let mut job = self.pool.begin(request, filter, &fds).await.map_err(CreateError::Worker)?;
        drop(fds);
        // From here on only the container holds the other end.
        drop(status);
        let answer = job.answer().await.map_err(CreateError::Worker)?;
        match answer.body {
            Reply::Failed(failure) => Err(CreateError::Refused(failure)),
            _ => {
                job.finished();
                Ok(answer)
            }
        }
    }

    /// The compiled filter of `spec`, which is taken out of it: it is installed by us, not by libcontainer.
    async fn filter(&self, spec: &mut Spec) -> Result<Arc<[u8]>, CreateError> {
        let mut linux = spec.linux().clone().unwrap_or_default();
        let Some(profile) = linux.seccomp().clone() else {
            return Err(CreateError::Unconfined("it has no seccomp profile"));
        };
        linux.set_seccomp(None);
        linux.set_cgroups_path(None);
        spec.set_linux(Some(linux));
        self.compile(profile).await
    }

    async fn compile(&self, profile: LinuxSeccomp) -> Result<Arc<[u8]>, CreateError> {
        let mut filters = self.filters.lock().await;
        if let Some((_, filter)) = filters.iter().find(|(known, _)| *known == profile) {
            return Ok(Arc::clone(filter));
        }
        let request = Request::CompileFilter(profile);
        let mut job = self.pool.begin(&request, &[], &[]).await.map_err(CreateError::Worker)?;
        let answer = job.answer().await.map_err(CreateError::Worker)?;
        job.finished();
        let filter: Arc<[u8]> = match answer.body {
            Reply::Filter => answer.attached.blob.into(),
            Reply::Failed(failure) => return Err(CreateError::Refused(failure)),
            _ => return Err(CreateError::Worker(WorkerError::Protocol)),
        };
        let Request::CompileFilter(profile) = request else { return Ok(filter) };
        if filters.len() == FILTERS {
            filters.remove(0);
        }
        filters.push((profile, Arc::clone(&filter)));
        Ok(filter)
    }

    /// `config.json`, for libcontainer.
    fn write_bundle(&self, id: &str, mut spec: Spec, stdio: Stdio) -> io::Result<()> {
        let bundle = self.bundle(id);
        super::make_private(&bundle)?;
        if let Some(linux) = spec.linux_mut() {
            linux.set_cgroups_path(Some(self.cgroup_path(id).into()));
        }
        if let Some(process) = spec.process_mut() {
            process.set_terminal(Some(matches!(stdio, Stdio::Terminal(_))));
        }
        let json = serde_json::to_vec(&spec)?;
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(bundle.join("config.json"))?
            .write_all(&json)
    }

    /// Tells init to go on.
    fn notify(&self, id: &str) -> io::Result<()> {
        // The path of a socket is short; through a descriptor of its directory it always fits.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(self.state(id), flags, Mode::empty())?;
        UnixStream::connect(format!("/proc/self/fd/{}/{NOTIFY_SOCKET}", directory.as_raw_fd()))?
            .write_all(b"start")
    }
}

pub(super) fn terminal(master: OwnedFd, stdio: Stdio) -> io::Result<ProcessIo> {
    if let Stdio::Terminal(size) = stdio {
        set_window_size(&master, size)?;
    }
    ProcessIo::of_terminal(master)
}

/// What init itself says is more precise than what libcontainer makes of it.
async fn explain(error: CreateError, status: &mut pipe::Receiver) -> CreateError {
    let mut told = vec![0; MAX_STATUS as usize];
    match status.try_read(&mut told).map(|count| serde_json::from_slice::<Failure>(&told[..count])) {
        Ok(Ok(failure)) => CreateError::Refused(failure),
        _ => error,
    }
}

async fn read_status(status: pipe::Receiver) -> Option<Failure> {
    let mut told = Vec::new();
    status.take(MAX_STATUS).read_to_end(&mut told).await.ok()?;
    serde_json::from_slice(&told).ok()
}
