//! The innermost part: from a directory to a container, then the image's program and the check beside it.

use std::{
    fs, io,
    io::Write,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{CWD, FileType, Mode, makedev, mknodat},
    mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount},
    process::{Pid, Signal, kill_process, pivot_root},
    system::sethostname,
    thread::{CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities},
};
use serde::{Deserialize, Serialize};

use super::{Outcome, PAUSE, Plan, StageError, read_plan};
use crate::profile::image::ContainerImage;

/// How long a program gets to end by itself.
const STOPPING: Duration = Duration::from_secs(8);
/// Between two tries of the check.
const RETRY: Duration = Duration::from_millis(400);
/// Devices of every container: name, major, minor.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];
/// Files through which a process could reach past its name spaces.
const MASKED: [&str; 6] =
    ["/proc/sysrq-trigger", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/kmsg", "/proc/acpi"];
const READ_ONLY: [&str; 4] = ["/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs"];

/// What a container has by default in a pod.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error("cannot {action}")]
    System { action: &'static str, source: io::Error },
    #[error("the image has no user {0:?}")]
    NoUser(String),
    #[error("the image names no command; give one with --entrypoint")]
    NoCommand,
}

/// What is told to the stage.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Said {
    pub(super) outcome: Outcome,
    pub(super) process: u32,
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> EnterError {
    move |source| EnterError::System { action, source }
}

fn refused(action: &'static str) -> impl Fn(rustix::io::Errno) -> EnterError {
    move |error| EnterError::System { action, source: error.into() }
}

/// The part that strace starts.
pub fn enter() -> Result<(), EnterError> {
    let plan = read_plan()?;
    let image = ContainerImage::open(&plan.image, plan.tag.as_deref()).map_err(StageError::from)?;
    let command = plan.command.clone().unwrap_or_else(|| image.config.command());
    go_in(&plan.directory.join("root"))?;
    file_systems()?;
    sethostname(b"pod").map_err(refused("set the host name"))?;
    give_up_capabilities()?;
    let (program, arguments) = command.split_first().ok_or(EnterError::NoCommand)?;
    let outcome = Workload { image: &image, plan: &plan }.run(program, arguments)?;
    let said = Said { outcome, process: std::process::id() };
    let line = serde_json::to_vec(&said).map_err(StageError::Report)?;
    io::stdout().lock().write_all(&line).map_err(failed("report"))
}

/// Makes `root` the root of this mount name space; the old one is gone.
fn go_in(root: &Path) -> Result<(), EnterError> {
    mount_bind(root, root).map_err(refused("bind the root"))?;
    std::env::set_current_dir(root).map_err(failed("enter the root"))?;
    pivot_root(".", ".").map_err(refused("change the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(refused("leave the old root"))?;
    std::env::set_current_dir("/").map_err(failed("enter the root"))
}

/// From here on every path is the image's, and a link in it leads to the image's own files.
fn file_systems() -> Result<(), EnterError> {
    for directory in ["/proc", "/sys", "/dev", "/tmp", "/etc", "/run"] {
        if !Path::new(directory).exists() {
            fs::create_dir(directory).map_err(failed("make a directory of the image"))?;
        }
    }
    if fs::read_dir("/tmp").is_ok_and(|mut entries| entries.next().is_none()) {
        fs::set_permissions("/tmp", fs::Permissions::from_mode(0o1777)).map_err(failed("open /tmp"))?;
    }
    let guarded = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", guarded, c"").map_err(refused("mount /proc"))?;
    mount("sysfs", "/sys", "sysfs", guarded | MountFlags::RDONLY, c"").map_err(refused("mount /sys"))?;
    mount("tmpfs", "/dev", "tmpfs", MountFlags::NOSUID, c"mode=755,size=64k")
        .map_err(refused("mount /dev"))?;
    for (name, major, minor) in DEVICES {
        let path = format!("/dev/{name}");
        mknodat(CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(major, minor))
            .map_err(refused("make a device"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).map_err(failed("open a device"))?;
    }
    for (target, link) in LINKS {
        std::os::unix::fs::symlink(target, link).map_err(failed("make a link in /dev"))?;
    }
    for directory in ["/dev/pts", "/dev/shm", "/dev/mqueue"] {
        fs::create_dir(directory).map_err(failed("make a directory in /dev"))?;
    }
    let terminals = c"newinstance,ptmxmode=0666,mode=0620,gid=5";
    mount("devpts", "/dev/pts", "devpts", MountFlags::NOSUID | MountFlags::NOEXEC, terminals)
        .map_err(refused("mount /dev/pts"))?;
    mount("shm", "/dev/shm", "tmpfs", guarded, c"mode=1777,size=256m").map_err(refused("mount /dev/shm"))?;
    mount("mqueue", "/dev/mqueue", "mqueue", guarded, c"").map_err(refused("mount /dev/mqueue"))?;
    for path in MASKED.into_iter().filter(|path| Path::new(path).is_file()) {
        mount_bind("/dev/null", path).map_err(refused("hide a file of /proc"))?;
    }
    for path in READ_ONLY.into_iter().filter(|path| Path::new(path).exists()) {
        mount_bind(path, path).map_err(refused("protect /proc"))?;
        mount_remount(path, MountFlags::BIND | MountFlags::RDONLY | guarded, c"")
            .map_err(refused("protect /proc"))?;
    }
    if fs::symlink_metadata("/etc/hosts").is_err() {
        fs::write("/etc/hosts", "127.0.0.1 localhost\n").map_err(failed("write /etc/hosts"))?;
    }
    Ok(())
}

fn give_up_capabilities() -> Result<(), EnterError> {
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        // Numbers that this kernel does not know are refused, and need no giving up.
        if !KEPT.contains(one) {
            let _ = remove_capability_from_bounding_set(one);
        }
    }
    let sets = CapabilitySets { effective: KEPT, permitted: KEPT, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(refused("give up capabilities"))
}

struct Workload<'a> {
    image: &'a ContainerImage,
    plan: &'a Plan,
}

impl Workload<'_> {
    fn run(&self, program: &str, arguments: &[String]) -> Result<Outcome, EnterError> {
        let end = Instant::now() + Duration::from_secs(self.plan.seconds);
        let mut command = self.command(program, self.image.config.user.as_deref().unwrap_or_default())?;
        let mut main = match command.args(arguments).spawn() {
            Ok(child) => child,
            Err(error) => {
                return Ok(Outcome::NotStarted { reason: format!("{program}: {error}") });
            }
        };
        let outcome = match &self.plan.check {
            Some(check) => self.until_checked(&mut main, check, end),
            None => watch(&mut main, end),
        };
        stop(&mut main);
        outcome
    }

    fn command(&self, program: &str, user: &str) -> Result<Command, EnterError> {
        let mut command = Command::new(program);
        command.env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", "/root");
        command.envs(self.image.config.env());
        let directory = self.image.config.working_dir.as_deref().filter(|directory| !directory.is_empty());
        command.current_dir(directory.unwrap_or("/")).stdin(Stdio::null());
        // Its output goes to the log, as what this program has to say of itself does.
        command.stdout(io::stderr());
        if let Some((uid, gid)) = user_of(user)? {
            command.uid(uid).gid(gid);
        }
        Ok(command)
    }

    fn until_checked(&self, main: &mut Child, check: &str, end: Instant) -> Result<Outcome, EnterError> {
        // A try that the time cuts short says less than one that ended.
        let mut last = "it did not end".to_owned();
        loop {
            let mut command = self.command("/bin/sh", "")?;
            let mut child =
                command.args(["-c", check]).spawn().map_err(failed("start the image's /bin/sh"))?;
            let status = super::wait(&mut child, end.saturating_duration_since(Instant::now()))
                .map_err(failed("wait for the check"))?;
            match status {
                Some(status) if status.success() => return Ok(Outcome::Checked),
                Some(status) => last = status.to_string(),
                None => return Ok(Outcome::CheckFailed { last }),
            }
            if Instant::now() >= end {
                return Ok(Outcome::CheckFailed { last });
            }
            if let Some(status) = main.try_wait().map_err(failed("wait for the program"))? {
                return Ok(Outcome::EndedEarly { status: status.to_string() });
            }
            thread::sleep(RETRY);
        }
    }
}

fn watch(main: &mut Child, end: Instant) -> Result<Outcome, EnterError> {
    loop {
        if let Some(status) = main.try_wait().map_err(failed("wait for the program"))? {
            return Ok(Outcome::Ended { status: status.to_string() });
        }
        if Instant::now() >= end {
            return Ok(Outcome::Watched);
        }
        thread::sleep(PAUSE);
    }
}

/// Asks the program to end, so that what it does then is seen too.
fn stop(main: &mut Child) {
    let process = i32::try_from(main.id()).ok().and_then(Pid::from_raw);
    if let (Ok(None), Some(process)) = (main.try_wait(), process) {
        let _ = kill_process(process, Signal::TERM);
    }
    let _ = super::wait(main, STOPPING);
}

/// User and group of `USER[:GROUP]`, by the image's own lists.
fn user_of(text: &str) -> Result<Option<(u32, u32)>, EnterError> {
    if text.is_empty() {
        return Ok(None);
    }
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let list = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let unknown = || EnterError::NoUser(text.to_owned());
    let (passwd, groups) = (list("/etc/passwd"), list("/etc/group"));
    let field = |line: &str, at: usize| line.split(':').nth(at).and_then(|field| field.parse::<u32>().ok());
    let named = passwd.lines().find(|line| {
        line.split(':').next() == Some(user)
            || field(line, 2).map(|id| id.to_string()).as_deref() == Some(user)
    });
    let uid = user.parse().ok().or_else(|| field(named?, 2)).ok_or_else(unknown)?;
    let gid = match group {
        None => named.and_then(|line| field(line, 3)).unwrap_or(0),
        Some(group) => {
            let line = groups.lines().find(|line| line.split(':').next() == Some(group));
            group.parse().ok().or_else(|| field(line?, 2)).ok_or_else(unknown)?
        }
    };
    Ok(Some((uid, gid)))
}
