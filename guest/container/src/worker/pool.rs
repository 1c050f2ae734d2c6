//! The runtime's side of workers: the zygote, which the first operation starts, and one job per operation.

use std::{
    ffi::CString,
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::{
    net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
        sendmsg, socketpair,
    },
    process::{Pid, Signal, kill_process_group},
};
use tokio::{net::UnixStream, time::timeout};

use super::{
    WORKER_ARGUMENT, WorkerError, channel,
    channel::Message,
    protocol::{Reply, Request},
};
use crate::sys;

/// Starts workers.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Read-only view of the program, so that no container can write to it through `/proc/PID/exe`.
    program: OwnedFd,
    /// The zygote's control socket. Closing it ends the zygote.
    zygote: Mutex<Option<OwnedFd>>,
    deadline: Duration,
}

impl Pool {
    pub(crate) fn new(program: &Path, deadline: Duration) -> io::Result<Self> {
        let path = CString::new(program.as_os_str().as_bytes()).map_err(io::Error::other)?;
        Ok(Self { program: sys::read_only_view(&path)?, zygote: Mutex::new(None), deadline })
    }

    /// Ends the zygote. Workers finish what they do.
    pub(crate) fn close(&self) {
        self.zygote.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Hands `request` to a new worker.
    pub(crate) async fn begin(
        &self,
        request: &Request,
        blob: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<Job, WorkerError> {
        match self.try_begin(request, blob, fds).await {
            // A worker greets before it reads its request. Without a greeting nothing has been done, and most likely
            // the zygote has died with our socket in its queue; once more, then, with a fresh one.
            Err(WorkerError::Died | WorkerError::Channel(_)) => {
                self.close();
                self.try_begin(request, blob, fds).await
            }
            result => result,
        }
    }

    async fn try_begin(
        &self,
        request: &Request,
        blob: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<Job, WorkerError> {
        let socket = self.connect()?;
        let start = async {
            channel::send_async(&socket, request, blob, fds).await.map_err(WorkerError::Channel)?;
            receive(&socket).await?.ok_or(WorkerError::Died)
        };
        let mut hello = timeout(self.deadline, start).await.map_err(|_| WorkerError::TimedOut)??;
        let Reply::Hello { pid } = hello.body else { return Err(WorkerError::Protocol) };
        let pidfd = hello.attached.fd().map_err(|_| WorkerError::Protocol)?;
        Ok(Job { socket, worker: Some(Worker { pid, pidfd }), deadline: self.deadline })
    }

    /// A socket whose other end a new worker has.
    fn connect(&self) -> Result<UnixStream, WorkerError> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|error| WorkerError::Channel(error.into()))?;
        let mut zygote = self.zygote.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = zygote.as_ref().is_some_and(|control| hand_over(control, &theirs).is_ok());
        if !sent {
            // It was killed, or never started. One fresh zygote; if that does not take the socket either, give up.
            let control = self.spawn().map_err(WorkerError::Spawn)?;
            hand_over(&control, &theirs).map_err(|error| WorkerError::Channel(error.into()))?;
            *zygote = Some(control);
        }
        drop(zygote);
        let ours = std::os::unix::net::UnixStream::from(ours);
        ours.set_nonblocking(true).and_then(|()| UnixStream::from_std(ours)).map_err(WorkerError::Channel)
    }

    fn spawn(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // Not waited for here: the reaper does that for every child.
        Command::new(format!("/proc/self/fd/{}", self.program.as_raw_fd()))
            .arg0("postern-worker")
            .arg(WORKER_ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(ours)
    }
}

fn hand_over(control: &OwnedFd, socket: &OwnedFd) -> rustix::io::Result<()> {
    let fds = [socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    // Never blocking: a zygote that does not take sockets any more is as good as dead.
    sendmsg(control, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
        .map(drop)
}

async fn receive(socket: &UnixStream) -> Result<Option<Message<Reply>>, WorkerError> {
    channel::receive_async(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => WorkerError::Died,
        io::ErrorKind::InvalidData => WorkerError::Protocol,
        _ => WorkerError::Channel(error),
    })
}

/// One operation of one worker. Dropped before [`Job::finished`], it ends the worker with all it has forked.
#[derive(Debug)]
pub(crate) struct Job {
    socket: UnixStream,
    worker: Option<Worker>,
    deadline: Duration,
}

#[derive(Debug)]
struct Worker {
    pid: u32,
    pidfd: OwnedFd,
}

impl Job {
    /// The next answer. A worker that ends without one has died.
    pub(crate) async fn answer(&mut self) -> Result<Message<Reply>, WorkerError> {
        self.next().await?.ok_or(WorkerError::Died)
    }

    /// The next answer, or `None` when whoever holds the socket has closed it.
    pub(crate) async fn next(&mut self) -> Result<Option<Message<Reply>>, WorkerError> {
        timeout(self.deadline, receive(&self.socket)).await.map_err(|_| WorkerError::TimedOut)?
    }

    /// The next answer, whenever it comes.
    pub(crate) async fn answer_at_last(&mut self) -> Result<Message<Reply>, WorkerError> {
        receive(&self.socket).await?.ok_or(WorkerError::Died)
    }

    /// Lets the process that now holds the socket go on.
    pub(crate) async fn go(&mut self) -> Result<(), WorkerError> {
        loop {
            self.socket.writable().await.map_err(WorkerError::Channel)?;
            match self.socket.try_write(&[super::protocol::GO]) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(WorkerError::Died),
                Err(error) => return Err(WorkerError::Channel(error)),
            }
        }
    }

    /// The worker has done its work: leave it and its children alone.
    pub(crate) fn finished(mut self) {
        self.worker = None;
    }

    /// The same for one whose socket is still needed.
    pub(crate) fn release(&mut self) {
        self.worker = None;
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(Worker { pid, pidfd }) = self.worker.take() {
            let _ = sys::pidfd_send_signal(&pidfd, 9);
            // The group lives as long as any of its processes, so its number is not taken by another.
            if let Some(group) = Pid::from_raw(pid.cast_signed()) {
                let _ = kill_process_group(group, Signal::KILL);
            }
        }
    }
}
