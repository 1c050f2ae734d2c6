//! The last steps of a process that becomes the container's: find the program, shut the filter, execute.

use std::{
    ffi::{CString, NulError},
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, accessat, fchown, fstat, major, minor, open, stat},
    process::{Gid, Uid},
};

use crate::{
    runtime::{Failure, FailureKind},
    sys,
};

/// Where programs are looked for when the environment names no PATH, as docker has it.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that was found, with what it gets.
#[derive(Debug, Clone)]
pub(super) struct Command {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Command {
    /// Looks `args[0]` up in the PATH of `env`, from within the container.
    pub(super) fn find(args: &[String], env: &[String]) -> Result<Self, Failure> {
        let name = args.first().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| Failure::new(FailureKind::CommandNotFound, "no command was given"))?;
        let nul = |_: NulError| {
            Failure::new(FailureKind::CommandNotFound, "a NUL byte is in the command or environment")
        };
        let strings = |strings: &[String]| -> Result<Vec<CString>, NulError> {
            strings.iter().map(|string| CString::new(string.as_str())).collect()
        };
        let path = find_program(name, env)?;
        Ok(Self {
            path: CString::new(path).map_err(nul)?,
            args: strings(args).map_err(nul)?,
            env: strings(env).map_err(nul)?,
        })
    }

    /// Installs the filter and becomes the program. Returns only to say why not.
    pub(super) fn execute(&self, filter: &[u8]) -> Failure {
        sys::reset_signals();
        if let Err(error) = sys::close_from_on_exec(3).and_then(|()| sys::install_filter(filter)) {
            return Failure::system("seccomp filter", error);
        }
        let error = sys::execve(&self.path, &self.args, &self.env);
        self.explain(&error)
    }

    fn explain(&self, error: &io::Error) -> Failure {
        let path = self.path.to_string_lossy();
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => Failure::new(
                FailureKind::CommandNotFound,
                format!(
                    "{path}: the program, or the interpreter or loader it names, is not in the container"
                ),
            ),
            Some(libc::E2BIG) => {
                Failure::new(FailureKind::Limit, format!("{path}: arguments and environment are too long"))
            }
            Some(libc::ENOMEM | libc::EAGAIN) => Failure::new(FailureKind::Limit, format!("{path}: {error}")),
            _ => Failure::new(FailureKind::CommandNotExecutable, format!("{path}: {error}")),
        }
    }
}

fn find_program(name: &str, env: &[String]) -> Result<String, Failure> {
    if name.contains('/') {
        return Ok(name.to_owned());
    }
    let path = env.iter().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let mut unusable = None;
    for directory in path.split(':') {
        let candidate = format!("{}/{name}", if directory.is_empty() { "." } else { directory });
        let is_file =
            stat(&candidate).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        if is_file && accessat(CWD, &candidate, Access::EXEC_OK, AtFlags::EACCESS).is_ok() {
            return Ok(candidate);
        }
        if is_file {
            unusable.get_or_insert(candidate);
        }
    }
    Err(match unusable {
        Some(path) => Failure::new(FailureKind::CommandNotExecutable, format!("{path}: permission denied")),
        None => Failure::new(FailureKind::CommandNotFound, format!("{name:?} is not in PATH ({path})")),
    })
}

/// Lets the container's user reopen its streams (`/dev/stdout`), which are pipes of ours.
pub(super) fn give_streams(streams: &[impl AsFd], uid: u32) -> io::Result<()> {
    for stream in streams {
        let kind = FileType::from_raw_mode(fstat(stream)?.st_mode);
        if kind == FileType::Fifo {
            fchown(stream, Some(Uid::from_raw(uid)), None::<Gid>)?;
        }
    }
    Ok(())
}

/// Puts `streams` on descriptors 0, 1 and 2.
pub(super) fn connect_streams(stdin: impl AsFd, stdout: impl AsFd, stderr: impl AsFd) -> io::Result<()> {
    rustix::stdio::dup2_stdin(stdin)?;
    rustix::stdio::dup2_stdout(stdout)?;
    rustix::stdio::dup2_stderr(stderr)?;
    Ok(())
}

/// Whether `stream` is a null device.
pub(super) fn is_null(stream: impl AsFd) -> io::Result<bool> {
    let stat = fstat(stream)?;
    let device = (major(stat.st_rdev), minor(stat.st_rdev));
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && device == (1, 3))
}

/// Opens the container's own /dev/null, and nothing that only bears its name.
pub(super) fn open_null() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let null = open("/dev/null", flags, Mode::empty())?;
    match is_null(&null)? {
        true => Ok(null),
        false => Err(io::Error::other("the container's /dev/null is something else")),
    }
}
