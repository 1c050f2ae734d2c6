//! The phases of a start. Each adds one part; whoever called takes all parts down if a later phase fails.

use std::{
    future::Future,
    io,
    path::Path,
    time::{Duration, Instant},
};

use postern_launch::{AGENT_VSOCK_PORT, OWNER_TCP_PORT};
use serde_json::json;

use super::{
    CONSOLE_LOG, INIT_DATA_FILE, LastWords, QEMU_LOG, QMP_SOCKET, StartError, VHOST_USER_SOCKET, VSOCK_LOG,
    VSOCK_SOCKET,
    guest::{self, Answering},
    live::Live,
    plan::{Checked, CheckedVsock},
    tee::Tee,
};
use crate::{
    bounded_log::BoundedLog,
    exec::{Logs, Managed, spawn},
    progress::{Listener, Report, millis},
    qmp::{Qmp, QmpError, forwarded_port},
    state::{ChildRecord, Home, LockedPod, PodStatus},
    vsock::VsockAddress,
};

/// How long a program of this host may take to come up.
const PROGRAM_UP: Duration = Duration::from_secs(30);
/// How often a socket that is to appear is looked for.
const LOOK: Duration = Duration::from_millis(5);
/// Lines of output that an error carries.
const LAST_LINES: usize = 6;
const HELPER: &str = "the vsock helper";
/// What a Rust program says of a thread that panics.
pub(super) const CRASH_LINE: &str = " panicked at ";
/// Every line of the agent on the console has this.
const AGENT_LINE: &str = "postern: ";

/// What of a pod is running, in the order in which it was started.
#[derive(Debug, Default)]
pub(super) struct Parts {
    vsock: Option<Managed>,
    qemu: Option<Managed>,
    tee: Option<Tee>,
}

impl Parts {
    pub(super) fn qemu(&self) -> Option<&Managed> {
        self.qemu.as_ref()
    }

    pub(super) fn vsock(&self) -> Option<&Managed> {
        self.vsock.as_ref()
    }

    /// Ends everything, last first.
    pub(super) async fn kill(&mut self) {
        for part in [self.qemu.take(), self.vsock.take()].into_iter().flatten() {
            part.kill().await;
        }
        self.tee = None;
    }

    /// Waits for `step`, unless a program that it needs ends before.
    async fn unless_ended<T>(
        &self,
        step: impl Future<Output = Result<T, StartError>>,
    ) -> Result<T, StartError> {
        tokio::select! {
            result = step => match result {
                // A control socket that breaks is a QEMU that ends: wait for what it has to say.
                Err(StartError::Qmp(QmpError::Closed | QmpError::Io(_))) if self.qemu.is_some() => {
                    match tokio::time::timeout(Duration::from_secs(2), self.first_end()).await {
                        Ok(ended) => Err(ended),
                        Err(_) => result,
                    }
                }
                result => result,
            },
            ended = self.first_end() => Err(ended),
        }
    }

    async fn first_end(&self) -> StartError {
        let end_of = async |part: &Option<Managed>, program| match part {
            Some(part) => {
                let ended = part.ended().await;
                StartError::Ended { program, ended, source: last_words(program, part) }
            }
            None => std::future::pending().await,
        };
        tokio::select! {
            biased;
            error = end_of(&self.vsock, HELPER) => error,
            error = end_of(&self.qemu, "QEMU") => error,
            error = self.helper_crash() => error,
        }
    }

    /// Waits for the vsock helper to crash: its process outlives the thread that does the work.
    async fn helper_crash(&self) -> StartError {
        let Some(helper) = &self.vsock else { return std::future::pending().await };
        helper.stderr().line_containing(CRASH_LINE).await;
        StartError::Crashed { program: HELPER, source: last_words(HELPER, helper) }
    }
}

fn last_words(program: &'static str, part: &Managed) -> LastWords {
    match part.stderr().last_lines(LAST_LINES) {
        lines if lines.is_empty() => {
            LastWords { of: "its standard output", lines: part.stdout().last_lines(LAST_LINES) }
        }
        lines => LastWords { of: program, lines },
    }
}

/// From a directory to a pod that answers its owner.
pub(super) async fn boot(
    home: &Home,
    checked: &Checked,
    pod: &mut LockedPod,
    parts: &mut Parts,
    listener: &mut dyn Listener,
) -> Result<Live, StartError> {
    let mut stages = Stages::new(listener);
    pod.write(INIT_DATA_FILE, &checked.device)?;
    let vsock = start_vsock(checked, pod, parts).await?;
    let mut qmp = start_qemu(checked, pod, parts).await?;
    let tee = start_tee(home, checked, pod, parts)?;
    pod.record.measurement = Some(tee.measurement());
    parts.tee = Some(tee);
    let port = run(parts, &mut qmp).await?;
    let endpoint = format!("tcp://{}:{port}", checked.plan.listen.ip());
    pod.record.endpoint = Some(endpoint.clone());
    pod.record.vsock = Some(vsock.clone());
    pod.save()?;
    stages.done(|millis| Report::Vmm { millis })?;

    let client = await_agent(checked, &vsock, parts, &mut stages).await?;
    stages.done(|millis| Report::Agent { millis })?;
    parts.unless_ended(guest::configure(&client, &checked.plan.name)).await?;
    stages.done(|millis| Report::Sandbox { millis })?;

    pod.record.status = PodStatus::Running;
    pod.record.boot_millis.clone_from(&stages.millis);
    pod.save()?;
    let directory = pod.directory().display().to_string();
    stages.report(&Report::Ready { millis: millis(stages.begun.elapsed()), endpoint, directory })?;
    Ok(Live::new(qmp, vsock))
}

/// Starts whatever carries the guest's vsock.
async fn start_vsock(
    checked: &Checked,
    pod: &mut LockedPod,
    parts: &mut Parts,
) -> Result<VsockAddress, StartError> {
    let helper = match &checked.vsock {
        CheckedVsock::Kernel { cid } => return Ok(VsockAddress::Kernel { cid: *cid }),
        CheckedVsock::VhostUser { helper } => helper,
    };
    // All in the pod's directory, by short names: a socket's path has a limit, a user's home has not.
    let vm = format!("guest-cid=3,socket={VHOST_USER_SOCKET},uds-path={VSOCK_SOCKET}");
    let log = || BoundedLog::new(pod.path(VSOCK_LOG));
    let logs = Logs { stdout: BoundedLog::new(pod.path("vsock.out.log")), stderr: log() };
    let child = spawn("vsock", helper, ["--vm", &vm], pod.directory(), logs)?;
    remember(pod, &child)?;
    parts.vsock = Some(child);
    let socket = pod.path(VHOST_USER_SOCKET);
    within_reason(HELPER, parts.unless_ended(appears(&socket))).await?;
    Ok(VsockAddress::VhostUser { socket: pod.path(VSOCK_SOCKET) })
}

/// Starts QEMU with the guest stopped, and takes control of it.
async fn start_qemu(checked: &Checked, pod: &mut LockedPod, parts: &mut Parts) -> Result<Qmp, StartError> {
    let mut args = checked.launch()?.qemu_args();
    // Stopped, so that what runs is what was measured before.
    args.push("-S".into());
    let logs =
        Logs { stdout: BoundedLog::new(pod.path(CONSOLE_LOG)), stderr: BoundedLog::new(pod.path(QEMU_LOG)) };
    let child = spawn("qemu", &checked.qemu, args, pod.directory(), logs)?;
    remember(pod, &child)?;
    parts.qemu = Some(child);
    let socket = pod.path(QMP_SOCKET);
    let connect = async {
        appears(&socket).await?;
        // The socket is there a moment before it listens.
        loop {
            match Qmp::connect(&socket).await {
                Err(QmpError::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    tokio::time::sleep(LOOK).await;
                }
                result => return Ok(result?),
            }
        }
    };
    let connected = within_reason("QEMU", parts.unless_ended(connect)).await;
    connected.map_err(|error| port_taken(error, checked))
}

/// Between the check and QEMU somebody else may have taken the port.
fn port_taken(error: StartError, checked: &Checked) -> StartError {
    match &error {
        StartError::Ended { source, .. }
            if source.lines.iter().any(|line| line.contains("Could not set up host forwarding rule")) =>
        {
            StartError::PortInUse { listen: checked.plan.listen }
        }
        _ => error,
    }
}

/// Lets the simulated platform measure the stopped QEMU and serve reports.
fn start_tee(home: &Home, checked: &Checked, pod: &LockedPod, parts: &Parts) -> Result<Tee, StartError> {
    let qemu = parts.qemu().map_or(0, |qemu| qemu.id().pid);
    let socket = pod.path(&format!("{VSOCK_SOCKET}_{}", postern_model::sim_device::VSOCK_PORT));
    let cid = match checked.vsock {
        CheckedVsock::VhostUser { .. } => None,
        CheckedVsock::Kernel { cid } => Some(cid),
    };
    Ok(Tee::start(&home.simulated_platform(), qemu, checked.host_data, &socket, cid)?)
}

/// Lets the guest run; the port on which its owner endpoint is reached.
async fn run(parts: &Parts, qmp: &mut Qmp) -> Result<u16, StartError> {
    let step = async {
        let usernet = qmp.human("info usernet").await?;
        let port = forwarded_port(&usernet, OWNER_TCP_PORT).ok_or(StartError::NoPort)?;
        qmp.execute("cont", json!({})).await?;
        Ok(port)
    };
    parts.unless_ended(step).await
}

async fn await_agent(
    checked: &Checked,
    vsock: &VsockAddress,
    parts: &Parts,
    stages: &mut Stages<'_>,
) -> Result<crate::client::HostClient, StartError> {
    let deadline = Instant::now() + checked.plan.deadline;
    let answering = Answering { address: vsock, port: AGENT_VSOCK_PORT, deadline };
    let Some(qemu) = parts.qemu() else { return Err(StartError::Interrupted) };
    let step = async {
        // vhost-device-vsock 0.3 dies of a connection that comes while the guest's driver starts. So the agent's first word
        // on the console is waited for; where there is no console, half of the time has to do.
        let first_word = qemu.stdout().line_containing(AGENT_LINE);
        if let Ok(line) = tokio::time::timeout(checked.plan.deadline / 2, first_word).await {
            stages.done_before(agents_own(&line), |millis| Report::Kernel { millis })?;
        }
        let found = answering.agent().await;
        found.map_err(|_| {
            let lines = qemu.stdout().last_lines(LAST_LINES);
            let source = LastWords { of: "its console", lines };
            StartError::GuestSilent { seconds: checked.plan.deadline.as_secs(), source }
        })
    };
    parts.unless_ended(step).await
}

/// What of a line such as `postern: booted kernel 2435 ms, mounts 62 ms, modules 564 ms` is not the kernel's. The guest may
/// say what it likes: it is shown, and nothing depends on it.
fn agents_own(line: &str) -> Duration {
    let Some((_, steps)) = line.split_once("postern: booted ") else { return Duration::ZERO };
    let step = |step: &str| {
        let (name, millis) = step.trim().strip_suffix(" ms")?.rsplit_once(' ')?;
        (name != "kernel").then(|| millis.parse::<u32>().ok()).flatten()
    };
    steps.split(',').filter_map(step).map(|millis| Duration::from_millis(millis.into())).sum()
}

fn remember(pod: &mut LockedPod, child: &Managed) -> Result<(), StartError> {
    pod.record.children.push(ChildRecord { role: child.role().to_owned(), process: child.id() });
    Ok(pod.save()?)
}

async fn appears(path: &Path) -> Result<(), StartError> {
    while !path.exists() {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

async fn within_reason<T>(
    program: &'static str,
    step: impl Future<Output = Result<T, StartError>>,
) -> Result<T, StartError> {
    match tokio::time::timeout(PROGRAM_UP, step).await {
        Ok(result) => result,
        Err(_) => Err(StartError::Stuck { program, seconds: PROGRAM_UP.as_secs() }),
    }
}

/// Measures stages and reports them.
struct Stages<'a> {
    listener: &'a mut dyn Listener,
    begun: Instant,
    last: Instant,
    millis: Vec<(String, u64)>,
}

impl<'a> Stages<'a> {
    fn new(listener: &'a mut dyn Listener) -> Self {
        let now = Instant::now();
        Self { listener, begun: now, last: now, millis: Vec::new() }
    }

    /// The stage that has just ended.
    fn done(&mut self, report: fn(u64) -> Report) -> Result<(), StartError> {
        self.done_before(Duration::ZERO, report)
    }

    /// The stage that ended this long ago.
    fn done_before(&mut self, ago: Duration, report: fn(u64) -> Report) -> Result<(), StartError> {
        let end = Instant::now().checked_sub(ago).map_or(self.last, |end| end.max(self.last));
        let took = millis(end.duration_since(self.last));
        self.last = end;
        let report = report(took);
        self.millis.push((report.stage().to_owned(), took));
        self.report(&report)
    }

    fn report(&mut self, report: &Report) -> Result<(), StartError> {
        self.listener.report(report).map_err(StartError::Abandoned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_part_of_a_boot_is_told_from_the_kernels() {
        let line = "postern: booted kernel 2435 ms, mounts 62 ms, init data 57 ms, serving 263 ms";
        assert_eq!(agents_own(line), Duration::from_millis(382));
        for line in ["postern: ready", "postern: booted", "postern: booted kernel x ms, a -1 ms,, 5 ms", ""] {
            assert_eq!(agents_own(line), Duration::ZERO, "{line}");
        }
    }
}
