//! `stop`: end a pod, whatever state its supervisor is in.

use std::time::Duration;

use clap::Args;
use postern_model::PodName;
use postern_sandbox::{
    Home,
    state::{PodStatus, StateError},
};
use rustix::process::Signal;

use super::{Failure, print};

/// A supervisor asks the guest, then QEMU, then the kernel; this is longer than all of that.
const SUPERVISOR_END: Duration = Duration::from_secs(60);
const KILLED: Duration = Duration::from_secs(10);

/// End a pod; its logs are kept until it is removed
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  postern-host stop demo\n  postern-host stop --now demo web")]
pub(super) struct Arguments {
    /// Names of the pods
    #[arg(required = true)]
    names: Vec<PodName>,
    /// Do not ask the guest first
    #[arg(long)]
    now: bool,
}

pub(super) fn run(home: &Home, arguments: Arguments) -> Result<(), Failure> {
    for name in &arguments.names {
        let what = match stop(home, name, arguments.now)? {
            true => "stopped",
            false => "had ended already",
        };
        print(&format!("{name}: {what}\n"))?;
    }
    Ok(())
}

/// Ends a pod; false if it had ended already.
pub(super) fn stop(home: &Home, name: &PodName, now: bool) -> Result<bool, Failure> {
    let pod = home.pod(name)?;
    match pod.status()? {
        PodStatus::Ended => return Ok(false),
        PodStatus::Crashed => {}
        PodStatus::Starting | PodStatus::Running => end_supervisor(&pod, now)?,
    }
    match home.settle(name) {
        // A start that was interrupted leaves nothing that could be settled.
        Ok(()) | Err(StateError::Unknown(_)) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn end_supervisor(pod: &postern_sandbox::state::Pod, now: bool) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::internal("cannot end the pod's supervisor", &error);
    let Some(supervisor) = pod.record()?.supervisor.open().map_err(failed)? else { return Ok(()) };
    let signal = if now { Signal::QUIT } else { Signal::TERM };
    supervisor.signal(signal).map_err(failed)?;
    if !supervisor.wait(SUPERVISOR_END).map_err(failed)? {
        supervisor.signal(Signal::KILL).map_err(failed)?;
        supervisor.wait(KILLED).map_err(failed)?;
    }
    Ok(())
}
