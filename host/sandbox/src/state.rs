//! What this host knows of its pods, on disk: enough to find, stop and clean up after a pod whose supervisor is gone.
//!
//! ```text
//! ROOT/lock                 held while a pod is created or removed
//! ROOT/simulated-snp/       the simulated platform's keys and root
//! ROOT/kvm.json             whether a guest has booted under KVM here
//! ROOT/tsc.json             the frequency of the time stamp counter, for this boot of the machine
//! ROOT/pods/NAME/lock       held by the pod's supervisor for its life: whoever gets it knows that the supervisor is gone
//! ROOT/pods/NAME/state.json written atomically
//! ROOT/pods/NAME/*          sockets, init data, logs
//! ROOT/shells/              VMs that are nobody's yet: see `shell`
//! ```

mod record;
mod shell;

use std::{
    env,
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use postern_model::PodName;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::Serialize;

pub(crate) use self::shell::random_number;
pub use self::{
    record::{ChildRecord, PodRecord, PodStatus},
    shell::{LockedShell, Shell, ShellRecord, ShellStatus},
};

/// How long another command may hold the lock on all pods.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// How long a command that only looks may hold a pod's lock.
const GLANCE: Duration = Duration::from_millis(250);

/// The state directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(
        "there is no place for state: none of POSTERN_HOST_STATE, XDG_STATE_HOME and HOME is an absolute path"
    )]
    NoPlace,
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not a pod's state", path.display())]
    Malformed { path: PathBuf, source: serde_json::Error },
    #[error("another command has held {} for {seconds} s", path.display())]
    Locked { path: PathBuf, seconds: u64 },
    #[error("no pod is named \"{0}\" here")]
    Unknown(PodName),
    #[error("a pod named \"{name}\" exists already; it is {status}")]
    Exists { name: PodName, status: &'static str },
    #[error("pod \"{0}\" is running")]
    Running(PodName),
}

impl StateError {
    /// For `map_err`: `action` is a verb, such as "write".
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    pub fn is_out_of_space(&self) -> bool {
        let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::Io { source, .. } if kinds.contains(&source.kind()))
    }
}

/// The state directory of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// State below `root`, which need not exist.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// State where the environment says: `$POSTERN_HOST_STATE`, or `postern-host` below `$XDG_STATE_HOME` or
    /// `~/.local/state`.
    pub fn from_environment() -> Result<Self, StateError> {
        let variable = |name: &str| env::var_os(name).filter(|value| Path::new(value).is_absolute());
        Self::from_variables(variable("POSTERN_HOST_STATE"), variable("XDG_STATE_HOME"), variable("HOME"))
    }

    fn from_variables(
        own: Option<OsString>,
        xdg: Option<OsString>,
        home: Option<OsString>,
    ) -> Result<Self, StateError> {
        let root = own
            .map(PathBuf::from)
            .or_else(|| xdg.map(|xdg| Path::new(&xdg).join("postern-host")))
            .or_else(|| home.map(|home| Path::new(&home).join(".local/state/postern-host")));
        root.map(Self::at).ok_or(StateError::NoPlace)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the simulated SNP platform keeps its keys.
    pub fn simulated_platform(&self) -> PathBuf {
        self.root.join("simulated-snp")
    }

    pub(crate) fn kvm_answer(&self) -> PathBuf {
        self.root.join("kvm.json")
    }

    pub(crate) fn tsc_answer(&self) -> PathBuf {
        self.root.join("tsc.json")
    }

    fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// Makes the directories that everything else is in.
    pub fn prepare(&self) -> Result<(), StateError> {
        let pods = self.pods();
        DirBuilder::new().recursive(true).mode(0o700).create(&pods).map_err(StateError::io("create", &pods))
    }

    /// All pods, running or not, by name.
    pub fn list(&self) -> Result<Vec<Pod>, StateError> {
        let pods = self.pods();
        let entries = match fs::read_dir(&pods) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StateError::io("list", &pods)(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(StateError::io("list", &pods))?;
            // What is not a pod's name was not put there by this program.
            let name = entry.file_name().to_str().and_then(|name| PodName::new(name).ok());
            found.extend(name.map(|name| Pod { directory: entry.path(), name }));
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    pub fn pod(&self, name: &PodName) -> Result<Pod, StateError> {
        let directory = self.pods().join(name.as_str());
        match directory.is_dir() {
            true => Ok(Pod { name: name.clone(), directory }),
            false => Err(StateError::Unknown(name.clone())),
        }
    }

    /// A new pod's directory, locked for the caller.
    pub fn create(&self, record: PodRecord) -> Result<LockedPod, StateError> {
        self.prepare()?;
        let _lock = self.lock()?;
        let name = record.name.clone();
        let directory = self.pods().join(name.as_str());
        match DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let status = Pod { name: name.clone(), directory }.status()?.as_str();
                return Err(StateError::Exists { name, status });
            }
            Err(error) => return Err(StateError::io("create", &directory)(error)),
        }
        let pod = Pod { name, directory };
        let created = wait_for_lock(&pod.lock_path(), LOCK_WAIT).and_then(|lock| {
            let locked = LockedPod { pod: pod.clone(), record, _lock: lock };
            locked.save().map(|()| locked)
        });
        if created.is_err() {
            // Half a pod is none. If this fails too, the first error is the one that matters.
            let _ = fs::remove_dir_all(&pod.directory);
        }
        created
    }

    /// Removes a pod that is not running, with all that its supervisor may have left behind.
    pub fn remove(&self, name: &PodName) -> Result<(), StateError> {
        // Before the lock, whose file need not be there; and again within, when nobody else can remove the pod.
        self.pod(name)?;
        let _lock = self.lock()?;
        let pod = self.pod(name)?;
        let _supervisor = match wait_for_lock(&pod.lock_path(), GLANCE) {
            Err(StateError::Locked { .. }) => return Err(StateError::Running(name.clone())),
            lock => lock?,
        };
        pod.end_leftovers()?;
        fs::remove_dir_all(&pod.directory).map_err(StateError::io("remove", &pod.directory))
    }

    /// Brings a pod whose supervisor is gone to its end in order: nothing runs, logs and record are kept.
    pub fn settle(&self, name: &PodName) -> Result<(), StateError> {
        // Before the lock, whose file need not be there; and again within, when nobody else can remove the pod.
        self.pod(name)?;
        let _lock = self.lock()?;
        let pod = self.pod(name)?;
        let supervisor = match wait_for_lock(&pod.lock_path(), GLANCE) {
            Err(StateError::Locked { .. }) => return Err(StateError::Running(name.clone())),
            lock => lock?,
        };
        let record = pod.record()?;
        if record.status == PodStatus::Ended {
            return Ok(());
        }
        pod.end_leftovers()?;
        LockedPod { pod, record, _lock: supervisor }.retire("its supervisor had crashed".into())
    }

    fn lock(&self) -> Result<File, StateError> {
        wait_for_lock(&self.root.join("lock"), LOCK_WAIT)
    }
}

fn wait_for_lock(path: &Path, at_most: Duration) -> Result<File, StateError> {
    let deadline = Instant::now() + at_most;
    loop {
        match lock_file(path, FlockOperation::NonBlockingLockExclusive)? {
            Some(lock) => return Ok(lock),
            None if Instant::now() > deadline => {
                return Err(StateError::Locked { path: path.to_owned(), seconds: at_most.as_secs() });
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn lock_file(path: &Path, operation: FlockOperation) -> Result<Option<File>, StateError> {
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).mode(0o600).open(path);
    let file = file.map_err(StateError::io("open", path))?;
    match flock(&file, operation) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(StateError::io("lock", path)(error.into())),
    }
}

/// Whether a supervisor holds the lock. Looks through a shared one, so that those who look do not see each other, and
/// makes nothing: what is looked at may be about to go.
fn is_supervised(lock: &Path) -> Result<bool, StateError> {
    let file = match File::open(lock) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(StateError::io("open", lock)(error)),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(StateError::io("lock", lock)(error.into())),
    }
}

fn end_processes(children: &[ChildRecord], directory: &Path) -> Result<(), StateError> {
    for child in children {
        let ended = child.process.open().and_then(|running| match running {
            Some(running) => {
                running.signal(rustix::process::Signal::KILL)?;
                running.wait(Duration::from_secs(10)).map(drop)
            }
            None => Ok(()),
        });
        ended.map_err(StateError::io("end the processes of", directory))?;
    }
    Ok(())
}

/// A directory in which a supervisor runs programs: a pod's, or a shell's that will be one.
pub(crate) trait Place {
    fn directory(&self) -> &Path;

    /// Writes down a program that runs here, before anything depends on it.
    fn remember(&mut self, child: ChildRecord) -> Result<(), StateError>;
}

/// A pod's directory, looked at from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    name: PodName,
    directory: PathBuf,
}

impl Pod {
    pub fn name(&self) -> &PodName {
        &self.name
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn lock_path(&self) -> PathBuf {
        self.directory.join("lock")
    }

    fn record_path(&self) -> PathBuf {
        self.directory.join("state.json")
    }

    pub fn record(&self) -> Result<PodRecord, StateError> {
        let path = self.record_path();
        let bytes = fs::read(&path).map_err(StateError::io("read", &path))?;
        serde_json::from_slice(&bytes).map_err(|source| StateError::Malformed { path, source })
    }

    pub fn status(&self) -> Result<PodStatus, StateError> {
        let supervised = is_supervised(&self.lock_path())?;
        Ok(match (self.record().map(|record| record.status), supervised) {
            (Ok(PodStatus::Ended), _) => PodStatus::Ended,
            (Ok(status), true) => status,
            (Err(_), true) => PodStatus::Starting,
            (_, false) => PodStatus::Crashed,
        })
    }

    /// Ends the processes that a supervisor has left behind, and removes its sockets. They die with it, so there are none
    /// unless something kept them from it.
    fn end_leftovers(&self) -> Result<(), StateError> {
        let Ok(record) = self.record() else { return Ok(()) };
        end_processes(&record.children, &self.directory)?;
        self.remove_sockets()
    }

    fn remove_sockets(&self) -> Result<(), StateError> {
        let list = StateError::io("list", &self.directory);
        for entry in fs::read_dir(&self.directory).map_err(list)?.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_socket()) {
                fs::remove_file(entry.path()).map_err(StateError::io("remove", &entry.path()))?;
            }
        }
        Ok(())
    }
}

/// A pod's directory in the hands of its supervisor.
#[derive(Debug)]
pub struct LockedPod {
    pod: Pod,
    pub record: PodRecord,
    _lock: File,
}

impl LockedPod {
    pub fn name(&self) -> &PodName {
        &self.pod.name
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.pod.directory.join(file)
    }

    pub fn directory(&self) -> &Path {
        &self.pod.directory
    }

    /// Writes a file that only this user can read.
    pub fn write(&self, file: &str, contents: &[u8]) -> Result<(), StateError> {
        write_private(&self.path(file), contents)
    }

    /// Writes to the start of a file that is there, which keeps its length and its identity: a program has it open.
    pub fn fill(&self, file: &str, contents: &[u8]) -> Result<(), StateError> {
        let path = self.path(file);
        let opened = OpenOptions::new().write(true).open(&path);
        opened.and_then(|file| file.write_all_at(contents, 0)).map_err(StateError::io("write", &path))
    }

    /// Writes `state.json`, whole or not at all.
    pub fn save(&self) -> Result<(), StateError> {
        write_json(&self.pod.record_path(), &self.record)
    }

    /// Leaves logs and record behind and nothing else.
    pub fn retire(mut self, why: String) -> Result<(), StateError> {
        self.pod.remove_sockets()?;
        let _ = fs::remove_file(self.path(crate::supervisor::INIT_DATA_FILE));
        self.record.status = PodStatus::Ended;
        self.record.children.clear();
        self.record.endpoint = None;
        self.record.vsock = None;
        self.record.end = Some(why);
        self.save()
    }

    /// Leaves nothing behind.
    pub fn remove(self) -> Result<(), StateError> {
        fs::remove_dir_all(&self.pod.directory).map_err(StateError::io("remove", &self.pod.directory))
    }
}

impl Place for LockedPod {
    fn directory(&self) -> &Path {
        &self.pod.directory
    }

    fn remember(&mut self, child: ChildRecord) -> Result<(), StateError> {
        self.record.children.push(child);
        self.save()
    }
}

/// Makes a file of zeros that only this user can read, and that takes no space until it is written to.
pub(crate) fn make_empty(path: &Path, length: u64) -> Result<(), StateError> {
    let mut options = OpenOptions::new();
    let file = options.create_new(true).write(true).mode(0o600).open(path);
    file.and_then(|file| file.set_len(length)).map_err(StateError::io("create", path))
}

/// Writes `value` to `path`, whole or not at all.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StateError> {
    let mut contents = serde_json::to_vec_pretty(value)
        .map_err(|source| StateError::Malformed { path: path.to_owned(), source })?;
    contents.push(b'\n');
    let new = path.with_extension("new");
    write_private(&new, &contents)?;
    fs::rename(&new, path).map_err(StateError::io("write", path))
}

fn write_private(path: &Path, contents: &[u8]) -> Result<(), StateError> {
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(true).write(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(contents)).map_err(StateError::io("write", path))
}

#[cfg(test)]
mod tests;
