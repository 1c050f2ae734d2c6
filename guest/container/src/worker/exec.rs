//! Running a further process in a running container.
//!
//! Not libcontainer's tenant: that forks twice, re-reads the bundle, writes state and waits on a socket for a start
//! that follows at once, at several times the cost; and it finds namespaces through `/proc` paths of a pid. Here the
//! container's init is pinned by a pidfd: all its namespaces are entered by one call that can only mean them, the
//! process is born in the container's control group, and the only things believed are those the runtime sent and the
//! kernel says. What the container shows in its `/proc`, `/dev` and `/etc` is not trusted: capabilities come from
//! PR_CAPBSET_READ, the terminal from a devpts, the working directory never through a magic link.
//!
//! ```text
//! worker:  join control groups - enter namespaces - look up user - open terminal - fork - Spawned - end
//! child:   session - terminal - limits - directory - identity - capabilities - wait for GO - filter - execve
//! ```

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, fchown, openat2},
    process::{Gid, Resource, Rlimit, Uid, chdir, fchdir, getcwd, setrlimit, setsid, umask},
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
    thread::{
        CapabilitySet, CapabilitySets, ThreadNameSpaceType, move_into_thread_name_spaces, set_capabilities,
        set_no_new_privs, set_thread_gid, set_thread_groups, set_thread_uid,
    },
};

use super::{
    answer,
    channel::{self, Attached},
    command::{Command, connect_streams, give_streams, is_null, open_null},
    protocol::{Confinement, ExecRequest, ExecUser, GO, Home, JoinCgroup, Reply},
};
use crate::{
    io::{WindowSize, set_window_size},
    runtime::{Failure, FailureKind},
    spec::{
        kernel,
        user::{Accounts, Identity},
    },
    sys::{self, Fork},
};

/// `DEVPTS_SUPER_MAGIC` (linux/magic.h).
const DEVPTS_MAGIC: u64 = 0x1cd1;

pub(super) fn exec(socket: &OwnedFd, request: ExecRequest, mut attached: Attached) -> Result<(), Failure> {
    let protocol = |error: io::Error| Failure::system("request", error);
    let init = attached.fd().map_err(protocol)?;
    let cgroup = join_cgroup(&request.cgroup)?;
    enter(&init, container_name_spaces())?;
    let identity = identify(&request.user)?;
    let streams = match request.terminal {
        Some((rows, columns)) => Streams::terminal(WindowSize { rows, columns }, identity.uid)?,
        None => {
            let mut next = || attached.fd().map_err(protocol);
            let pipes = [next()?, next()?, next()?].map(use_own_null);
            give_streams(&pipes, identity.uid).map_err(|error| Failure::system("streams", error))?;
            Streams::Pipes(pipes)
        }
    };
    match sys::fork_sibling(cgroup.as_ref().map(AsFd::as_fd)) {
        Ok(Fork::Child) => {
            let failure = become_process(socket, &init, request, &identity, streams, &attached.blob);
            let _ = channel::send(socket, &Reply::Failed(failure), &[], &[]);
            sys::exit_now(127)
        }
        Ok(Fork::Parent { pid, pidfd }) => match &streams {
            Streams::Pipes(_) => answer(socket, &Reply::Spawned { pid }, &[], &[pidfd.as_fd()]),
            Streams::Terminal { master, .. } => {
                answer(socket, &Reply::Spawned { pid }, &[], &[pidfd.as_fd(), master.as_fd()])
            }
        },
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
            Err(Failure::new(FailureKind::Limit, "the container has as many processes as it may have"))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
            Err(Failure::new(FailureKind::Ended, "the container has ended, or has no memory left"))
        }
        Err(error) => Err(Failure::system("fork", error)),
    }
}

/// Joins `cgroup`, or returns the control group in which to fork.
pub(super) fn join_cgroup(cgroup: &JoinCgroup) -> Result<Option<OwnedFd>, Failure> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Failure::new(FailureKind::Ended, "the container has ended"),
        _ => Failure::system("control group", error),
    };
    match cgroup {
        JoinCgroup::Unified(path) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Ok(Some(rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed(error.into()))?))
        }
        JoinCgroup::Legacy(paths) => {
            for path in paths {
                std::fs::write(path.join("cgroup.procs"), "0").map_err(failed)?;
            }
            Ok(None)
        }
    }
}

/// The container's namespaces, but for that of control groups: where it bounds delegation (`nsdelegate`, cgroups(7)), a
/// process in it cannot fork into a group that it is not below itself, so the child enters it, from inside the group.
/// The user namespace is shared by all, and asking for it would be an error; so would asking for one that the kernel has not.
fn container_name_spaces() -> ThreadNameSpaceType {
    let always = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::NETWORK;
    match kernel::has_ipc() {
        true => always | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION,
        false => always,
    }
}

/// Enters namespaces of the process that `init` pins. With the mount namespace come its root and working directory.
pub(super) fn enter(init: &OwnedFd, name_spaces: ThreadNameSpaceType) -> Result<(), Failure> {
    move_into_thread_name_spaces(init.as_fd(), name_spaces).map_err(|error| match error {
        rustix::io::Errno::SRCH => Failure::new(FailureKind::Ended, "the container has ended"),
        error => Failure::system("enter the container", error),
    })
}

fn identify(user: &ExecUser) -> Result<Identity, Failure> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Failure::system("container's root", error))?;
    match user {
        ExecUser::Ids { uid, gid, groups } => {
            Ok(Identity { uid: *uid, gid: *gid, groups: groups.clone(), home: String::new() })
        }
        ExecUser::Named(name) => Accounts::read(&root)
            .and_then(|accounts| accounts.identify(name))
            .map_err(|error| Failure::new(FailureKind::User, error.to_string())),
    }
}

/// The runtime's /dev/null is a file of the guest's, whose mode the container's root could change through a descriptor.
fn use_own_null(stream: OwnedFd) -> OwnedFd {
    match is_null(&stream) {
        Ok(true) => open_null().unwrap_or(stream),
        _ => stream,
    }
}

enum Streams {
    Pipes([OwnedFd; 3]),
    Terminal { master: OwnedFd, slave: OwnedFd },
}

impl Streams {
    /// A new terminal of the container. `/dev/pts` is the container's to change, so what is opened there has to prove
    /// that it is a devpts; the other side is then asked of the terminal itself, not of a path.
    fn terminal(size: WindowSize, uid: u32) -> Result<Self, Failure> {
        let open = || -> io::Result<Self> {
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
            let master = openat2(CWD, "/dev/pts/ptmx", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
            if rustix::fs::fstatfs(&master)?.f_type as u64 != DEVPTS_MAGIC {
                return Err(io::Error::other("/dev/pts is no devpts"));
            }
            unlockpt(&master)?;
            let slave =
                ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
            set_window_size(&slave, size)?;
            fchown(&slave, Some(Uid::from_raw(uid)), None::<Gid>)?;
            Ok(Self::Terminal { master, slave })
        };
        open().map_err(|error| Failure::system("terminal", error))
    }
}

/// The child's part. Returns only to say why it did not become the process.
fn become_process(
    socket: &OwnedFd,
    init: &OwnedFd,
    request: ExecRequest,
    identity: &Identity,
    streams: Streams,
    filter: &[u8],
) -> Failure {
    let prepared =
        enter(init, ThreadNameSpaceType::CONTROL_GROUP).and_then(|()| prepare(request, identity, streams));
    // Only a process that the runtime has taken charge of may run; if the runtime is gone, or the worker died before it
    // could name this process, the answer is end of file.
    let mut go = [0];
    match rustix::io::read(socket, &mut go) {
        Ok(1) if go[0] == GO => {}
        _ => sys::exit_now(127),
    }
    match prepared {
        Ok(command) => command.execute(filter),
        Err(failure) => failure,
    }
}

fn prepare(request: ExecRequest, identity: &Identity, streams: Streams) -> Result<Command, Failure> {
    let system = |step: &'static str| move |error: rustix::io::Errno| Failure::system(step, error);
    setsid().map_err(system("session"))?;
    match streams {
        Streams::Pipes([stdin, stdout, stderr]) => connect_streams(stdin, stdout, stderr),
        Streams::Terminal { slave, .. } => {
            sys::take_terminal(&slave).and_then(|()| connect_streams(&slave, &slave, &slave))
        }
    }
    .map_err(|error| Failure::system("streams", error))?;
    limit(&request.confinement)?;
    umask(Mode::from_raw_mode(request.confinement.umask));
    let mut env = request.env;
    if request.home == Home::OfUser {
        env.push(format!("HOME={}", identity.home));
    }
    enter_directory(&request.cwd)?;
    confine(&request.confinement, identity)?;
    Command::find(&request.args, &env)
}

/// Never above the hard limit that is in force, which takes a privilege.
fn limit(confinement: &Confinement) -> Result<(), Failure> {
    for &(number, soft, hard) in &confinement.rlimits {
        let Some(resource) = resource(number) else { continue };
        let limit = Rlimit { current: finite(soft), maximum: finite(hard) };
        setrlimit(resource, limit).map_err(|error| Failure::system("resource limit", error))?;
    }
    Ok(())
}

fn finite(limit: u64) -> Option<u64> {
    (limit != u64::MAX).then_some(limit)
}

/// The resources that a specification of ours names (getrlimit(2)).
fn resource(number: u32) -> Option<Resource> {
    match number {
        4 => Some(Resource::Core),
        6 => Some(Resource::Nproc),
        7 => Some(Resource::Nofile),
        _ => None,
    }
}

/// Changes to `directory`, refusing any way out of the container: no magic link is followed, and the kernel has to
/// agree that the place has a path below our root.
fn enter_directory(directory: &std::path::Path) -> Result<(), Failure> {
    let shown = directory.display();
    let refused =
        |why: &str| Failure::new(FailureKind::WorkingDirectory, format!("working directory {shown}: {why}"));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat2(CWD, directory, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        Ok(opened) => fchdir(opened).map_err(|error| refused(&error.to_string()))?,
        Err(rustix::io::Errno::LOOP) => return Err(refused("it leads through a magic link")),
        Err(rustix::io::Errno::NOENT) => return Err(refused("it does not exist")),
        Err(rustix::io::Errno::NOTDIR) => return Err(refused("it is no directory")),
        Err(error) => return Err(refused(&error.to_string())),
    }
    match getcwd(Vec::new()) {
        Ok(path) if path.to_bytes().starts_with(b"/") => Ok(()),
        _ => {
            let _ = chdir("/");
            Err(refused("it is outside of the container"))
        }
    }
}

/// Identity and capabilities, for good. The bounding set comes from the kernel, never from a file that the container
/// may have put in its place.
fn confine(confinement: &Confinement, identity: &Identity) -> Result<(), Failure> {
    let system = |step: &'static str| move |error: rustix::io::Errno| Failure::system(step, error);
    set_no_new_privs(true).map_err(system("no new privileges"))?;
    let mut available = 0;
    for number in 0..u64::BITS {
        match sys::bounding_capability(number) {
            None => break,
            Some(false) => {}
            Some(true) if confinement.bounding & (1 << number) != 0 => available |= 1 << number,
            Some(true) => sys::drop_bounding_capability(number)
                .map_err(|error| Failure::system("capabilities", error))?,
        }
    }
    let groups: Vec<Gid> = identity.groups.iter().map(|&group| Gid::from_raw(group)).collect();
    set_thread_groups(&groups).map_err(system("groups"))?;
    set_thread_gid(Gid::from_raw(identity.gid)).map_err(system("group"))?;
    set_thread_uid(Uid::from_raw(identity.uid)).map_err(system("user"))?;
    // Any other user has lost all capabilities by now, and gets none.
    if identity.uid == 0 {
        let set = |bits: u64| CapabilitySet::from_bits_retain(bits & available);
        let sets = CapabilitySets {
            effective: set(confinement.effective),
            permitted: set(confinement.permitted),
            inheritable: set(confinement.inheritable),
        };
        set_capabilities(None, sets).map_err(system("capabilities"))?;
    }
    Ok(())
}
