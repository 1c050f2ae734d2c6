//! A further process in a container, for as long as somebody is connected to it.
//!
//! Whoever started it and leaves before its end takes it along, as with a terminal that is closed: SIGHUP, and SIGKILL
//! a moment later. What is to outlive its caller is a container, or detaches itself and ignores SIGHUP.

use std::{sync::Arc, time::Duration};

use postern_container::{Created, ExecProcess, Process, Stdio, Terminal};
use postern_model::{ContainerName, ExecId, OperationKind};
use postern_policy::Permit;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{sync::Mutex, time::timeout};

use super::{
    PodError, PodHandle, SharedInput,
    output::{Output, Piece},
};

/// Between the two signals.
const HANGUP_GRACE: Duration = Duration::from_secs(2);

/// A process that runs. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) id: ExecId,
    pub(crate) process: Process,
    pub(crate) stdin: SharedInput,
    pub(crate) terminal: Option<Terminal>,
    output: Output,
    _guard: Guard,
}

impl Exec {
    /// Output as it comes, then the end, then nothing more may be asked.
    pub(crate) async fn next(&mut self) -> Piece {
        self.output.next().await
    }
}

/// Ends the process with the session, and what it started that has not left its process group.
#[derive(Debug)]
struct Guard(Process);

impl Drop for Guard {
    fn drop(&mut self) {
        if !signal_group(&self.0, Signal::HUP) {
            return;
        }
        let process = self.0.clone();
        tokio::spawn(async move {
            if timeout(HANGUP_GRACE, process.exit().wait()).await.is_err() {
                signal_group(&process, Signal::KILL);
            }
        });
    }
}

/// Signals the group that `process` leads (each exec is a session of its own). False when the process has ended: its
/// number may be another's by now.
fn signal_group(process: &Process, signal: Signal) -> bool {
    let group = Pid::from_raw(process.pid().cast_signed()).filter(|_| process.exit().now().is_none());
    group.is_some_and(|group| kill_process_group(group, signal).is_ok())
}

impl PodHandle {
    pub(crate) async fn exec(
        &self,
        permit: Permit,
        name: &ContainerName,
        request: ExecProcess,
        stdio: Stdio,
    ) -> Result<Exec, PodError> {
        self.check(&permit, OperationKind::Exec)?;
        self.running(name)?;
        let created = self.runtime().exec(name, request, stdio).await;
        let Created { process, io } = created.map_err(PodError::failed("running the command"))?;
        let id = self.shared.next_exec_id()?;
        self.shared.events.tell("exec", name.as_str());
        Ok(Exec {
            id,
            stdin: Arc::new(Mutex::new(io.stdin)),
            terminal: io.terminal,
            output: Output::new(io.stdout, io.stderr, process.exit()),
            _guard: Guard(process.clone()),
            process,
        })
    }
}
