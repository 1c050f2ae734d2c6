//! The streams of a container's process, seen from outside: pipes, or the master of a pseudo-terminal.
//!
//! Pipes are made as large as the kernel lets them be, so that bulk data moves in few, large reads. Reading blocks
//! nobody: everything here is driven by readiness.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustix::{
    io::{Errno, fcntl_setfd, ioctl_fionbio},
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
    termios::{Winsize, tcsetwinsize},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd},
    net::unix::pipe,
};

use crate::sys;

/// Capacity asked for every pipe: the kernel's default ceiling for `F_SETPIPE_SZ` (pipe(7), `pipe-max-size`).
const PIPE_CAPACITY: usize = 1024 * 1024;
/// What a user types to end input on a terminal: `VEOF` of a fresh terminal (termios(3)).
const END_OF_TRANSMISSION: &[u8] = b"\x04";

/// How a process's standard streams are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio {
    /// Three pipes.
    Pipes,
    /// Pipes for output; input reads end of file at once.
    OutputOnly,
    /// A pseudo-terminal of the container, of this size.
    Terminal(WindowSize),
    /// Input reads end of file; output goes nowhere.
    Closed,
}

/// Character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize {
    pub rows: u16,
    pub columns: u16,
}

impl Default for WindowSize {
    fn default() -> Self {
        Self { rows: 24, columns: 80 }
    }
}

/// Our ends of a process's streams. Dropping one closes it.
#[derive(Debug, Default)]
pub struct ProcessIo {
    /// Writes to the process. Shut it down (or drop it) for end of file.
    pub stdin: Option<ProcessInput>,
    /// On a terminal this is everything the process prints.
    pub stdout: Option<ProcessOutput>,
    pub stderr: Option<ProcessOutput>,
    /// Set when the process has a terminal.
    pub terminal: Option<Terminal>,
}

impl ProcessIo {
    pub(crate) fn of_terminal(master: OwnedFd) -> io::Result<Self> {
        fcntl_setfd(&master, rustix::io::FdFlags::CLOEXEC)?;
        ioctl_fionbio(&master, true)?;
        let terminal = Terminal(Arc::new(sys::watch(master)?));
        Ok(Self {
            stdin: Some(ProcessInput(Input::Terminal(terminal.clone()))),
            stdout: Some(ProcessOutput(Output::Terminal(terminal.clone()))),
            stderr: None,
            terminal: Some(terminal),
        })
    }
}

/// The process's ends of its streams, in the order 0, 1, 2.
pub(crate) type ChildStdio = [OwnedFd; 3];

/// Makes the pipes for `stdio`. `None` for a terminal, which the container makes itself.
pub(crate) fn open_pipes(stdio: Stdio) -> io::Result<Option<(ChildStdio, ProcessIo)>> {
    if matches!(stdio, Stdio::Terminal(_)) {
        return Ok(None);
    }
    let (child_in, our_in) = large_pipe()?;
    let (our_out, child_out) = large_pipe()?;
    let (our_err, child_err) = large_pipe()?;
    let mut io = ProcessIo::default();
    if stdio == Stdio::Pipes {
        io.stdin = Some(ProcessInput(Input::Pipe(Some(pipe::Sender::from_owned_fd(our_in)?))));
    }
    if stdio != Stdio::Closed {
        io.stdout = Some(ProcessOutput(Output::Pipe(pipe::Receiver::from_owned_fd(our_out)?)));
        io.stderr = Some(ProcessOutput(Output::Pipe(pipe::Receiver::from_owned_fd(our_err)?)));
        return Ok(Some(([child_in, child_out, child_err], io)));
    }
    // A pipe without a reader would end the process by SIGPIPE; what nobody wants to read goes to /dev/null.
    let null = OwnedFd::from(std::fs::OpenOptions::new().write(true).open("/dev/null")?);
    Ok(Some(([child_in, null.try_clone()?, null], io)))
}

/// Read end, write end.
pub(crate) fn large_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // Refused when the user's pipe memory is used up: slower, not wrong.
    let _ = fcntl_setpipe_size(&write, PIPE_CAPACITY);
    Ok((read, write))
}

/// A terminal's master.
#[derive(Debug, Clone)]
pub struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    /// Tells the terminal its size; the foreground process gets `SIGWINCH`.
    pub fn resize(&self, size: WindowSize) -> io::Result<()> {
        set_window_size(self.0.get_ref(), size)
    }

    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let unfilled = buf.initialize_unfilled();
            match guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut *unfilled)?)) {
                Ok(Ok(count)) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // The last process has closed its end: the terminal's way to say end of file.
                Ok(Err(error)) if Errno::from_io_error(&error) == Some(Errno::IO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            match guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), data)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }
}

pub(crate) fn set_window_size(terminal: impl AsFd, size: WindowSize) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(terminal, size)?)
}

/// Standard input of a process.
#[derive(Debug)]
pub struct ProcessInput(Input);

#[derive(Debug)]
enum Input {
    Pipe(Option<pipe::Sender>),
    Terminal(Terminal),
}

impl AsyncWrite for ProcessInput {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Input::Pipe(Some(pipe)) => Pin::new(pipe).poll_write(cx, data),
            Input::Pipe(None) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Input::Terminal(terminal) => terminal.poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// End of input. A pipe is closed; a terminal, which cannot be half-closed, gets what a user would type.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Input::Pipe(pipe) => {
                drop(pipe.take());
                Poll::Ready(Ok(()))
            }
            Input::Terminal(terminal) => terminal.poll_write(cx, END_OF_TRANSMISSION).map_ok(|_| ()),
        }
    }
}

/// Standard output or error of a process.
#[derive(Debug)]
pub struct ProcessOutput(Output);

#[derive(Debug)]
enum Output {
    Pipe(pipe::Receiver),
    Terminal(Terminal),
}

impl AsyncRead for ProcessOutput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Output::Pipe(pipe) => Pin::new(pipe).poll_read(cx, buf),
            Output::Terminal(terminal) => terminal.poll_read(cx, buf),
        }
    }
}
