//! The phases of a start. Each adds one part; whoever called takes all parts down if a later phase fails.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use postern_launch::{AGENT_VSOCK_PORT, OWNER_TCP_PORT, init_data::MAX_DEVICE};
use postern_model::Measurement;
use serde_json::json;

use super::{
    CONSOLE_LOG, INIT_DATA_FILE, LastWords, QEMU_LOG, QMP_SOCKET, StartError, VHOST_USER_SOCKET, VSOCK_LOG,
    VSOCK_SOCKET,
    guest::{self, Answering},
    live::Live,
    plan::{CheckedVm, CheckedVsock, Tenant},
    tee::{self, Tee},
};
use crate::{
    bounded_log::BoundedLog,
    exec::{Logs, Managed, spawn},
    progress::{Listener, Report, millis},
    qmp::{Qmp, QmpError, forwarded_port},
    state::{ChildRecord, Home, LockedPod, Place, PodStatus, make_empty},
    vsock::VsockAddress,
};

/// How long a program of this host may take to come up.
const PROGRAM_UP: Duration = Duration::from_secs(30);
/// How often a socket that is to appear is looked for.
const LOOK: Duration = Duration::from_millis(1);
/// Lines before a panic that an error carries.
const PANIC_LINES: usize = 2;
/// Lines of output that an error carries.
const LAST_LINES: usize = 6;
const HELPER: &str = "the vsock helper";
/// What a Rust program says of a thread that panics.
pub(super) const CRASH_LINE: &str = " panicked at ";
/// What Linux says when it cannot go on (`kernel/panic.c`), and in the same breath when memory was what it lacked.
const PANIC_LINE: &str = "Kernel panic - not syncing: ";
const MEMORY_WORDS: [&str; 4] =
    ["Out of memory", "out of memory", "deadlocked on memory", "unable to allocate"];
/// What the agent says before it ends a guest that it cannot or must not serve.
const GAVE_UP: [&str; 2] = ["postern: cannot boot: ", "postern: ends: "];
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

    pub(super) async fn first_end(&self) -> StartError {
        let end_of = async |part: &Option<Managed>, program| match part {
            Some(part) => {
                let ended = part.ended().await;
                StartError::Ended { program, ended, source: last_words(program, part) }
            }
            None => std::future::pending().await,
        };
        tokio::select! {
            biased;
            error = self.guest_panic() => error,
            error = self.guest_gave_up() => error,
            error = end_of(&self.vsock, HELPER) => error,
            error = end_of(&self.qemu, "QEMU") => self.guest_reset().unwrap_or(error),
            error = self.helper_crash() => error,
        }
    }

    /// Waits for the guest's kernel to say that it cannot go on; whether it then resets is up to its configuration.
    async fn guest_panic(&self) -> StartError {
        let Some(qemu) = &self.qemu else { return std::future::pending().await };
        let line = qemu.stdout().line_containing(PANIC_LINE).await;
        let why = line.split_once(PANIC_LINE).map_or("", |(_, why)| why).trim().to_owned();
        let said = qemu.stdout().text();
        let out_of_memory = MEMORY_WORDS.iter().any(|words| said.contains(words));
        StartError::GuestPanicked { why, out_of_memory, source: last_words_of_console(&said) }
    }

    /// Whether a QEMU that ended well did so because its guest gave up before it had a console to say why.
    fn guest_reset(&self) -> Option<StartError> {
        let qemu = self.qemu.as_ref().filter(|qemu| qemu.ended_well())?;
        let silent = qemu.stdout().text().trim().is_empty() && qemu.stderr().text().trim().is_empty();
        silent.then_some(StartError::GuestReset)
    }

    /// Waits for the agent to say why it ends the guest, which it does next.
    async fn guest_gave_up(&self) -> StartError {
        let Some(qemu) = &self.qemu else { return std::future::pending().await };
        let said = async |words: &'static str| {
            let line = qemu.stdout().line_containing(words).await;
            line.split_once(words).map_or_else(String::new, |(_, why)| why.trim().to_owned())
        };
        let [cannot_boot, ends] = GAVE_UP;
        let why = tokio::select! {
            why = said(cannot_boot) => why,
            why = said(ends) => why,
        };
        StartError::GuestGaveUp { why }
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

/// The lines before a panic say what led to it; those after it are addresses.
fn last_words_of_console(said: &str) -> LastWords {
    let before = said.split(PANIC_LINE).next().unwrap_or_default().lines().map(str::trim);
    let mut lines: Vec<String> = before.filter(|line| !line.is_empty()).map(str::to_owned).collect();
    // The line that the panic itself is on.
    lines.pop();
    let lines = lines.split_off(lines.len().saturating_sub(PANIC_LINES));
    LastWords { of: "its console", lines }
}

/// A VM that has not run: it holds nothing of anybody.
#[derive(Debug)]
pub(super) struct Stopped {
    pub qmp: Qmp,
    /// Of the QEMU that runs, taken when it had just read what it boots.
    pub measurement: Measurement,
    /// What runs as QEMU.
    pub program: Option<PathBuf>,
}

/// From a directory to a VM that stands before its first instruction.
pub(super) async fn prepare(
    vm: &CheckedVm,
    place: &mut dyn Place,
    parts: &mut Parts,
) -> Result<Stopped, StartError> {
    // As long as any owner's may be: QEMU opens it now and never asks for its length again.
    make_empty(&place.directory().join(INIT_DATA_FILE), MAX_DEVICE as u64)?;
    start_vsock(vm, place, parts).await?;
    let qmp = start_qemu(vm, place, parts).await?;
    let measurement = tee::measure(parts.qemu().map_or(0, |qemu| qemu.id().pid))?;
    Ok(Stopped { qmp, measurement, program: parts.qemu().and_then(Managed::program) })
}

/// From a VM that has not run to a pod that answers its owner.
pub(super) async fn boot(
    home: &Home,
    (vm, tenant): (&CheckedVm, &Tenant),
    stopped: Stopped,
    pod: &mut LockedPod,
    parts: &mut Parts,
    mut stages: Stages<'_>,
) -> Result<Live, StartError> {
    let Stopped { mut qmp, measurement, .. } = stopped;
    pod.fill(INIT_DATA_FILE, &tenant.device)?;
    parts.tee = Some(start_tee(home, vm, tenant, measurement, pod)?);
    pod.record.measurement = Some(measurement);
    let port = run(parts, &mut qmp).await?;
    let endpoint = format!("tcp://{}:{port}", vm.plan.listen.ip());
    let vsock = match &vm.vsock {
        CheckedVsock::Kernel { cid } => VsockAddress::Kernel { cid: *cid },
        CheckedVsock::VhostUser { .. } => VsockAddress::VhostUser { socket: pod.path(VSOCK_SOCKET) },
    };
    pod.record.endpoint = Some(endpoint.clone());
    pod.record.vsock = Some(vsock.clone());
    pod.save()?;
    stages.done(|millis| Report::Vmm { millis })?;

    let client = await_agent(tenant, &vsock, parts, &mut stages).await?;
    stages.done(|millis| Report::Agent { millis })?;
    parts.unless_ended(guest::configure(&client, &tenant.name)).await?;
    stages.done(|millis| Report::Sandbox { millis })?;

    pod.record.status = PodStatus::Running;
    pod.record.boot_millis.clone_from(&stages.millis);
    pod.save()?;
    let directory = pod.directory().display().to_string();
    stages.report(&Report::Ready { millis: millis(stages.begun.elapsed()), endpoint, directory })?;
    Ok(Live::new(qmp, vsock))
}

/// Starts whatever carries the guest's vsock.
async fn start_vsock(vm: &CheckedVm, place: &mut dyn Place, parts: &mut Parts) -> Result<(), StartError> {
    let CheckedVsock::VhostUser { helper } = &vm.vsock else { return Ok(()) };
    // All in the pod's directory, by short names: a socket's path has a limit, a user's home has not.
    let device = format!("guest-cid=3,socket={VHOST_USER_SOCKET},uds-path={VSOCK_SOCKET}");
    let log = |name| BoundedLog::new(place.directory().join(name));
    let logs = Logs { stdout: log("vsock.out.log"), stderr: log(VSOCK_LOG) };
    let child = spawn("vsock", helper, ["--vm", &device], place.directory(), logs)?;
    remember(place, &child)?;
    parts.vsock = Some(child);
    let socket = place.directory().join(VHOST_USER_SOCKET);
    within_reason(HELPER, parts.unless_ended(appears(&socket))).await
}

/// Starts QEMU with the guest stopped, and takes control of it.
async fn start_qemu(vm: &CheckedVm, place: &mut dyn Place, parts: &mut Parts) -> Result<Qmp, StartError> {
    let mut args = vm.launch()?.qemu_args();
    // Stopped, so that what runs is what was measured before.
    args.push("-S".into());
    let log = |name| BoundedLog::new(place.directory().join(name));
    let logs = Logs { stdout: log(CONSOLE_LOG), stderr: log(QEMU_LOG) };
    let child = spawn("qemu", &vm.qemu, args, place.directory(), logs)?;
    remember(place, &child)?;
    parts.qemu = Some(child);
    let socket = place.directory().join(QMP_SOCKET);
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
    connected.map_err(|error| port_taken(error, vm))
}

/// Between the check and QEMU somebody else may have taken the port.
fn port_taken(error: StartError, vm: &CheckedVm) -> StartError {
    match &error {
        StartError::Ended { source, .. }
            if source.lines.iter().any(|line| line.contains("Could not set up host forwarding rule")) =>
        {
            StartError::PortInUse { listen: vm.plan.listen }
        }
        _ => error,
    }
}

/// Lets the simulated platform serve reports of what was measured, for this tenant.
fn start_tee(
    home: &Home,
    vm: &CheckedVm,
    tenant: &Tenant,
    measurement: Measurement,
    pod: &LockedPod,
) -> Result<Tee, StartError> {
    let socket = pod.path(&format!("{VSOCK_SOCKET}_{}", postern_model::sim_device::VSOCK_PORT));
    let cid = match vm.vsock {
        CheckedVsock::VhostUser { .. } => None,
        CheckedVsock::Kernel { cid } => Some(cid),
    };
    Ok(Tee::start(&home.simulated_platform(), measurement, tenant.host_data, &socket, cid)?)
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
    tenant: &Tenant,
    vsock: &VsockAddress,
    parts: &Parts,
    stages: &mut Stages<'_>,
) -> Result<crate::client::HostClient, StartError> {
    let deadline = Instant::now() + tenant.deadline;
    let answering = Answering { address: vsock, port: AGENT_VSOCK_PORT, deadline };
    let Some(qemu) = parts.qemu() else { return Err(StartError::Interrupted) };
    let step = async {
        // vhost-device-vsock 0.3 dies of a connection that comes while the guest's driver starts. So the agent's first word
        // on the console is waited for; where there is no console, half of the time has to do.
        let first_word = qemu.stdout().line_containing(AGENT_LINE);
        if let Ok(line) = tokio::time::timeout(tenant.deadline / 2, first_word).await {
            stages.done_before(agents_own(&line), |millis| Report::Kernel { millis })?;
        }
        let found = answering.agent().await;
        found.map_err(|_| {
            let lines = qemu.stdout().last_lines(LAST_LINES);
            let source = LastWords { of: "its console", lines };
            StartError::GuestSilent { seconds: tenant.deadline.as_secs(), source }
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

fn remember(place: &mut dyn Place, child: &Managed) -> Result<(), StartError> {
    Ok(place.remember(ChildRecord { role: child.role().to_owned(), process: child.id() })?)
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
pub(super) struct Stages<'a> {
    listener: &'a mut dyn Listener,
    begun: Instant,
    last: Instant,
    millis: Vec<(String, u64)>,
}

impl<'a> Stages<'a> {
    pub(super) fn new(listener: &'a mut dyn Listener) -> Self {
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
