//! One container, as the runtime remembers it.

use std::{fs, io, os::fd::OwnedFd, path::PathBuf, sync::Arc};

use oci_spec::runtime::Spec;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::net::unix::pipe;

use crate::{cgroup::Cgroup, process::Process, spec, sys, worker::protocol::Confinement};

#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) process: Process,
    pub(super) cgroup: Cgroup,
    pub(super) rootfs: PathBuf,
    pub(super) defaults: Defaults,
    pub(super) filter: Arc<[u8]>,
    pub(super) stage: tokio::sync::Mutex<Stage>,
    /// Where init says why its command does not run; end of file means that it runs.
    pub(super) status: tokio::sync::Mutex<Option<pipe::Receiver>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Created,
    Running,
    Paused,
}

/// What a further process gets unless it is asked for otherwise.
#[derive(Debug)]
pub(super) struct Defaults {
    pub(super) env: Vec<String>,
    pub(super) cwd: PathBuf,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) confinement: Confinement,
}

impl Defaults {
    pub(super) fn of(spec: &Spec) -> Option<Self> {
        let process = spec.process().as_ref()?;
        let user = process.user();
        Some(Self {
            env: process.env().clone().unwrap_or_default(),
            cwd: process.cwd().clone(),
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            confinement: spec::confinement(spec),
        })
    }
}

impl Container {
    /// Every process of the container, pinned.
    pub(super) fn members(&self) -> io::Result<Vec<(u32, OwnedFd)>> {
        let pids = match self.cgroup.pids() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            pids => pids?,
        };
        Ok(pids.into_iter().filter_map(|pid| pin(&self.cgroup, pid).map(|pidfd| (pid, pidfd))).collect())
    }
}

/// A pidfd for process `pid` of `cgroup`. The number was read from a list and may belong to another process by now; so
/// it is pinned first and then looked at again.
fn pin(cgroup: &Cgroup, pid: u32) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty()).ok()?;
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    cgroup.is_named_in(&groups).then_some(pidfd)
}

/// Kills those of `pids` that are in `cgroup`.
pub(super) fn kill(cgroup: &Cgroup, pids: &[u32]) {
    for pidfd in pids.iter().filter_map(|&pid| pin(cgroup, pid)) {
        let _ = sys::pidfd_send_signal(&pidfd, 9);
    }
}
