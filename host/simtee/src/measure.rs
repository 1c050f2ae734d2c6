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
};

use postern_launch::{
    image::digest_file,
    measure::launch_digest,
    qemu_args::{self, ParseArgsError},
};
use postern_model::{Measurement, Sha256};

/// Longest command line that is read. Linux' own limit for one argument is 128 KiB.
const MAX_COMMAND_LINE: u64 = 1024 * 1024;

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

/// Arguments of a process, the program's name left out.
fn arguments(pid: u32) -> Result<Vec<String>, MeasureError> {
    let mut line = Vec::new();
    fs::File::open(format!("/proc/{pid}/cmdline"))
        .and_then(|file| file.take(MAX_COMMAND_LINE + 1).read_to_end(&mut line))
        .map_err(|source| MeasureError::Process { pid, source })?;
    if line.len() as u64 > MAX_COMMAND_LINE {
        return Err(MeasureError::CommandLine { pid });
    }
    let line = String::from_utf8(line).map_err(|_| MeasureError::CommandLine { pid })?;
    let Some(line) = line.strip_suffix('\0') else { return Err(MeasureError::Ended { pid }) };
    Ok(line.split('\0').skip(1).map(str::to_owned).collect())
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
