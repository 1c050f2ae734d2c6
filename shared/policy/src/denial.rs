//! Why something was refused, in words that tell an owner what to do. A host gets constant texts instead.

use std::{error, fmt};

use postern_model::{Caller, OperationKind, Phase, Role};

/// What stood in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The caller's certificate has another role.
    Role { allowed: &'static [Role] },
    /// Not now.
    Phase { allowed: &'static [Phase] },
    /// The host may not ask for this in any phase.
    HostNever,
    /// Only the host has a use for this.
    OwnerNever,
    /// The owner has not declared this container as one that the host may start.
    NotDeclared,
}

/// The answer no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Denial {
    caller: Caller,
    operation: OperationKind,
    phase: Phase,
    reason: Reason,
}

impl Denial {
    pub(crate) fn new(caller: Caller, operation: OperationKind, phase: Phase, reason: Reason) -> Self {
        Self { caller, operation, phase, reason }
    }

    pub fn caller(&self) -> Caller {
        self.caller
    }

    pub fn operation(&self) -> OperationKind {
        self.operation
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn reason(&self) -> Reason {
        self.reason
    }
}

impl error::Error for Denial {}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { caller, operation, phase, reason } = self;
        match reason {
            Reason::Role { allowed } => {
                write!(f, "{caller} may not {operation}; connect with a certificate of role ")?;
                list(f, allowed)
            }
            Reason::Phase { allowed } => {
                write!(f, "{operation} is not possible while the pod is {phase}; {}", advice(*phase, allowed))
            }
            Reason::HostNever => write!(f, "{operation} is the owner's alone; the host may never ask for it"),
            Reason::OwnerNever => {
                write!(f, "{operation} is the host's part; as the owner, use release to end the pod")
            }
            Reason::NotDeclared => f.write_str(
                "no container of this name is declared for the host to start; create or apply it with host_may_start",
            ),
        }
    }
}

fn advice(phase: Phase, allowed: &[Phase]) -> &'static str {
    match phase {
        Phase::Booting => "wait until the host has configured the sandbox",
        Phase::Ready if allowed.contains(&Phase::Owned) => "hand the pod over first",
        Phase::Ready => "it was possible only while the pod was booting",
        Phase::Owned => "it was possible only before handover",
        Phase::Released => "the pod is being torn down; create a new one",
    }
}

fn list(f: &mut fmt::Formatter<'_>, roles: &[Role]) -> fmt::Result {
    for (index, role) in roles.iter().enumerate() {
        if index > 0 {
            f.write_str(" or ")?;
        }
        write!(f, "{role}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Declared, decide};

    fn text(caller: Caller, operation: OperationKind, phase: Phase) -> String {
        decide(caller, operation, phase, Declared::No).unwrap_err().to_string()
    }

    #[test]
    fn tells_the_owner_what_to_do() {
        let owner = Caller::Owner;
        assert_eq!(
            text(owner(Role::Viewer), OperationKind::Exec, Phase::Owned),
            "owner:viewer may not exec; connect with a certificate of role admin or operator"
        );
        assert_eq!(
            text(owner(Role::Operator), OperationKind::Exec, Phase::Ready),
            "exec is not possible while the pod is ready; hand the pod over first"
        );
        assert_eq!(
            text(owner(Role::Admin), OperationKind::StartContainer, Phase::Released),
            "start is not possible while the pod is released; the pod is being torn down; create a new one"
        );
        assert!(text(owner(Role::Admin), OperationKind::Handover, Phase::Booting).contains("wait until"));
        assert!(text(Caller::Host, OperationKind::Exec, Phase::Owned).contains("never"));
        assert!(text(Caller::Host, OperationKind::Trigger, Phase::Owned).contains("host_may_start"));
    }
}
