//! `run`: a pod's supervisor, in the foreground unless `start` detached it.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::Args;
use postern_sandbox::{
    Home,
    progress::{Lines, Listener, Report},
    supervisor::{self, Stop},
};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::EnvFilter;

use super::{Failure, Output, start_args};

/// Of a supervisor that has no terminal.
pub(super) const SUPERVISOR_LOG: &str = "supervisor.log";

/// Start a pod in the foreground and stay with it until it ends
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    postern-host run demo --image DIR --init-data FILE --tee simulated\n\n\
    Ctrl-C ends the pod, a second one at once.")]
pub(super) struct Arguments {
    #[command(flatten)]
    start: start_args::Arguments,
    /// In a session of its own: ends with the process of this id until the pod is ready, and prints nothing from then on
    #[arg(long, hide = true, value_name = "PID")]
    detached_from: Option<i32>,
}

pub(super) async fn run(home: &Home, arguments: Arguments) -> Result<(), Failure> {
    let detached = arguments.detached_from.is_some();
    if let Some(parent) = arguments.detached_from {
        detach(parent)?;
    }
    let json = arguments.start.output == Output::Json;
    let mut progress = Progress { lines: Lines { writer: io::stdout(), json }, detached };
    match supervise(home, &arguments, &mut progress).await {
        Ok(why) if !detached && !json => super::print(&format!("ended: {why}\n")),
        Ok(_) => Ok(()),
        Err(failure) => {
            if json {
                let _ = progress.lines.report(&failure.to_report());
            }
            Err(failure)
        }
    }
}

/// Into a session of its own. Until the pod is ready, a `start` that is killed is a start that nobody waits for.
fn detach(parent: i32) -> Result<(), Failure> {
    let failed = |error: rustix::io::Errno| Failure::internal("cannot detach", &error);
    rustix::process::setsid().map_err(failed)?;
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(failed)?;
    // A parent that died before the line above is never heard of.
    match getppid().map(|pid| pid.as_raw_nonzero().get()) == Some(parent) {
        true => Ok(()),
        false => Err(failed(rustix::io::Errno::SRCH)),
    }
}

async fn supervise(home: &Home, arguments: &Arguments, progress: &mut Progress) -> Result<String, Failure> {
    let plan = arguments.start.plan(home).await?;
    let log = || home.root().join("pods").join(plan.tenant.name.as_str()).join(SUPERVISOR_LOG);
    init_log(if progress.detached { Log::At(log()) } else { Log::Stderr });
    let stop = stop_on_signals()?;
    Ok(supervisor::run(home, plan, progress, stop).await?)
}

/// Lines for whoever waits; when the pod is ready, a detached supervisor lets go of them.
struct Progress {
    lines: Lines<io::Stdout>,
    detached: bool,
}

impl Listener for Progress {
    fn report(&mut self, report: &Report) -> io::Result<()> {
        let last = self.detached && matches!(report, Report::Ready { .. });
        if last {
            // First: whoever reads the line may end at once, and the pod must not end with it.
            set_parent_process_death_signal(None)?;
        }
        self.lines.report(report)?;
        if last {
            let_go_of_stdout()?;
        }
        Ok(())
    }
}

/// What was started by somebody goes on without them.
pub(super) fn let_go_of_stdout() -> io::Result<()> {
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(&null)?)
}

/// The first signal ends the pod gracefully, the second at once; SIGQUIT at once.
pub(super) fn stop_on_signals() -> Result<watch::Receiver<Stop>, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::internal("cannot listen to signals", &error));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let mut quit = listen(SignalKind::quit())?;
    let (sender, receiver) = watch::channel(Stop::No);
    tokio::spawn(async move {
        loop {
            let now = tokio::select! {
                _ = interrupt.recv() => false,
                _ = terminate.recv() => false,
                _ = hangup.recv() => false,
                _ = quit.recv() => true,
            };
            sender.send_modify(|stop| {
                *stop = match *stop {
                    Stop::No if !now => Stop::Gracefully,
                    Stop::No | Stop::Gracefully | Stop::Now => Stop::Now,
                };
            });
        }
    });
    Ok(receiver)
}

/// Where a supervisor logs.
pub(super) enum Log {
    Stderr,
    /// A file that can only be written once the pod's directory is there.
    At(PathBuf),
    File(fs::File),
}

/// A log that only this user can read.
pub(super) fn open_log(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

pub(super) fn init_log(log: Log) {
    let default = match log {
        Log::Stderr => "warn",
        Log::At(_) | Log::File(_) => "warn,postern_sandbox=info",
    };
    let filter = EnvFilter::try_from_env("POSTERN_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let writer = move || -> Box<dyn io::Write> {
        let file = match &log {
            Log::Stderr => return Box::new(io::stderr()),
            Log::At(path) => open_log(path),
            Log::File(file) => file.try_clone(),
        };
        match file {
            Ok(file) => Box::new(file),
            Err(_) => Box::new(io::sink()),
        }
    };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(writer);
    // Fails only if there is one already, which there is not.
    let _ = subscriber.try_init();
}
