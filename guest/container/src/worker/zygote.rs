//! The process all workers are forked from. It takes a socket per operation, forks, and forgets.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, IntoRawFd, OwnedFd},
};

use rustix::{
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::{DumpableBehavior, PidfdFlags, getpid, pidfd_open, set_dumpable_behavior, setpgid},
};

use super::{
    answer,
    channel::{self, Message},
    copy_in, copy_out, create, exec, filter,
    protocol::{Reply, Request},
};
use crate::sys::{self, Fork};

pub(super) fn run() -> ! {
    let code = match serve() {
        Ok(()) => 0,
        Err(_) => 1,
    };
    sys::exit_now(code)
}

fn serve() -> io::Result<()> {
    if !sys::is_single_threaded() {
        return Err(io::Error::other("worker program has started threads before it became a worker"));
    }
    sys::close_from(3)?;
    sys::reset_signals();
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    leave_oom_protection();
    let control = sys::inherited(0)?;
    while let Some(socket) = next_operation(&control)? {
        if let Fork::Child = sys::fork_sibling(None)? {
            // The control socket is the agent's word to the zygote; no container may ever hold it.
            detach_standard_input(control)?;
            work(&socket);
            sys::exit_now(0);
        }
    }
    Ok(())
}

/// Containers are to be killed before the agent when memory runs out. Lowering needs a privilege, so only a
/// protection (a negative value) is given up.
fn leave_oom_protection() {
    let path = "/proc/self/oom_score_adj";
    let protected = std::fs::read_to_string(path).is_ok_and(|text| text.trim().starts_with('-'));
    if protected {
        let _ = std::fs::write(path, "0");
    }
}

/// The socket of the next operation; `None` when the agent is gone.
fn next_operation(control: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    loop {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = match recvmsg(control, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags) {
            Ok(received) => received.bytes,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let socket = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        match (received, socket) {
            (0, _) => return Ok(None),
            (_, Some(socket)) => return Ok(Some(socket)),
            (_, None) => {}
        }
    }
}

/// Puts `/dev/null`, which is on descriptor 1 since the start, in the place of the control socket.
fn detach_standard_input(control: OwnedFd) -> io::Result<()> {
    // dup2 closes the socket, so its owner must not: it would close the new descriptor 0.
    let _ = control.into_raw_fd();
    Ok(rustix::stdio::dup2_stdin(rustix::stdio::stdout())?)
}

/// One operation. Whatever goes wrong is told to the runtime, if it still listens.
fn work(socket: &OwnedFd) {
    let received = greet(socket).and_then(|()| channel::receive::<Request>(socket));
    let Ok(Some(Message { body, attached })) = received else { return };
    let outcome = match body {
        Request::Create(request) => create::create(socket, request, attached),
        Request::Exec(request) => exec::exec(socket, request, attached),
        Request::CompileFilter(profile) => {
            filter::compile(&profile).and_then(|filter| answer(socket, &Reply::Filter, &filter, &[]))
        }
        Request::CopyIn(request) => copy_in::copy_in(socket, request, attached),
        Request::CopyOut(request) => copy_out::copy_out(socket, request, attached),
    };
    if let Err(failure) = outcome {
        let _ = channel::send(socket, &Reply::Failed(failure), &[], &[]);
    }
}

/// A process group of its own lets the runtime end the worker with everything it has forked.
fn greet(socket: &OwnedFd) -> io::Result<()> {
    setpgid(None, None)?;
    let pid = getpid();
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let pid = pid.as_raw_nonzero().get().cast_unsigned();
    channel::send(socket, &Reply::Hello { pid }, &[], &[pidfd.as_fd()])
}
