//! Measures a running QEMU: what it was really started with, not what somebody says it was.
//!
//! The command line comes from the kernel (`/proc/PID/cmdline`), the files from where that process sees them.
//!
//! Honestly: a secure processor measures the very bytes it loads into the guest's memory. This reads the files a
//! moment after QEMU did, so a host that swaps them in between is measured wrongly (time of check, time of use).
//! Such a host could as well sign what it likes with the simulated key: a simulated platform shows how measurement
//! works and catches mistakes, and protects against nobody.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use postern_launch::{
    image::digest_file,
    measure::launch_digest,
    qemu_args::{self, ParseArgsError},
};
use postern_model::{Measurement, Sha256};

/// Longest command line that is read. Linux' own limit for one argument is 128 KiB.
const MAX_COMMAND_LINE: u64 = 1024 * 1024;

/// The kernel shows a new program's arguments a moment after it has started it.
const EXEC_DEADLINE: Duration = Duration::from_secs(1);
const EXEC_PAUSE: Duration = Duration::from_millis(2);

/// Why a process could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    #[error("cannot read the command line of process {pid}")]
    Process { pid: u32, source: io::Error },
    #[error("process {pid} has ended, or is no program")]
    Ended { pid: u32 },
    #[error("command line of process {pid} is longer than {MAX_COMMAND_LINE} bytes or not text")]
    CommandLine { pid: u32 },
    #[error("process {pid} was not started as a pod's QEMU is")]
    Arguments { pid: u32, source: ParseArgsError },
    #[error("cannot read {} as process {pid} sees it", path.display())]
    File { pid: u32, path: PathBuf, source: io::Error },
}

/// Measures the QEMU that runs as `pid`: kernel, initramfs, kernel command line, machine and processors.
pub fn measure_process(pid: u32) -> Result<Measurement, MeasureError> {
    measure_arguments(pid, &arguments(pid)?)
}

fn measure_arguments(pid: u32, arguments: &[String]) -> Result<Measurement, MeasureError> {
    let launched = qemu_args::parse(arguments).map_err(|source| MeasureError::Arguments { pid, source })?;
    let kernel = digest_as_seen(pid, &launched.kernel)?;
    let initramfs = digest_as_seen(pid, &launched.initramfs)?;
    Ok(launch_digest(&launched.measured(kernel, initramfs)))
}

/// Arguments of a process, the program's name left out. A process that was started this moment has none yet.
fn arguments(pid: u32) -> Result<Vec<String>, MeasureError> {
    let end = Instant::now() + EXEC_DEADLINE;
    loop {
        match command_line(pid)? {
            Some(line) => return Ok(line.split('\0').skip(1).map(str::to_owned).collect()),
            None if Instant::now() >= end => return Err(MeasureError::Ended { pid }),
            None => thread::sleep(EXEC_PAUSE),
        }
    }
}

/// The command line without its last NUL; none before the end of `execve`, and after the end of the process.
fn command_line(pid: u32) -> Result<Option<String>, MeasureError> {
    let mut line = Vec::new();
    fs::File::open(format!("/proc/{pid}/cmdline"))
        .and_then(|file| file.take(MAX_COMMAND_LINE + 1).read_to_end(&mut line))
        .map_err(|source| MeasureError::Process { pid, source })?;
    if line.len() as u64 > MAX_COMMAND_LINE {
        return Err(MeasureError::CommandLine { pid });
    }
    let line = String::from_utf8(line).map_err(|_| MeasureError::CommandLine { pid })?;
    Ok(line.strip_suffix('\0').map(str::to_owned))
}

fn digest_as_seen(pid: u32, path: &Path) -> Result<Sha256, MeasureError> {
    let seen = match path.strip_prefix("/") {
        Ok(relative) => Path::new(&format!("/proc/{pid}/root")).join(relative),
        Err(_) => Path::new(&format!("/proc/{pid}/cwd")).join(path),
    };
    match digest_file(&seen) {
        Ok((digest, _)) => Ok(digest),
        Err(source) => Err(MeasureError::File { pid, path: path.to_path_buf(), source }),
    }
}

#[cfg(test)]
mod tests;
