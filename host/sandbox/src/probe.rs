//! What this host can offer a pod: measured or looked up, never assumed.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    state::{Home, write_json},
    sys,
    tools::{self, ToolError},
};

/// How long the time stamp counter is watched, and how often.
const WINDOW: Duration = Duration::from_millis(30);
const ATTEMPTS: usize = 3;
/// How long it is watched to see whether what is remembered still holds, and how far off it may be: three times what so
/// short a look can be wrong by.
const GLANCE: Duration = Duration::from_millis(3);
const TOLERANCE_PPM: u64 = 300;

/// Where QEMU's version is remembered, beside the counter's frequency.
const QEMU_ANSWER: &str = "qemu.json";

/// The remembered answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    boot_id: String,
    khz: u32,
}

/// The frequency of this machine's time stamp counter in kHz, the same for all pods of this boot of the machine: it is part
/// of what is measured, and two readings are never quite the same.
pub fn tsc_khz(home: &Home) -> u32 {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let boot_id = boot_id.trim();
    let remembered = fs::read(home.tsc_answer()).ok();
    let remembered = remembered.and_then(|bytes| serde_json::from_slice::<Remembered>(&bytes).ok());
    if let Some(Remembered { khz, .. }) = remembered.filter(|answer| answer.boot_id == boot_id)
        && (0..ATTEMPTS).any(|_| is_near(khz, sample(GLANCE).1))
    {
        return khz;
    }
    let khz = measured_tsc_khz();
    let answer = Remembered { boot_id: boot_id.to_owned(), khz };
    if let Err(error) = home.prepare().and_then(|()| write_json(&home.tsc_answer(), &answer)) {
        tracing::warn!(%error, "the frequency of the time stamp counter could not be remembered");
    }
    khz
}

/// What a program of this identity said of its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    program: PathBuf,
    inode: u64,
    bytes: u64,
    changed_nanos: i128,
    version: String,
}

/// QEMU's version. Remembered for as long as its file is the same: to start QEMU for a word takes as long as half of all
/// that the host does for a pod.
pub async fn qemu_version(home: &Home, qemu: &Path) -> Result<String, ToolError> {
    let Ok(file) = fs::metadata(qemu) else { return tools::qemu_version(qemu).await };
    let place = home.tsc_answer().with_file_name(QEMU_ANSWER);
    let changed_nanos = i128::from(file.ctime()) * 1_000_000_000 + i128::from(file.ctime_nsec());
    let is_same = |said: &Said| {
        (said.program.as_path(), said.inode, said.bytes, said.changed_nanos)
            == (qemu, file.ino(), file.len(), changed_nanos)
    };
    let said = fs::read(&place).ok().and_then(|bytes| serde_json::from_slice::<Said>(&bytes).ok());
    if let Some(said) = said.filter(is_same) {
        return Ok(said.version);
    }
    let version = tools::qemu_version(qemu).await?;
    let (inode, bytes) = (file.ino(), file.len());
    let said = Said { program: qemu.to_owned(), inode, bytes, changed_nanos, version: version.clone() };
    if let Err(error) = home.prepare().and_then(|()| write_json(&place, &said)) {
        tracing::warn!(%error, "the version of QEMU could not be remembered");
    }
    Ok(version)
}

fn is_near(khz: u32, other: u32) -> bool {
    u64::from(khz.abs_diff(other)) * 1_000_000 <= u64::from(khz) * TOLERANCE_PPM
}

/// The frequency of the time stamp counter against the system's monotonic clock, as it is now.
fn measured_tsc_khz() -> u32 {
    // Being descheduled between the two readings at either end makes a sample wrong; the one with the narrowest ends
    // is the one to believe.
    (0..ATTEMPTS).map(|_| sample(WINDOW)).min_by_key(|(width, _)| *width).map_or(0, |(_, khz)| khz)
}

/// One look, and by how many ticks its ends are uncertain.
fn sample(window: Duration) -> (u64, u32) {
    let (first, first_width) = bracket();
    std::thread::sleep(window);
    let (last, last_width) = bracket();
    let nanos = last.1.duration_since(first.1).as_nanos().max(1);
    let khz = u128::from(last.0.wrapping_sub(first.0)) * 1_000_000 / nanos;
    (first_width + last_width, u32::try_from(khz).unwrap_or(u32::MAX))
}

/// Counter and clock read at the same time, and by how many ticks "the same time" is wide.
fn bracket() -> ((u64, Instant), u64) {
    let reading = || {
        let before = sys::time_stamp();
        let now = Instant::now();
        let after = sys::time_stamp();
        let width = after.wrapping_sub(before);
        ((before.wrapping_add(width / 2), now), width)
    };
    let readings = [reading(), reading(), reading(), reading()];
    readings.into_iter().min_by_key(|(_, width)| *width).unwrap_or_else(reading)
}

/// Whether the kernel of this host has vhost-vsock, and this user may use it.
pub fn has_kernel_vsock() -> bool {
    let device = Path::new("/dev/vhost-vsock");
    std::fs::OpenOptions::new().read(true).write(true).open(device).is_ok()
}

/// The release of this host's kernel, as `uname -r` says.
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_counter_runs_at_a_processors_frequency() {
        let khz = measured_tsc_khz();
        assert!((500_000..10_000_000).contains(&khz), "{khz}");
    }

    #[tokio::test]
    async fn a_version_is_remembered_until_the_program_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home"));
        let (qemu, asked) = (dir.path().join("qemu"), dir.path().join("asked"));
        let install = |version: &str| {
            let said = format!("QEMU emulator version {version}");
            let program = format!("#!/bin/sh\necho >> {}\necho '{said}'\n", asked.display());
            // Never written in place: a file that is being written cannot be run.
            let new = dir.path().join("new");
            fs::write(&new, program).unwrap();
            fs::set_permissions(&new, fs::Permissions::from_mode(0o700)).unwrap();
            fs::rename(&new, &qemu).unwrap();
        };
        for (times, version) in [(1, "7.2.22"), (2, "7.2.23")] {
            install(version);
            for _ in 0..3 {
                assert_eq!(qemu_version(&home, &qemu).await.unwrap(), version);
            }
            assert_eq!(fs::read_to_string(&asked).unwrap().lines().count(), times);
        }
        fs::remove_file(&qemu).unwrap();
        assert!(qemu_version(&home, &qemu).await.is_err());
    }

    #[test]
    fn what_is_remembered_holds_for_this_boot_and_while_it_is_true() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        let khz = tsc_khz(&home);
        assert_eq!(tsc_khz(&home), khz);
        let read = || serde_json::from_slice::<Remembered>(&fs::read(home.tsc_answer()).unwrap()).unwrap();
        let honest = read();
        let wrong = [
            Remembered { khz: khz / 2, ..honest.clone() },
            Remembered { boot_id: "another".into(), ..honest.clone() },
        ];
        for wrong in wrong {
            write_json(&home.tsc_answer(), &wrong).unwrap();
            assert!(is_near(khz, tsc_khz(&home)));
            assert_eq!(read().boot_id, honest.boot_id);
        }
    }
}
