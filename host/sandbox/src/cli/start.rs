//! `start`: a shell of a pool that fits, or else a supervisor of its own, followed until the pod is ready or has failed.

use std::{
    env,
    io::{self, Write},
    process::Stdio,
    time::Duration,
};

use postern_sandbox::{
    Home, Outcome,
    process::ProcessId,
    progress::{Lines, Listener, Report},
    supervisor::shell,
};
use rustix::process::Signal;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, BufReader},
    process::Command,
    signal::unix::{SignalKind, signal},
};

use super::{Failure, Output, start_args};

/// What a start may take beyond the guest's own deadline: checks, programs, taking down.
const MARGIN: Duration = Duration::from_secs(120);
/// How long a supervisor may take to take everything down.
const TAKE_DOWN: Duration = Duration::from_secs(30);

pub(super) async fn run(home: &Home, arguments: start_args::Arguments) -> Result<(), Failure> {
    let mut lines = Lines { writer: io::stdout(), json: arguments.output == Output::Json };
    let started = start(home, &arguments, &mut lines).await;
    if let (Err(failure), true) = (&started, lines.json) {
        // For a caller that reads lines and nothing else; who reads errors gets one too.
        let _ = lines.report(&failure.to_report());
    }
    started
}

async fn start(
    home: &Home,
    arguments: &start_args::Arguments,
    lines: &mut Lines<io::Stdout>,
) -> Result<(), Failure> {
    let plan = arguments.plan(home).await?;
    let at_most = plan.tenant.deadline + MARGIN;
    let claimed = match arguments.no_pool {
        true => None,
        false => shell::claim(home, &plan).await?,
    };
    if let Some(claimed) = claimed {
        return until_ready(claimed.progress, claimed.supervisor, lines, at_most).await;
    }
    let unexpected = |error: io::Error| Failure::internal("cannot start the pod's supervisor", &error);
    let mut supervisor = Command::new(env::current_exe().map_err(unexpected)?)
        .arg("--state")
        .arg(home.root())
        .args(["run", "--output", "json", "--detached-from"])
        .arg(std::process::id().to_string())
        .args(start_args::to_command_line(&plan))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(unexpected)?;
    let id = supervisor.id().ok_or_else(|| unexpected(io::ErrorKind::NotFound.into()))?;
    let process = ProcessId::of(id).map_err(unexpected)?;
    let stdout = supervisor.stdout.take().ok_or_else(|| unexpected(io::ErrorKind::BrokenPipe.into()))?;
    until_ready(BufReader::new(stdout), process, lines, at_most).await
}

/// Passes progress on until the pod is ready; if it does not come to that, `supervisor` ends and all of the pod with it.
async fn until_ready(
    progress: impl AsyncBufRead + Unpin,
    supervisor: ProcessId,
    lines: &mut Lines<io::Stdout>,
    at_most: Duration,
) -> Result<(), Failure> {
    let followed = tokio::select! {
        followed = follow(progress, lines) => followed,
        () = interrupted() => Err(Failure::new(Outcome::Interrupted, &Interrupted, None)),
        () = tokio::time::sleep(at_most) => Err(Failure::new(Outcome::Internal, &SupervisorSilent, None)),
    };
    if followed.is_err() {
        take_down(supervisor);
    }
    followed
}

#[derive(Debug, thiserror::Error)]
#[error("interrupted; everything was taken down again")]
struct Interrupted;

#[derive(Debug, thiserror::Error)]
#[error("the pod's supervisor ended, or went silent, without saying why")]
struct SupervisorSilent;

async fn follow<W: Write>(progress: impl AsyncBufRead + Unpin, lines: &mut Lines<W>) -> Result<(), Failure> {
    let silent = || Failure::new(Outcome::Internal, &SupervisorSilent, None);
    let mut reports = progress.lines();
    while let Ok(Some(line)) = reports.next_line().await {
        let Ok(report) = serde_json::from_str(&line) else { return Err(silent()) };
        if let Report::Failed { exit, message, causes, hint, .. } = report {
            let outcome = Outcome::ALL.iter().copied().find(|known| known.code() == exit);
            return Err(Failure::reported(outcome.unwrap_or(Outcome::Internal), message, causes, hint));
        }
        // A caller that stopped reading has still asked for a pod.
        let _ = lines.report(&report);
        if matches!(report, Report::Ready { .. }) {
            return Ok(());
        }
    }
    Err(silent())
}

async fn interrupted() {
    let wait = async |kind| match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        // Without a handler the signal ends this process, and the supervisor notices that nobody reads.
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::hangup()) => {}
    }
}

/// Sees to it that the supervisor has ended, and everything with it.
fn take_down(supervisor: ProcessId) {
    if let Ok(Some(running)) = supervisor.open() {
        let _ = running.signal(Signal::TERM);
        if !running.wait(TAKE_DOWN).unwrap_or(false) {
            let _ = running.signal(Signal::KILL);
        }
    }
}
