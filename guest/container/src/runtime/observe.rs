//! Counters and processes of a container.

use std::{collections::HashMap, fs, io::Read};

use postern_model::ContainerName;

use super::{InspectError, ProcessInfo, Runtime, Stats};

/// Most of a process's command line that is shown.
const MAX_COMMAND: u64 = 4096;
/// Most processes that are shown.
const MAX_PROCESSES: usize = 4096;

impl Runtime {
    /// Counters; after the end of the container the last ones, until `delete`.
    pub async fn stats(&self, id: &ContainerName) -> Result<Stats, InspectError> {
        let container =
            self.shared.container(id).ok_or_else(|| InspectError::UnknownContainer(id.to_string()))?;
        blocking(move || container.cgroup.stats().map_err(InspectError::Read)).await
    }

    /// The container's processes, oldest first.
    pub async fn top(&self, id: &ContainerName) -> Result<Vec<ProcessInfo>, InspectError> {
        let container =
            self.shared.container(id).ok_or_else(|| InspectError::UnknownContainer(id.to_string()))?;
        blocking(move || {
            let mut members = container.members().map_err(InspectError::Read)?;
            members.truncate(MAX_PROCESSES);
            let mut processes: Vec<Seen> = members.iter().filter_map(|(pid, _)| look(*pid)).collect();
            let inner: HashMap<u32, u32> =
                processes.iter().map(|seen| (seen.outer_pid, seen.info.pid)).collect();
            for seen in &mut processes {
                // A parent outside of the container is none to it.
                seen.info.parent_pid = inner.get(&seen.outer_parent).copied().unwrap_or(0);
            }
            Ok(processes.into_iter().map(|seen| seen.info).collect())
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

struct Seen {
    outer_pid: u32,
    outer_parent: u32,
    info: ProcessInfo,
}

/// What `/proc` says of process `pid`; `None` when it has ended.
fn look(pid: u32) -> Option<Seen> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let stat = read("stat")?;
    // The name, in brackets, may hold anything, brackets included.
    let (head, tail) = stat.rsplit_once(") ")?;
    let name = head.split_once('(')?.1;
    let fields: Vec<&str> = tail.split(' ').collect();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let status = read("status")?;
    let entry = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
    let first = |text: &str| text.split_whitespace().next().and_then(|number| number.parse().ok());
    let last = |text: &str| text.split_whitespace().next_back().and_then(|number| number.parse().ok());
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    Some(Seen {
        outer_pid: pid,
        outer_parent: u32::try_from(number(1)).unwrap_or(0),
        info: ProcessInfo {
            pid: entry("NSpid:").and_then(last)?,
            parent_pid: 0,
            uid: entry("Uid:").and_then(first)?,
            state: fields.first().and_then(|state| state.chars().next())?,
            // utime and stime are the 14th and 15th field of all (proc_pid_stat(5)).
            cpu_millis: number(11).saturating_add(number(12)).saturating_mul(1000) / ticks,
            resident_bytes: number(21).saturating_mul(rustix::param::page_size() as u64),
            command: command(pid, name),
        },
    })
}

fn command(pid: u32, name: &str) -> Vec<String> {
    let mut bytes = Vec::new();
    let read = fs::File::open(format!("/proc/{pid}/cmdline"))
        .and_then(|file| file.take(MAX_COMMAND).read_to_end(&mut bytes));
    match read {
        Ok(count) if count > 0 => {
            let line = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
            line.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
        }
        _ => vec![format!("[{name}]")],
    }
}
