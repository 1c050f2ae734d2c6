//! Who may do what, when: a pure function and its table.
//!
//! [`decide`] looks at who asks, for what and in which phase, and returns a [`Permit`] or a [`Denial`]. Nothing else can
//! make a `Permit`, and the pod accepts nothing without one. The table is in `rules.rs`; what it amounts to is written
//! out in `golden/matrix.txt`, which a test compares, so that a change of authority shows up in review.

#![forbid(unsafe_code)]

mod denial;
mod rules;

use postern_model::{Caller, OperationKind, Phase};

pub use crate::denial::{Denial, Reason};
use crate::rules::Rule;

/// Whether the owner has declared the container that a host's trigger names, and lets the host start it.
///
/// Only [`OperationKind::Trigger`] looks at it; for everything else it changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Declared {
    Yes,
    No,
}

/// Proof that [`decide`] said yes to one operation. Neither cloned nor built elsewhere: one permit, one act.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit stands for one act; dropping it means the act did not happen"]
pub struct Permit {
    caller: Caller,
    operation: OperationKind,
    phase: Phase,
}

impl Permit {
    pub fn caller(&self) -> Caller {
        self.caller
    }

    pub fn operation(&self) -> OperationKind {
        self.operation
    }

    /// The phase the decision was made in. Whoever acts compares it with the phase it acts in.
    pub fn phase(&self) -> Phase {
        self.phase
    }
}

/// Says whether `caller` may do `operation` in `phase`.
///
/// # Errors
/// A [`Denial`] that names the first thing in the way: the side the caller is on, then its role, then the phase, then
/// the missing declaration.
pub fn decide(
    caller: Caller,
    operation: OperationKind,
    phase: Phase,
    declared: Declared,
) -> Result<Permit, Denial> {
    let rule = rules::rule(operation);
    match refusal(&rule, caller, phase, declared) {
        None => Ok(Permit { caller, operation, phase }),
        Some(reason) => Err(Denial::new(caller, operation, phase, reason)),
    }
}

fn refusal(rule: &Rule, caller: Caller, phase: Phase, declared: Declared) -> Option<Reason> {
    let phases = match (caller, rule) {
        (Caller::Host, Rule::Host { phases } | Rule::HostDeclared { phases } | Rule::Anyone { phases }) => {
            phases
        }
        (Caller::Host, Rule::Owner { .. }) => return Some(Reason::HostNever),
        (Caller::Owner(_), Rule::Host { .. } | Rule::HostDeclared { .. }) => return Some(Reason::OwnerNever),
        (Caller::Owner(_), Rule::Anyone { phases }) => phases,
        (Caller::Owner(role), Rule::Owner { roles, phases }) => {
            if !roles.contains(&role) {
                return Some(Reason::Role { allowed: roles });
            }
            phases
        }
    };
    if !phases.contains(&phase) {
        return Some(Reason::Phase { allowed: phases });
    }
    match (rule, declared) {
        (Rule::HostDeclared { .. }, Declared::No) => Some(Reason::NotDeclared),
        (Rule::HostDeclared { .. }, Declared::Yes)
        | (Rule::Host { .. } | Rule::Owner { .. } | Rule::Anyone { .. }, Declared::Yes | Declared::No) => {
            None
        }
    }
}
