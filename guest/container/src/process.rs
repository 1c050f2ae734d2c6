//! One process of a container: its pid, a pidfd that never names another, and how it ends.

use std::{fmt, os::fd::OwnedFd, sync::Arc};

use postern_model::ExitStatus;
use tokio::sync::watch;

use crate::sys;

/// A signal number, 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(u8);

impl Signal {
    pub const HANGUP: Self = Self(1);
    pub const INTERRUPT: Self = Self(2);
    pub const KILL: Self = Self(9);
    pub const TERMINATE: Self = Self(15);

    pub fn number(self) -> u8 {
        self.0
    }

    /// The signal an image names in `StopSignal`: `SIGTERM`, `TERM` or `15`.
    pub fn from_name(name: &str) -> Option<Self> {
        if let Ok(number) = name.parse::<u32>() {
            return Self::try_from(number).ok();
        }
        let name = name.strip_prefix("SIG").unwrap_or(name);
        if let Some(offset) = name.strip_prefix("RTMIN+").and_then(|n| n.parse::<u32>().ok()) {
            return Self::try_from(offset.checked_add(34)?).ok();
        }
        NAMES.iter().position(|known| *known == name).and_then(|index| u8::try_from(index + 1).ok()).map(Self)
    }
}

/// Names in the order of their numbers, from 1 (signal(7), x86-64).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// A number that is no signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no signal; signals are 1 to 64")]
pub struct NotASignal(u32);

impl TryFrom<u32> for Signal {
    type Error = NotASignal;

    fn try_from(number: u32) -> Result<Self, NotASignal> {
        match u8::try_from(number) {
            Ok(number @ 1..=64) => Ok(Self(number)),
            _ => Err(NotASignal(number)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    #[error("no container is named {0}")]
    UnknownContainer(String),
    #[error("the process has ended")]
    Ended,
    #[error("signal {signal} could not be sent")]
    Send { signal: u8, source: std::io::Error },
    #[error("the processes of the container could not be listed")]
    List(#[source] std::io::Error),
}

/// A process in a container. Clones name the same process.
#[derive(Clone)]
pub struct Process {
    inner: Arc<Inner>,
}

struct Inner {
    pid: u32,
    pidfd: OwnedFd,
    exit: Exit,
}

impl Process {
    pub(crate) fn new(pid: u32, pidfd: OwnedFd, exit: Exit) -> Self {
        Self { inner: Arc::new(Inner { pid, pidfd, exit }) }
    }

    /// Process id as this process sees it. A label, not a handle: use [`Process::signal`] to reach the process.
    pub fn pid(&self) -> u32 {
        self.inner.pid
    }

    /// How it ends: to be awaited any number of times, by any number of tasks.
    pub fn exit(&self) -> Exit {
        self.inner.exit.clone()
    }

    pub fn signal(&self, signal: Signal) -> Result<(), SignalError> {
        match sys::pidfd_send_signal(&self.inner.pidfd, signal.0) {
            Ok(()) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(SignalError::Ended),
            Err(source) => Err(SignalError::Send { signal: signal.0, source }),
        }
    }

    pub(crate) fn pidfd(&self) -> &OwnedFd {
        &self.inner.pidfd
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("pid", &self.inner.pid).field("exit", &self.inner.exit.now()).finish()
    }
}

/// The end of a process.
#[derive(Debug, Clone)]
pub struct Exit(pub(crate) watch::Receiver<Option<ExitStatus>>);

impl Exit {
    pub(crate) fn known(status: ExitStatus) -> Self {
        Self(watch::channel(Some(status)).1)
    }

    /// Resolves when the process has ended; at once when it has already.
    pub async fn wait(&self) -> ExitStatus {
        let mut receiver = self.0.clone();
        match receiver.wait_for(Option::is_some).await.map(|status| *status) {
            Ok(Some(status)) => status,
            // The reaper is gone, and with it this program: nobody will learn the true status.
            Ok(None) | Err(_) => ExitStatus::Signalled(Signal::KILL.0),
        }
    }

    /// The status if the process has ended.
    pub fn now(&self) -> Option<ExitStatus> {
        *self.0.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_signal_names() {
        for (name, number) in
            [("SIGTERM", 15), ("TERM", 15), ("9", 9), ("SIGQUIT", 3), ("RTMIN+3", 37), ("SIGSYS", 31)]
        {
            assert_eq!(Signal::from_name(name).map(Signal::number), Some(number), "{name}");
        }
        for name in ["", "SIG", "0", "65", "TERMX", "RTMIN+99", "-1", "RTMIN+4294967295"] {
            assert_eq!(Signal::from_name(name), None, "{name}");
        }
    }
}
