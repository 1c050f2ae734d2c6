//! The table: one rule per operation, every operation by name.
//!
//! A phase or role that is not listed is refused, so a new one starts with no authority. A new operation does not
//! compile until it has a rule here.

use postern_model::{OperationKind, Phase, Role};

/// Whose an operation is, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rule {
    /// The host's alone.
    Host { phases: &'static [Phase] },
    /// The host's alone, and only for a container that the owner has declared.
    HostDeclared { phases: &'static [Phase] },
    /// The owner's alone, for these roles.
    Owner { roles: &'static [Role], phases: &'static [Phase] },
    /// Harmless to anyone.
    Anyone { phases: &'static [Phase] },
}

const ALWAYS: &[Phase] = &Phase::ALL;
const BOOTING: &[Phase] = &[Phase::Booting];
/// What the host sets up before the owner takes over, and never after.
const BEFORE_OWNED: &[Phase] = &[Phase::Booting, Phase::Ready];
const READY: &[Phase] = &[Phase::Ready];
const OWNED: &[Phase] = &[Phase::Owned];
const LIVE: &[Phase] = &[Phase::Ready, Phase::Owned];
const BEFORE_RELEASE: &[Phase] = &[Phase::Booting, Phase::Ready, Phase::Owned];
const SINCE_READY: &[Phase] = &[Phase::Ready, Phase::Owned, Phase::Released];

const ADMIN: &[Role] = &[Role::Admin];
const OPERATE: &[Role] = &[Role::Admin, Role::Operator];
const VIEW: &[Role] = &[Role::Admin, Role::Operator, Role::Viewer];
const AUDIT: &[Role] = &[Role::Admin, Role::Auditor];
const EVERY_ROLE: &[Role] = &Role::ALL;

pub(crate) fn rule(operation: OperationKind) -> Rule {
    use OperationKind as Op;
    match operation {
        Op::Health => Rule::Anyone { phases: ALWAYS },

        // The host lends and takes back. A second CreateSandbox finds the pod past `Booting` and has no effect.
        Op::CreateSandbox => Rule::Host { phases: BOOTING },
        Op::DestroySandbox => Rule::Host { phases: ALWAYS },
        Op::ConfigureNetwork => Rule::Host { phases: BEFORE_OWNED },
        Op::ListNetwork | Op::GuestDetails | Op::Metrics => Rule::Host { phases: ALWAYS },
        Op::OnlineResources => Rule::Host { phases: BEFORE_RELEASE },
        Op::OomEvents | Op::StatsSanitised => Rule::Host { phases: LIVE },
        Op::Pause => Rule::Host { phases: READY },
        Op::Trigger => Rule::HostDeclared { phases: OWNED },
        Op::RequestStop | Op::WaitSanitised | Op::StdioIdle => Rule::Host { phases: SINCE_READY },

        // Evidence needs the keys, which are gone in `Released`.
        Op::Attest => Rule::Owner { roles: EVERY_ROLE, phases: BEFORE_RELEASE },
        Op::InspectPod => Rule::Owner { roles: EVERY_ROLE, phases: ALWAYS },
        // Both may be repeated without effect, so that a client that lost its answer can ask again.
        Op::Handover => Rule::Owner { roles: ADMIN, phases: LIVE },
        Op::Release => Rule::Owner { roles: ADMIN, phases: SINCE_READY },

        // Whatever changes a container, starts a process in it or puts something into the pod: only in `Owned`.
        Op::Apply
        | Op::CreateContainer
        | Op::StartContainer
        | Op::StopContainer
        | Op::KillContainer
        | Op::RemoveContainer
        | Op::PauseContainer
        | Op::UnpauseContainer
        | Op::Attach
        | Op::Exec
        | Op::CopyIn
        | Op::CopyOut
        | Op::PortForward
        | Op::PushImage
        | Op::PullImage
        | Op::RemoveImage => Rule::Owner { roles: OPERATE, phases: OWNED },

        // Reading stays possible to the end, so that an owner sees how it ended.
        Op::WaitContainer
        | Op::ListContainers
        | Op::InspectContainer
        | Op::Stats
        | Op::Top
        | Op::Logs
        | Op::ListImages => Rule::Owner { roles: VIEW, phases: SINCE_READY },
        Op::Events => Rule::Owner { roles: VIEW, phases: ALWAYS },
        Op::ReadAudit => Rule::Owner { roles: AUDIT, phases: ALWAYS },
    }
}
