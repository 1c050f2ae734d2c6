//! One container on Linux; knows nothing of pods, TLS or attestation.
//!
//! [`Runtime`] creates, starts and watches containers from a long-lived, threaded process. Everything that must not
//! happen in such a process (fork, namespaces, mounts, libcontainer) happens in [`worker`]s: the same program, executed
//! again, single-threaded, holding no keys, forked once per operation.
//!
//! Entry points: [`Runtime`], [`Reaper`], [`spec::build`], [`worker::main`].

#![deny(unsafe_code)]

mod cgroup;
pub mod io;
pub mod process;
pub mod reaper;
pub mod runtime;
pub mod spec;
mod sys;
pub mod worker;

pub use io::{ProcessInput, ProcessIo, ProcessOutput, Stdio, Terminal, WindowSize};
pub use process::{Exit, Process, Signal, SignalError};
pub use reaper::Reaper;
pub use runtime::{
    CopyError, CopyIn, CopyInOptions, CopyOut, CopyOutOptions, CopySummary, CreateContainer, CreateError,
    Created, DeleteError, ExecError, ExecProcess, Failure, FailureKind, Init, InspectError, PauseError,
    PodLimits, ProcessInfo, Runtime, RuntimeConfig, RuntimeError, StartError, Stats, Target,
};
pub use spec::{SpecContext, SpecError};
