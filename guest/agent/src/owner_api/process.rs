//! What an owner sends to a process: input, window size, signals. The same for `exec` and `attach`.

use postern_api::{
    bulk::Incoming,
    owner::{self as wire, process_input::Kind},
};
use postern_container::{Process, Signal, Terminal, WindowSize};
use tokio::{io::AsyncWriteExt, task::JoinHandle};
use tonic::Status;

use crate::pod::SharedInput;

/// A task that ends with whoever holds this.
pub(super) struct AbortOnDrop(pub(super) JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the input acts on.
pub(super) struct Controls {
    /// `None` where the caller did not ask for input, or there is none.
    pub(super) stdin: Option<SharedInput>,
    pub(super) terminal: Option<Terminal>,
    pub(super) process: Option<Process>,
}

/// Carries out input until the caller closes its side. A caller that goes away altogether is noticed where the output
/// is sent.
pub(super) fn follow(mut input: Incoming<wire::ProcessInput>, controls: Controls) -> AbortOnDrop {
    AbortOnDrop(tokio::spawn(async move {
        while let Ok(Some(message)) = input.message().await {
            match message.kind {
                Some(Kind::Stdin(data)) => controls.write(&data).await,
                Some(Kind::CloseStdin(wire::CloseStdin {})) => controls.close_stdin().await,
                Some(Kind::Resize(size)) => controls.resize(size),
                Some(Kind::Signal(signal)) => controls.signal(signal),
                // Only the first message may begin something; an empty one is from a newer client.
                Some(Kind::Exec(_) | Kind::Attach(_)) | None => {}
            }
        }
    }))
}

impl Controls {
    async fn write(&self, data: &[u8]) {
        let Some(stdin) = &self.stdin else { return };
        let mut stdin = stdin.lock().await;
        if let Some(writer) = stdin.as_mut()
            && writer.write_all(data).await.is_err()
        {
            // The process has closed its input: what else comes is taken and thrown away, as a shell does.
            *stdin = None;
        }
    }

    async fn close_stdin(&self) {
        let Some(stdin) = &self.stdin else { return };
        let mut stdin = stdin.lock().await;
        if let Some(writer) = stdin.as_mut() {
            // A terminal cannot be closed from here: it gets what a user would type, and stays.
            let _ = writer.shutdown().await;
            if self.terminal.is_none() {
                *stdin = None;
            }
        }
    }

    fn resize(&self, size: wire::WindowSize) {
        if let (Some(terminal), Ok(size)) = (&self.terminal, window_size(&size)) {
            // A terminal whose last process has gone has no size to set.
            let _ = terminal.resize(size);
        }
    }

    fn signal(&self, signal: u32) {
        if let (Some(process), Ok(signal)) = (&self.process, Signal::try_from(signal)) {
            // It may have ended in between.
            let _ = process.signal(signal);
        }
    }
}

pub(super) fn window_size(size: &wire::WindowSize) -> Result<WindowSize, Status> {
    match (u16::try_from(size.rows), u16::try_from(size.columns)) {
        (Ok(rows @ 1..), Ok(columns @ 1..)) => Ok(WindowSize { rows, columns }),
        _ => Err(Status::invalid_argument(format!(
            "window size {}x{} is not within 1 to 65535",
            size.columns, size.rows
        ))),
    }
}

pub(super) fn output(kind: wire::process_output::Kind) -> wire::ProcessOutput {
    wire::ProcessOutput { kind: Some(kind) }
}
