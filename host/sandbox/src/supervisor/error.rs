//! Why a pod could not be started, how the command that asked for it ends, and what to do next.

use std::{fmt, io, net::SocketAddrV4, path::PathBuf};

use postern_launch::{DiskFileError, ImageError, InitDataError, SpecError};

use super::tee::TeeError;
use crate::{
    client::{ConnectError, Status},
    exec::{Ended, SpawnError},
    outcome::Outcome,
    qmp::QmpError,
    state::StateError,
    tools::ToolError,
};

/// Why a pod could not be started. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("a program is missing")]
    Tool(#[from] ToolError),
    #[error("this host has no vhost-vsock that this user may use")]
    NoKernelVsock,
    #[error("cannot find {}", path.display())]
    Path { path: PathBuf, source: io::Error },
    #[error("the image cannot be used")]
    Image(#[from] ImageError),
    #[error("cannot read init data from {}", path.display())]
    InitDataRead { path: PathBuf, source: io::Error },
    #[error("{} is not init data", path.display())]
    InitData { path: PathBuf, source: InitDataError },
    #[error("cannot read image disk {}", path.display())]
    DiskRead { path: PathBuf, source: io::Error },
    #[error("{} is not an image disk", path.display())]
    Disk { path: PathBuf, source: DiskFileError },
    #[error("{} holds an image that another of the pod's disks holds too", path.display())]
    DiskTwice { path: PathBuf },
    #[error("the launch cannot be described")]
    Spec(#[from] SpecError),
    #[error("{listen} is in use")]
    PortInUse { listen: SocketAddrV4 },
    #[error("cannot listen on {listen}")]
    Listen { listen: SocketAddrV4, source: io::Error },
    #[error("the pod's state cannot be kept")]
    State(#[from] StateError),
    #[error("the kernel does not answer for this process")]
    Identity(#[source] io::Error),
    #[error("a shell in {} cannot listen for its claim", path.display())]
    ClaimSocket { path: PathBuf, source: io::Error },
    #[error("the guest's kernel gave up before it could say why")]
    GuestReset,
    #[error("the guest's kernel panicked while booting: {why}")]
    GuestPanicked { why: String, out_of_memory: bool, source: LastWords },
    #[error("the guest gave up: {why}")]
    GuestGaveUp { why: String },
    #[error("a program does not start")]
    Spawn(#[from] SpawnError),
    #[error("{program} ended unexpectedly: {ended}")]
    Ended { program: &'static str, ended: Ended, source: LastWords },
    #[error("{program} crashed")]
    Crashed { program: &'static str, source: LastWords },
    #[error("{program} did not come up within {seconds} s")]
    Stuck { program: &'static str, seconds: u64 },
    #[error("QEMU cannot be controlled")]
    Qmp(#[from] QmpError),
    #[error("QEMU does not say on which port it listens")]
    NoPort,
    #[error("the simulated TEE platform failed")]
    Tee(#[from] TeeError),
    #[error("the guest did not answer within {seconds} s")]
    GuestSilent { seconds: u64, source: LastWords },
    #[error("the guest's host endpoint cannot be reached")]
    Connect(#[from] ConnectError),
    #[error("the guest refused {method}")]
    GuestRefused { method: &'static str, source: Status },
    #[error("interrupted; everything was taken down again")]
    Interrupted,
    #[error("nobody waits for this start any more; everything was taken down again")]
    Abandoned(#[source] io::Error),
}

impl StartError {
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Tool(_) | Self::NoKernelVsock => Outcome::MissingProgram,
            Self::Path { .. } | Self::Image(_) => Outcome::BadImage,
            Self::InitDataRead { .. } | Self::InitData { .. } => Outcome::BadInitData,
            Self::DiskRead { .. } | Self::Disk { .. } => Outcome::BadDisk,
            Self::DiskTwice { .. } | Self::Spec(_) => Outcome::Usage,
            Self::PortInUse { .. } | Self::Listen { .. } => Outcome::PortInUse,
            Self::State(error) => error.outcome(),
            Self::Identity(_) | Self::ClaimSocket { .. } => Outcome::Internal,
            Self::GuestPanicked { .. } | Self::GuestReset => Outcome::GuestPanicked,
            Self::GuestGaveUp { .. } => Outcome::GuestGaveUp,
            Self::Spawn(_)
            | Self::Ended { .. }
            | Self::Crashed { .. }
            | Self::Stuck { .. }
            | Self::Qmp(_)
            | Self::NoPort => Outcome::VmmEnded,
            Self::Tee(_) => Outcome::Tee,
            Self::GuestSilent { .. } | Self::Connect(_) => Outcome::GuestSilent,
            Self::GuestRefused { .. } => Outcome::GuestRefused,
            Self::Interrupted | Self::Abandoned(_) => Outcome::Interrupted,
        }
    }

    /// What to do next, where there is something.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Tool(error) => error.hint(),
            Self::NoKernelVsock => {
                "load the module vhost_vsock, or use `postern-host start --vsock vhost-user`".into()
            }
            Self::Path { .. } | Self::Image(_) => "build one with: postern-image build --out DIR".into(),
            Self::InitDataRead { .. } | Self::InitData { .. } => {
                "use the file that `postern pod create` made, unchanged".into()
            }
            Self::DiskRead { .. } | Self::Disk { .. } => {
                "use a file that `postern image pack` made, unchanged".into()
            }
            Self::DiskTwice { .. } => "name each disk once".into(),
            Self::Spec(SpecError::Disks(_)) => "leave some --disk out; push those images".into(),
            Self::Spec(SpecError::TscFrequency) => {
                "give the figure that `postern-host probe` prints with --tsc-khz".into()
            }
            // These say themselves what to do.
            Self::Spec(SpecError::MicrovmOnly | SpecError::Path(_)) => return None,
            Self::PortInUse { listen } => {
                format!("listen elsewhere, or with --listen {}:0 on any free port", listen.ip())
            }
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrNotAvailable => {
                "listen on an address of this machine".into()
            }
            Self::Listen { .. } => "listen on another address or port".into(),
            Self::State(error) => return error.hint(),
            Self::Ended { .. } | Self::Crashed { .. } | Self::Stuck { .. } | Self::Qmp(_) => {
                "see what `postern-host probe` says about this host".into()
            }
            Self::GuestSilent { .. } | Self::Connect(_) => {
                "give it more memory with --memory, or more time with `postern-host start --deadline`".into()
            }
            Self::GuestPanicked { out_of_memory: true, .. } => {
                "give the pod more memory with --memory".into()
            }
            Self::GuestReset => {
                "a kernel that has no room to unpack itself has no console yet: give the pod more memory with --memory"
                    .into()
            }
            Self::GuestRefused { .. } => "the image and this program may be of different versions".into(),
            Self::Identity(_)
            | Self::ClaimSocket { .. }
            | Self::GuestPanicked { .. }
            | Self::GuestGaveUp { .. }
            | Self::Spawn(_)
            | Self::NoPort
            | Self::Tee(_)
            | Self::Interrupted
            | Self::Abandoned(_) => return None,
        })
    }
}

impl StateError {
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Unknown(_) => Outcome::UnknownPod,
            Self::Exists { .. } => Outcome::PodExists,
            Self::Running(_) => Outcome::PodRunning,
            Self::Io { .. } if self.is_out_of_space() => Outcome::NoSpace,
            Self::NoPlace | Self::Io { .. } | Self::Malformed { .. } | Self::Locked { .. } => Outcome::State,
        }
    }

    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoPlace => "set POSTERN_HOST_STATE to a directory of yours".into(),
            Self::Io { .. } if self.is_out_of_space() => {
                "free some space, or set POSTERN_HOST_STATE to a place that has some".into()
            }
            Self::Io { .. } => "set POSTERN_HOST_STATE to a directory that this user can write".into(),
            Self::Malformed { .. } => "remove the pod with: postern-host rm NAME".into(),
            Self::Locked { .. } => "wait for the other command to end, and try again".into(),
            Self::Unknown(_) => "see which there are with: postern-host ls".into(),
            Self::Exists { name, status } if ["ended", "crashed"].contains(status) => {
                format!("remove what is left of it with: postern-host rm {name}")
            }
            Self::Exists { .. } => "choose another name".into(),
            Self::Running(name) => {
                format!(
                    "end it first with: postern-host stop {name} (or both with: postern-host rm --stop {name})"
                )
            }
        })
    }
}

/// The last lines of what a program or a console wrote.
#[derive(Debug)]
pub struct LastWords {
    pub of: &'static str,
    pub lines: Vec<String>,
}

impl fmt::Display for LastWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lines.as_slice() {
            [] => write!(f, "{} said nothing", self.of),
            lines => write!(f, "{} said last: {}", self.of, lines.join(" | ")),
        }
    }
}

impl std::error::Error for LastWords {}
