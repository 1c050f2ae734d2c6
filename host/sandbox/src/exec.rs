//! Child processes of a supervisor: they die with it, their output is kept within bounds, their end is seen by everyone.

use std::{
    ffi::OsStr,
    fmt, io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    sync::{mpsc, watch},
};

use crate::{
    bounded_log::{BoundedLog, Tail},
    process::ProcessId,
    sys,
};

/// How long a killed process may take to be gone.
const KILL: Duration = Duration::from_secs(10);

/// A program that could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {program}")]
pub struct SpawnError {
    program: String,
    source: io::Error,
}

/// A child process. Ends when this is dropped.
#[derive(Debug)]
pub struct Managed {
    /// What it is for: `qemu`, `vsock`.
    role: &'static str,
    id: ProcessId,
    ended: watch::Receiver<Option<Ended>>,
    kill: mpsc::Sender<()>,
    stdout: Tail,
    stderr: Tail,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended(Option<ExitStatus>);

impl Ended {
    pub fn success(self) -> bool {
        self.0.is_some_and(|status| status.success())
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(status) => status.fmt(f),
            None => f.write_str("unknown exit status"),
        }
    }
}

/// Where a child's output goes.
#[derive(Debug)]
pub struct Logs {
    pub stdout: BoundedLog,
    pub stderr: BoundedLog,
}

/// Starts `program` in `directory`. Call from the thread that lives as long as the supervisor: the kernel kills the child
/// when that thread ends.
pub fn spawn(
    role: &'static str,
    program: &Path,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    directory: &Path,
    logs: Logs,
) -> Result<Managed, SpawnError> {
    let failed = |source| SpawnError { program: program.display().to_string(), source };
    let mut command = Command::new(program);
    command
        .args(args)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A Ctrl-C in the supervisor's terminal is the supervisor's to answer.
        .process_group(0)
        .kill_on_drop(true);
    sys::die_with_parent(&mut command);
    let mut child = command.spawn().map_err(failed)?;
    let id = child.id().ok_or_else(|| io::Error::other("it ended at once"));
    let id = id.and_then(ProcessId::of).map_err(failed)?;
    let (stdout, stderr) = (logs.stdout.tail(), logs.stderr.tail());
    if let Some(output) = child.stdout.take() {
        tokio::spawn(logs.stdout.copy(output));
    }
    if let Some(output) = child.stderr.take() {
        tokio::spawn(logs.stderr.copy(output));
    }
    let (kill, kill_requests) = mpsc::channel(1);
    let (report, ended) = watch::channel(None);
    tokio::spawn(look_after(child, kill_requests, report));
    Ok(Managed { role, id, ended, kill, stdout, stderr })
}

/// Owns the child until its end.
async fn look_after(mut child: Child, mut kill: mpsc::Receiver<()>, report: watch::Sender<Option<Ended>>) {
    let status = tokio::select! {
        status = child.wait() => status,
        // A closed channel is a dropped handle.
        _ = kill.recv() => match child.start_kill() {
            Ok(()) => child.wait().await,
            Err(error) => Err(error),
        },
    };
    report.send_replace(Some(Ended(status.ok())));
}

impl Managed {
    pub fn role(&self) -> &'static str {
        self.role
    }

    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// The last of what it wrote to standard output.
    pub fn stdout(&self) -> &Tail {
        &self.stdout
    }

    /// The last of what it wrote to standard error.
    pub fn stderr(&self) -> &Tail {
        &self.stderr
    }

    /// Waits for its end, all it wrote included.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        let status = match ended.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or(Ended(None)),
            Err(_) => Ended(None),
        };
        // Whoever reports the end wants the last words; a grandchild that holds the pipe open must not prevent that.
        let last_words = async { tokio::join!(self.stdout.complete(), self.stderr.complete()) };
        let _ = tokio::time::timeout(Duration::from_secs(1), last_words).await;
        status
    }

    /// True once it has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// True once it has ended and said that all was well.
    pub fn ended_well(&self) -> bool {
        self.ended.borrow().is_some_and(Ended::success)
    }

    /// The program it runs, as the kernel names it: of one that was replaced or removed it says that it is "(deleted)".
    pub fn program(&self) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/{}/exe", self.id.pid)).ok().filter(|_| !self.has_ended())
    }

    /// Kills it and waits until it is gone.
    pub async fn kill(&self) {
        let _ = self.kill.try_send(());
        let _ = tokio::time::timeout(KILL, self.ended()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    fn start(dir: &Path, script: &str) -> Managed {
        let log = |name: &str| BoundedLog::new(dir.join(name));
        let logs = Logs { stdout: log("out"), stderr: log("err") };
        spawn("test", Path::new("/bin/sh"), ["-c", script], dir, logs).unwrap()
    }

    #[tokio::test]
    async fn the_end_comes_with_the_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let child = start(dir.path(), "echo to stdout; echo to stderr >&2; exit 3");
        let ended = tokio::time::timeout(SOON, child.ended()).await.unwrap();
        assert!(!ended.success());
        assert_eq!(ended.to_string(), "exit status: 3");
        assert_eq!(child.stdout().text(), "to stdout\n");
        assert_eq!(child.stderr().text(), "to stderr\n");
        assert_eq!(std::fs::read_to_string(dir.path().join("err")).unwrap(), "to stderr\n");
    }

    #[tokio::test]
    async fn kills_and_sees_it_gone() {
        let dir = tempfile::tempdir().unwrap();
        let child = start(dir.path(), "exec sleep 1000");
        assert!(!child.has_ended());
        child.kill().await;
        assert!(child.has_ended());
        assert!(child.id().open().unwrap().is_none());
        child.kill().await;
    }

    #[tokio::test]
    async fn a_dropped_handle_ends_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let child = start(dir.path(), "exec sleep 1000");
        let mut ended = child.ended.clone();
        drop(child);
        tokio::time::timeout(SOON, ended.wait_for(Option::is_some)).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_program_that_does_not_exist_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let log = || BoundedLog::new(dir.path().join("log"));
        let logs = Logs { stdout: log(), stderr: log() };
        let error = spawn("test", Path::new("/no/such"), [""; 0], dir.path(), logs).unwrap_err();
        assert_eq!(error.to_string(), "cannot start /no/such");
    }
}
