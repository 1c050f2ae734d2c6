//! One pod, from nothing to ready to gone.
//!
//! ```text
//! check --> create state --> vsock device --> QEMU, stopped --> measure --> run --> agent answers --> configure --> ready
//!   |            |                |                |               |         |            |               |          |
//!   '-- error: nothing made       '----- error or interrupt: kill what runs, remove the state ------------'     stop or end:
//!                                                                                                                 retire
//! ```
//! Up to the measurement nothing is anybody's: a [`shell`] stops there, and goes on when somebody claims it.
//!
//! The supervisor judges nothing: it is the host. What it measures is for the simulated platform's report.

mod boot;
mod bridge;
mod error;
mod guest;
mod live;
mod plan;
pub mod shell;
mod tee;

use tokio::sync::watch;

pub use self::{
    error::{LastWords, StartError},
    plan::{Plan, TenantPlan, VmPlan, VsockChoice},
    tee::{TeeError, simulated_root},
};
use crate::{
    progress::Listener,
    state::{Home, LockedPod},
};

/// The guest's init data, as QEMU attaches it.
pub(crate) const INIT_DATA_FILE: &str = "init-data.img";
/// The guest's serial console.
pub const CONSOLE_LOG: &str = "console.log";
const QEMU_LOG: &str = "qemu.log";
const VSOCK_LOG: &str = "vsock.log";
const QMP_SOCKET: &str = "qmp.sock";
/// Where QEMU and the vsock device meet.
const VHOST_USER_SOCKET: &str = "vhost-user.sock";
/// Where host programs reach the guest's vsock; `_PORT` is appended for what the guest connects to.
const VSOCK_SOCKET: &str = "vsock.sock";

/// How urgently a pod is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    No,
    /// The guest may end by itself first.
    Gracefully,
    /// At once.
    Now,
}

/// Runs one pod until it ends, and says why it did: a cold start. `listener` hears of the start; `stop` may change at any time.
///
/// Run it on the thread that lives as long as the process: the kernel ends QEMU with that thread.
pub async fn run(
    home: &Home,
    plan: Plan,
    listener: &mut dyn Listener,
    mut stop: watch::Receiver<Stop>,
) -> Result<String, StartError> {
    let (vm, tenant) = (plan.vm.check()?, plan.tenant.check()?);
    let mut pod = home.create(vm.pod_record(&tenant)?)?;
    let mut parts = boot::Parts::default();
    let stages = boot::Stages::new(listener);
    let begin = async {
        let stopped = boot::prepare(&vm, &mut pod, &mut parts).await?;
        boot::boot(home, (&vm, &tenant), stopped, &mut pod, &mut parts, stages).await
    };
    let begun = tokio::select! {
        biased;
        () = requested(&mut stop, Stop::Gracefully) => Err(StartError::Interrupted),
        begun = begin => begun,
    };
    see_out(pod, parts, begun, stop).await
}

/// From wherever a start has led to the end of the pod.
async fn see_out(
    pod: LockedPod,
    mut parts: boot::Parts,
    begun: Result<live::Live, StartError>,
    mut stop: watch::Receiver<Stop>,
) -> Result<String, StartError> {
    let mut live = match begun {
        Ok(live) => live,
        Err(error) => {
            parts.kill().await;
            // Nothing of a failed start is worth keeping: what it said is in the error.
            pod.remove()?;
            return Err(error);
        }
    };
    tracing::info!(pod = %pod.name(), endpoint = pod.record.endpoint, "ready");
    let why = live.until_the_end(&pod, &parts, &mut stop).await;
    parts.kill().await;
    tracing::info!(pod = %pod.name(), why, "ended");
    pod.retire(why.clone())?;
    Ok(why)
}

/// Waits until the pod is to end at least this urgently.
async fn requested(stop: &mut watch::Receiver<Stop>, urgency: Stop) {
    if stop.wait_for(|stop| *stop >= urgency).await.is_err() {
        // Nobody can ask any more.
        std::future::pending::<()>().await;
    }
}
