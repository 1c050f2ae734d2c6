//! A real terminal for a command: a pseudo-terminal whose other end the test holds.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::{process::Guarded, sys};

#[derive(Debug)]
pub struct Terminal {
    master: File,
    output: Receiver<Vec<u8>>,
    seen: String,
    process: Guarded,
}

impl Terminal {
    /// Starts `command` with a terminal of `rows` x `columns` as its three streams and as its controlling terminal.
    pub fn spawn(mut command: Command, rows: u16, columns: u16) -> anyhow::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let slave = File::options().read(true).write(true).open(name.to_string_lossy().as_ref())?;
        tcsetwinsize(&slave, size(rows, columns))?;
        let slave = OwnedFd::from(slave);
        command
            .stdin(Stdio::from(slave.try_clone()?))
            .stdout(Stdio::from(slave.try_clone()?))
            .stderr(Stdio::from(slave));
        sys::own_session(&mut command);
        let process = Guarded::spawn(&mut command)?;
        drop(command);
        let master = File::from(master);
        let mut reader = master.try_clone()?;
        let (sender, output) = mpsc::sync_channel(1024);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self { master, output, seen: String::new(), process })
    }

    pub fn type_text(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.master.write_all(text.as_bytes())?)
    }

    /// Resizes; the kernel sends SIGWINCH to the foreground process group.
    pub fn resize(&self, rows: u16, columns: u16) -> anyhow::Result<()> {
        Ok(tcsetwinsize(&self.master, size(rows, columns))?)
    }

    /// Waits until `needle` has been printed; forgets all up to it.
    pub fn expect(&mut self, needle: &str, deadline: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(at) = self.seen.find(needle) {
                self.seen.drain(..at + needle.len());
                return Ok(());
            }
            match self.output.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => bail!("{needle:?} did not appear; saw {:?}", self.seen),
            }
        }
    }

    /// Exit code of the command, waiting at most `deadline`.
    pub fn wait(mut self, deadline: Duration) -> anyhow::Result<i32> {
        self.process.wait(deadline)?.code().context("ended by a signal")
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
