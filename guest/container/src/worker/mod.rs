//! The worker: this program, executed again, single-threaded, holding no keys.

use std::io;

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
pub fn main() {}
