//! Making a container with libcontainer, up to the point where its command would run.
//!
//! libcontainer builds what a container is made of: namespaces, control groups, mounts, devices, the pivot into the
//! root file system, masked paths, identity and capabilities. The last step is ours ([`Launch`]), and the same as for
//! a process executed later: the seccomp filter, compiled beforehand, is installed as the very last thing before
//! execve. (libcontainer's own translation of masked comparisons exchanges mask and value, which would leave
//! `clone(2)` with namespace flags to chance, and compiles the profile anew for each container.)

use std::{
    collections::HashMap,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    rc::Rc,
};

use libcontainer::{
    container::builder::ContainerBuilder,
    error::LibcontainerError,
    syscall::syscall::SyscallType,
    workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError},
};
use oci_spec::runtime::Spec;
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, setpriority_process, wait};

use super::{
    answer,
    channel::{self, Attached},
    command::{Command, give_streams},
    protocol::{CreateRequest, Reply},
};
use crate::{
    cgroup,
    runtime::{Failure, FailureKind, Init},
    sys,
};

/// The largest nice value (setpriority(2)).
const LOWEST_PRIORITY: i32 = 19;

pub(super) fn create(
    socket: &OwnedFd,
    request: CreateRequest,
    mut attached: Attached,
) -> Result<(), Failure> {
    let protocol = |error: io::Error| Failure::system("request", error);
    if request.init == Init::Rehearsal {
        // Whoever has something to do goes first. Not being able to step back is no reason not to go on.
        let _ = setpriority_process(None, LOWEST_PRIORITY);
    }
    let status = Rc::new(attached.fd().map_err(protocol)?);
    let launch = Launch { init: request.init, filter: Rc::new(std::mem::take(&mut attached.blob)), status };
    let console = request.terminal.then(|| Console::listen(&request.bundle)).transpose();
    let console = console.map_err(|error| Failure::system("terminal", error))?;
    let streams = match &console {
        Some(_) => None,
        None => {
            let mut next = || attached.fd().map_err(protocol);
            let streams = [next()?, next()?, next()?];
            give_streams(&streams, request.uid).map_err(|error| Failure::system("streams", error))?;
            Some(streams)
        }
    };
    let pid = build(&request, launch, console.as_ref(), streams)
        .map_err(|error| Failure::system("libcontainer", Chain(&error)))?;
    // Still before the command: the device filter of a v2 control group, which libcontainer leaves to us.
    if let Some(cgroup) = &request.filter_devices_of {
        cgroup::devices::restrict(cgroup).map_err(|error| Failure::system("device filter", error))?;
    }
    let created = Reply::Created { pid: pid.as_raw_nonzero().get().cast_unsigned() };
    let pidfd =
        pidfd_open(pid, PidfdFlags::empty()).map_err(|error| Failure::system("container's init", error))?;
    match console {
        None => answer(socket, &created, &[], &[pidfd.as_fd()]),
        Some(console) => {
            let master = console.master().map_err(|error| Failure::system("terminal", error))?;
            answer(socket, &created, &[], &[pidfd.as_fd(), master.as_fd()])
        }
    }
}

fn build(
    request: &CreateRequest,
    launch: Launch,
    console: Option<&Console>,
    streams: Option<[OwnedFd; 3]>,
) -> Result<Pid, LibcontainerError> {
    let mut builder = ContainerBuilder::new(request.id.clone(), SyscallType::Linux)
        .with_root_path(&request.root)?
        .with_executor(launch)
        .with_console_socket(console.map(|console| console.path.clone()));
    if let Some([stdin, stdout, stderr]) = streams {
        builder = builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr);
    }
    let container = builder
        .validate_id()?
        .as_init(&request.bundle)
        .with_systemd(false)
        .with_detach(true)
        .as_sibling(true)
        .build()?;
    let pid = container.pid().and_then(|pid| Pid::from_raw(pid.as_raw()));
    pid.ok_or_else(|| LibcontainerError::Other("init has no process id".into()))
}

/// An error with its sources, on one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut error = Some(self.0);
        let mut last = String::new();
        while let Some(current) = error {
            let text = current.to_string();
            if !last.contains(&text) {
                let separator = if last.is_empty() { "" } else { ": " };
                write!(f, "{separator}{text}")?;
                last = text;
            }
            error = current.source();
        }
        Ok(())
    }
}

/// Where the terminal that the container makes is handed over.
struct Console {
    path: PathBuf,
    listener: UnixListener,
}

impl Console {
    fn listen(bundle: &Path) -> io::Result<Self> {
        // The path of a socket is short; the name below our own working directory always fits.
        std::env::set_current_dir(bundle)?;
        let listener = UnixListener::bind("console.sock")?;
        Ok(Self { path: bundle.join("console.sock"), listener })
    }

    fn master(self) -> io::Result<OwnedFd> {
        let (connection, _) = self.listener.accept()?;
        let _ = std::fs::remove_file(&self.path);
        channel::receive_descriptor(&connection)
    }
}

/// What libcontainer runs as the container's init, after everything else.
#[derive(Clone)]
struct Launch {
    init: Init,
    filter: Rc<Vec<u8>>,
    /// Tells the runtime why the command does not run. Closed by execve.
    status: Rc<OwnedFd>,
}

impl Launch {
    fn command(spec: &Spec) -> Result<Command, Failure> {
        let process = spec.process().as_ref();
        let list = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
        let args = list(process.and_then(|process| process.args().as_ref()));
        let env = list(process.and_then(|process| process.env().as_ref()));
        Command::find(&args, &env)
    }

    fn tell(&self, failure: &Failure) {
        if let Ok(bytes) = serde_json::to_vec(failure) {
            let _ = rustix::io::write(&*self.status, &bytes);
        }
    }
}

impl Executor for Launch {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        match self.init {
            Init::Pause | Init::Rehearsal => return Ok(()),
            Init::Command => {}
        }
        Self::command(spec).map(drop).map_err(|failure| {
            self.tell(&failure);
            ExecutorValidationError::ArgValidationError(failure.message)
        })
    }

    /// The command's environment goes to execve as it is; this process needs none.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let failure = match self.init {
            Init::Pause => self.pause(),
            Init::Rehearsal => Failure::system("rehearsal", "it is not to be started"),
            Init::Command => match Self::command(spec) {
                Ok(command) => command.execute(&self.filter),
                Err(failure) => failure,
            },
        };
        self.tell(&failure);
        sys::exit_now(if failure.kind == FailureKind::CommandNotFound { 127 } else { 126 })
    }
}

impl Launch {
    /// Sleeps and reaps, as the first process of a namespace must, until asked to end. Returns only to say why it
    /// could not.
    fn pause(&self) -> Failure {
        sys::reset_signals();
        let filter = Rc::clone(&self.filter);
        // No execve will close the worker's descriptors, whose closing is what the runtime waits for.
        let prepared = sys::hold_signals().and_then(|()| sys::install_filter(&filter));
        if let Err(error) = prepared.and_then(|()| sys::close_from(3)) {
            return Failure::system("pause", error);
        }
        while sys::next_signal() == libc::SIGCHLD {
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        }
        sys::exit_now(0)
    }
}
