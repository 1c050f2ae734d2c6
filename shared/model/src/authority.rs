//! Who asks (caller, role), for what (operation), and when (phase).
//!
//! ```text
//! Booting --sandbox configured--> Ready --handover--> Owned --release--> Released
//!                                   \---------------destroy-------------/
//! ```
//! `Owned` is sticky: nothing but release or the end of the VM leaves it.

use std::{fmt, str::FromStr};

/// Where the pod is in its life. Moves only forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// From power-on until the host has configured the sandbox.
    Booting,
    /// The sandbox is configured; the owner has not taken over yet.
    Ready,
    /// The owner has taken over. The host can no longer create or touch containers.
    Owned,
    /// Teardown: keys are gone, nothing new starts.
    Released,
}

impl Phase {
    pub const ALL: [Self; 4] = [Self::Booting, Self::Ready, Self::Owned, Self::Released];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Booting => "booting",
            Self::Ready => "ready",
            Self::Owned => "owned",
            Self::Released => "released",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an owner's client certificate lets it do; checked in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, handover and release included.
    Admin,
    /// Run, exec, copy, and all that a viewer may.
    Operator,
    /// Read: containers, logs, stats.
    Viewer,
    /// Read the audit of host calls.
    Auditor,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Admin, Self::Operator, Self::Viewer, Self::Auditor];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Auditor => "auditor",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A role that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role; roles are admin, operator, viewer, auditor")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| UnknownRole(text.into()))
    }
}

/// Who is asking. Decided by the endpoint a request came in by and, for owners, by the client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Caller {
    Host,
    Owner(Role),
}

impl Caller {
    pub const ALL: [Self; 5] = [
        Self::Host,
        Self::Owner(Role::Admin),
        Self::Owner(Role::Operator),
        Self::Owner(Role::Viewer),
        Self::Owner(Role::Auditor),
    ];
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Owner(role) => write!(f, "owner:{role}"),
        }
    }
}

macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),* $(,)?) => {
        /// Everything anyone can ask a pod to do. What the host may never ask is not here for the host's sake:
        /// it is refused by absence, before decoding.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum OperationKind {
            $($(#[$doc])* $variant),*
        }

        impl OperationKind {
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),*
                }
            }
        }
    };
}

operations! {
    /// Liveness and API version.
    Health = "health",
    /// Configure the sandbox once: host name, DNS servers.
    CreateSandbox = "create-sandbox",
    /// End the pod.
    DestroySandbox = "destroy-sandbox",
    /// Interfaces, routes, neighbours: write.
    ConfigureNetwork = "configure-network",
    /// Interfaces and routes: read what the host itself supplied.
    ListNetwork = "list-network",
    /// What kind of guest this is, reduced to constants.
    GuestDetails = "guest-details",
    /// Pod metrics, quantised and rate-limited for the host.
    Metrics = "metrics",
    /// CPU and memory that the host has plugged in.
    OnlineResources = "online-resources",
    /// Wait for out-of-memory events.
    OomEvents = "oom-events",
    /// The measured pause container.
    Pause = "pause-container",
    /// The host's wish to create or start a container that the owner has declared.
    Trigger = "trigger-container",
    /// The host's wish to stop or clean up a container.
    RequestStop = "request-stop",
    /// Exit class of a container, not reaping.
    WaitSanitised = "wait-sanitised",
    /// Pod-wide counters, quantised.
    StatsSanitised = "stats-sanitised",
    /// Host stdio, resize and close calls: answered as idle, never touching a stream.
    StdioIdle = "stdio-idle",
    /// Fresh evidence for this session.
    Attest = "attest",
    /// Pod status: phase, host name, images, counts.
    InspectPod = "inspect-pod",
    /// The one-way step from `Ready` to `Owned`.
    Handover = "handover",
    /// Teardown by the owner.
    Release = "release",
    /// Declare the containers the pod may run.
    Apply = "apply",
    CreateContainer = "create",
    StartContainer = "start",
    StopContainer = "stop",
    KillContainer = "kill",
    RemoveContainer = "remove",
    PauseContainer = "pause",
    UnpauseContainer = "unpause",
    WaitContainer = "wait",
    ListContainers = "list",
    InspectContainer = "inspect",
    Stats = "stats",
    Top = "top",
    Logs = "logs",
    Attach = "attach",
    Exec = "exec",
    CopyIn = "copy-in",
    CopyOut = "copy-out",
    PortForward = "port-forward",
    Events = "events",
    PushImage = "push-image",
    PullImage = "pull-image",
    ListImages = "list-images",
    RemoveImage = "remove-image",
    /// Read every host call and its verdict.
    ReadAudit = "read-audit",
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
