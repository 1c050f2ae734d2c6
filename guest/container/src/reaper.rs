//! The one place of a program that waits for child processes.
//!
//! Containers' processes are children of the program that runs them, some by birth and some by adoption (child
//! subreaper). Waiting for one of them anywhere else would race; so nobody else may call `wait` or use
//! `tokio::process`. An exit that arrives before anybody has asked for it is kept, in a bounded table.

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use postern_model::ExitStatus;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, WaitOptions, WaitStatus, getpid, pidfd_open, set_child_subreaper, wait},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{process::Exit, sys};

/// Exits kept for processes that nobody has asked about yet; the oldest goes first.
const EARLY_EXITS: usize = 1024;
/// What is told of a process whose exit nobody asked about until it was dropped from the table.
const UNKNOWN: ExitStatus = ExitStatus::Signalled(9);

/// Handle to the reaper. Clones share it.
#[derive(Debug, Clone)]
pub struct Reaper {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    watched: HashMap<u32, watch::Sender<Option<ExitStatus>>>,
    early: VecDeque<(u32, ExitStatus)>,
}

impl Reaper {
    /// Makes this process the subreaper of its descendants and reaps them from a task of the current tokio runtime.
    pub fn start() -> io::Result<Self> {
        set_child_subreaper(Some(getpid()))?;
        let mut children = signal(SignalKind::child())?;
        let reaper = Self { table: Arc::default() };
        let table = Arc::clone(&reaper.table);
        tokio::spawn(async move {
            loop {
                reap(&table);
                if children.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(reaper)
    }

    /// The end of process `pid`, a child or adopted child that nobody else waits for.
    pub fn exit_of(&self, pid: u32) -> Exit {
        let pidfd =
            Pid::from_raw(pid.cast_signed()).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        self.exit_of_pinned(pid, pidfd.as_ref())
    }

    /// The end of process `pid` that `pidfd` names. Unlike the number, the pidfd cannot have been reused, so an
    /// exit in the table that belongs to an earlier bearer of the number is recognised and dropped.
    pub(crate) fn exit_of_pinned(&self, pid: u32, pidfd: Option<&OwnedFd>) -> Exit {
        let mut table = lock(&self.table);
        let early = table.early.iter().rposition(|(of, _)| *of == pid).and_then(|at| table.early.remove(at));
        let runs = pidfd.is_some_and(|pidfd| !has_ended(pidfd));
        match early {
            Some((_, status)) if !runs => return Exit::known(status),
            _ => {}
        }
        // A process that has ended without being in the table is either not reaped yet, or reaped so long ago that
        // its exit was dropped.
        let to_come = runs || pidfd.is_some_and(|pidfd| sys::pidfd_send_signal(pidfd, 0).is_ok());
        match table.watched.get(&pid) {
            Some(sender) => Exit(sender.subscribe()),
            None if to_come => {
                let (sender, receiver) = watch::channel(None);
                table.watched.insert(pid, sender);
                Exit(receiver)
            }
            None => Exit::known(UNKNOWN),
        }
    }
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

fn reap(table: &Mutex<Table>) {
    // The lock is held from the wait to the entry: a pid cannot be asked about between the two.
    let mut table = lock(table);
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        let (Ok(pid), Some(status)) = (u32::try_from(pid.as_raw_nonzero().get()), exit_status(status)) else {
            continue;
        };
        match table.watched.remove(&pid) {
            Some(sender) => {
                sender.send_replace(Some(status));
            }
            None => {
                if table.early.len() == EARLY_EXITS {
                    table.early.pop_front();
                }
                table.early.push_back((pid, status));
            }
        }
    }
}

fn exit_status(status: WaitStatus) -> Option<ExitStatus> {
    let byte = |value: i32| u8::try_from(value).unwrap_or(u8::MAX);
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(ExitStatus::Exited(byte(code & 0xff))),
        (None, Some(signal)) => Some(ExitStatus::Signalled(byte(signal))),
        (None, None) => None,
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    // Every critical section leaves the table whole, so a panic elsewhere does not spoil it.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}
