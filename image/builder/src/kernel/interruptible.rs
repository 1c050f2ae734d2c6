//! Programs that end with us: each runs in a process group of its own, and a signal to this program ends the whole
//! group before anything is removed under it.

use std::{
    future::poll_fn,
    io,
    process::{ExitStatus, Stdio},
    task::Poll,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    time::timeout,
};

/// How long a group may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(3);
/// Longest line that is kept whole; what a compiler prints is shorter.
const MAX_LINE: usize = 4096;

/// Why a program did not end by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("starting {0}")]
    Start(String, #[source] io::Error),
    #[error("waiting for {0}")]
    Wait(String, #[source] io::Error),
    #[error("interrupted")]
    Interrupted,
}

/// Runs programs one after another. From its making on, a signal is noticed by the program that runs, or by the next.
#[derive(Debug)]
pub(super) struct Runner {
    runtime: Runtime,
    signals: Vec<tokio::signal::unix::Signal>,
}

impl Runner {
    pub(super) fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let signals = kinds.into_iter().map(signal).collect::<io::Result<Vec<_>>>()?;
        drop(inside);
        Ok(Self { runtime, signals })
    }

    /// Runs `command` to its end and gives each line of its output to `line`.
    pub(super) fn run(
        &mut self,
        name: &str,
        command: std::process::Command,
        line: impl FnMut(&str),
    ) -> Result<ExitStatus, RunError> {
        self.runtime.block_on(watch(name, command.into(), &mut self.signals, line))
    }
}

async fn watch(
    name: &str,
    mut command: Command,
    signals: &mut [tokio::signal::unix::Signal],
    mut line: impl FnMut(&str),
) -> Result<ExitStatus, RunError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|source| RunError::Start(name.to_owned(), source))?;
    let (sender, mut lines) = tokio::sync::mpsc::channel(64);
    let output = child.stdout.take().map(|stream| tokio::spawn(forward(stream, sender.clone())));
    let errors = child.stderr.take().map(|stream| tokio::spawn(forward(stream, sender)));
    let finished = async {
        while let Some(text) = lines.recv().await {
            line(&text);
        }
    };
    let any = poll_fn(|context| {
        let stopped = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
        if stopped { Poll::Ready(()) } else { Poll::Pending }
    });
    let interrupted = tokio::select! {
        () = finished => false,
        () = any => true,
    };
    if interrupted {
        end(&mut child).await;
        [output, errors].into_iter().flatten().for_each(|task| task.abort());
        return Err(RunError::Interrupted);
    }
    child.wait().await.map_err(|source| RunError::Wait(name.to_owned(), source))
}

async fn forward(stream: impl AsyncRead + Unpin, lines: tokio::sync::mpsc::Sender<String>) {
    let mut reader = BufReader::new(stream);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).await.is_ok_and(|read| read > 0) {
        bytes.truncate(MAX_LINE);
        let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        bytes.clear();
        if lines.send(text).await.is_err() {
            return;
        }
    }
}

async fn end(child: &mut Child) {
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let kill = |signal| {
        if let Some(group) = group {
            // A group that is gone is what is wanted.
            let _ = kill_process_group(group, signal);
        }
    };
    kill(Signal::TERM);
    if timeout(GRACE, child.wait()).await.is_err() {
        kill(Signal::KILL);
        let _ = child.wait().await;
    }
    // Those that the first of the group has left behind.
    kill(Signal::KILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> std::process::Command {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn gives_every_line_and_the_exit_code() {
        let mut seen = Vec::new();
        let status = Runner::new()
            .unwrap()
            .run("sh", shell("echo one; echo two >&2; exit 3"), |line| seen.push(line.to_owned()))
            .unwrap();
        seen.sort();
        assert_eq!((seen, status.code()), (vec!["one".to_owned(), "two".to_owned()], Some(3)));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let mut runner = Runner::new().unwrap();
        let error = runner.run("frobnicate", std::process::Command::new("/nonexistent"), |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "starting frobnicate");
    }
}
