//! A process's output on its way to standard output and error. One thread per stream writes, so that a slow reader holds
//! back the process and never the signals that would end it.

use std::{
    io::{self, IsTerminal, Write},
    thread,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::{output, text::Sanitiser};

const QUEUE: usize = 8;

/// What happens to bytes that reach a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Screen {
    /// The process has a terminal of its own and drives ours, as the user asked with -t.
    Raw,
    /// The process has none: what it writes is shown, not obeyed.
    Sanitised,
}

/// Where bytes go, in order.
#[derive(Debug)]
pub(crate) struct Writer {
    pieces: mpsc::Sender<Bytes>,
    done: oneshot::Receiver<io::Result<()>>,
}

impl Writer {
    pub(crate) fn stdout(screen: Screen) -> Self {
        let sanitiser = sanitiser(screen, io::stdout().is_terminal());
        // Unbuffered: a piece of the process's output is one write of ours.
        Self::spawn(Descriptor(rustix::stdio::stdout()), sanitiser)
    }

    pub(crate) fn stderr(screen: Screen) -> Self {
        let sanitiser = sanitiser(screen, io::stderr().is_terminal());
        Self::spawn(Descriptor(rustix::stdio::stderr()), sanitiser)
    }

    fn spawn(mut out: impl Write + Send + 'static, sanitiser: Option<Sanitiser>) -> Self {
        let (pieces, receiver) = mpsc::channel(QUEUE);
        let (told, done) = oneshot::channel();
        thread::spawn(move || {
            let _ = told.send(write_all(&mut out, receiver, sanitiser));
        });
        Self { pieces, done }
    }

    /// Queues `piece`. False when the stream is closed; [`finish`](Self::finish) then says why.
    pub(crate) async fn write(&self, piece: Bytes) -> bool {
        self.pieces.send(piece).await.is_ok()
    }

    /// Waits until everything is written.
    pub(crate) async fn finish(self) -> io::Result<()> {
        drop(self.pieces);
        self.done.await.unwrap_or(Ok(()))
    }
}

fn sanitiser(screen: Screen, is_terminal: bool) -> Option<Sanitiser> {
    (screen == Screen::Sanitised && is_terminal).then(|| Sanitiser::new(output::colours()))
}

fn write_all(
    out: &mut impl Write,
    mut pieces: mpsc::Receiver<Bytes>,
    mut sanitiser: Option<Sanitiser>,
) -> io::Result<()> {
    let mut safe = Vec::new();
    while let Some(piece) = pieces.blocking_recv() {
        match &mut sanitiser {
            None => out.write_all(&piece)?,
            Some(sanitiser) => {
                safe.clear();
                sanitiser.push(&piece, &mut safe);
                out.write_all(&safe)?;
            }
        }
    }
    if let Some(sanitiser) = &mut sanitiser {
        safe.clear();
        sanitiser.finish(&mut safe);
        out.write_all(&safe)?;
    }
    Ok(())
}

/// A standard stream without the line buffer of the standard library.
#[derive(Debug)]
struct Descriptor(rustix::fd::BorrowedFd<'static>);

impl Write for Descriptor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match rustix::io::write(self.0, bytes) {
            // Somebody else made our terminal or pipe non-blocking.
            Err(rustix::io::Errno::AGAIN) => {
                let mut poll =
                    [rustix::event::PollFd::from_borrowed_fd(self.0, rustix::event::PollFlags::OUT)];
                rustix::event::poll(&mut poll, None)?;
                Err(io::ErrorKind::Interrupted.into())
            }
            other => other.map_err(io::Error::from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Colours;

    #[test]
    fn a_terminal_gets_no_escapes_from_a_process_without_one() {
        let (pieces, receiver) = mpsc::channel(4);
        pieces.try_send(Bytes::from_static(b"a\x1b]52")).unwrap();
        pieces.try_send(Bytes::from_static(b";c;eA==\x07b\n")).unwrap();
        drop(pieces);
        let mut out = Vec::new();
        write_all(&mut out, receiver, Some(Sanitiser::new(Colours::Keep))).unwrap();
        assert_eq!(out, b"a^[]52;c;eA==^Gb\n");
    }
}
