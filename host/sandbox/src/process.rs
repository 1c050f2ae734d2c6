//! A process by an identity that outlives pid reuse: pid and start time. Signals and waits go through a pidfd.

use std::{fs, io, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

/// One process of this boot of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessId {
    pub pid: u32,
    /// Clock ticks since boot, field 22 of `/proc/PID/stat`.
    pub start_time: u64,
}

impl ProcessId {
    /// The identity of the process that has `pid` now.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The command name, in parentheses, may hold spaces and parentheses itself.
        let start_time = stat
            .rsplit_once(')')
            .and_then(|(_, fields)| fields.split_ascii_whitespace().nth(19))
            .and_then(|field| field.parse().ok())
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "unexpected format of /proc/PID/stat")
            })?;
        Ok(Self { pid, start_time })
    }

    /// A handle on the process, or `None` if it has ended.
    pub fn open(self) -> io::Result<Option<RunningProcess>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // The pidfd holds the pid from here on, so what is read now is of the process it refers to.
        match Self::of(self.pid) {
            Ok(found) if found == self => Ok(Some(RunningProcess { pidfd })),
            Ok(_) => Ok(None),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// A process that had not ended when this was made.
#[derive(Debug)]
pub struct RunningProcess {
    pidfd: OwnedFd,
}

impl RunningProcess {
    /// Sends `signal`; a process that has ended meanwhile is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the end; false if it has not come within `at_most`.
    pub fn wait(&self, at_most: Duration) -> io::Result<bool> {
        let deadline = std::time::Instant::now() + at_most;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let timeout = Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&timeout)) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn ends_a_process_and_sees_it_end() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        let running = id.open().unwrap().unwrap();
        assert!(!running.wait(Duration::ZERO).unwrap());
        running.signal(Signal::KILL).unwrap();
        assert!(running.wait(Duration::from_secs(30)).unwrap());
        child.wait().unwrap();
        assert!(id.open().unwrap().is_none());
        running.signal(Signal::KILL).unwrap();
    }

    #[test]
    fn another_process_with_the_same_pid_is_not_it() {
        let own = ProcessId::of(std::process::id()).unwrap();
        assert!(own.open().unwrap().is_some());
        let other = ProcessId { start_time: own.start_time + 1, ..own };
        assert!(other.open().unwrap().is_none());
        assert!(ProcessId { pid: u32::MAX, start_time: 0 }.open().unwrap().is_none());
        assert!(ProcessId { pid: 0, start_time: 0 }.open().unwrap().is_none());
    }
}
