//! The worker: this program, executed again, single-threaded, holding no keys.
//!
//! ```text
//! agent --exec once--> zygote --fork per operation--> worker --> container's process
//! ```
//! What a container runtime does (fork in the middle of set-up, enter namespaces, change directory, identity and
//! dumpability of the whole process) must not happen in a threaded process, nor in one whose memory or descriptors a
//! container's first instructions could inherit. The zygote is executed for the first operation, and again should it
//! be gone, from a read-only view of the program. It holds one socket and no data. Each operation gets a
//! fork of it, used once, whose parent, like that of the container's processes, is the agent.

pub(crate) mod channel;
mod command;
mod confined;
mod copy_in;
mod copy_out;
mod create;
mod exec;
mod filter;
mod pages;
pub(crate) mod pool;
pub(crate) mod protocol;
mod zygote;

pub(crate) use self::command::DEFAULT_PATH;

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use crate::runtime::Failure;

/// First argument of a program that is to be a worker.
const WORKER_ARGUMENT: &str = "container-worker";

/// What can go wrong between the runtime and a worker.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("worker could not be started")]
    Spawn(#[source] io::Error),
    #[error("worker could not be reached")]
    Channel(#[source] io::Error),
    #[error("worker ended in the middle of the operation")]
    Died,
    #[error("worker did not finish in time")]
    TimedOut,
    #[error("worker spoke out of turn")]
    Protocol,
}

/// To be called first thing in `main` of the program that is used as worker, before any thread and any secret.
/// Returns when the program was not started as a worker; otherwise never.
pub fn main() {
    let mut arguments = std::env::args_os();
    if arguments.nth(1).is_some_and(|argument| argument == WORKER_ARGUMENT) {
        zygote::run();
    }
}

/// Tells the runtime.
fn answer(
    socket: &OwnedFd,
    reply: &protocol::Reply,
    blob: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), Failure> {
    channel::send(socket, reply, blob, fds).map_err(|error| Failure::system("answer", error))
}
