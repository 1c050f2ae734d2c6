//! What must hold whatever the table says: the properties that make a split of the interface.

use postern_model::{Caller, OperationKind, Phase, Role};
use postern_policy::{Declared, Permit, Reason, decide};
use proptest::prelude::*;

/// What begins something new in the pod: a process, a container, an image, a connection, an authority.
const STARTING: &[OperationKind] = &[
    OperationKind::CreateSandbox,
    OperationKind::Pause,
    OperationKind::Trigger,
    OperationKind::Handover,
    OperationKind::Apply,
    OperationKind::CreateContainer,
    OperationKind::StartContainer,
    OperationKind::UnpauseContainer,
    OperationKind::Attach,
    OperationKind::Exec,
    OperationKind::CopyIn,
    OperationKind::PortForward,
    OperationKind::PushImage,
    OperationKind::PullImage,
];

/// What is in the workload: reading it or changing it.
const TOUCHING: &[OperationKind] = &[
    OperationKind::CreateContainer,
    OperationKind::StartContainer,
    OperationKind::StopContainer,
    OperationKind::KillContainer,
    OperationKind::RemoveContainer,
    OperationKind::PauseContainer,
    OperationKind::UnpauseContainer,
    OperationKind::WaitContainer,
    OperationKind::ListContainers,
    OperationKind::InspectContainer,
    OperationKind::Stats,
    OperationKind::Top,
    OperationKind::Logs,
    OperationKind::Attach,
    OperationKind::Exec,
    OperationKind::CopyIn,
    OperationKind::CopyOut,
    OperationKind::PortForward,
    OperationKind::Events,
    OperationKind::PushImage,
    OperationKind::PullImage,
    OperationKind::ListImages,
    OperationKind::RemoveImage,
    OperationKind::Apply,
    OperationKind::Handover,
    OperationKind::Release,
    OperationKind::ReadAudit,
    OperationKind::Attest,
];

fn caller() -> impl Strategy<Value = Caller> {
    prop::sample::select(Caller::ALL.to_vec())
}

fn operation() -> impl Strategy<Value = OperationKind> {
    prop::sample::select(OperationKind::ALL.to_vec())
}

fn phase() -> impl Strategy<Value = Phase> {
    prop::sample::select(Phase::ALL.to_vec())
}

fn declared() -> impl Strategy<Value = Declared> {
    prop::sample::select(vec![Declared::Yes, Declared::No])
}

fn granted(caller: Caller, operation: OperationKind, phase: Phase, declared: Declared) -> bool {
    decide(caller, operation, phase, declared).is_ok()
}

proptest! {
    #[test]
    fn a_permit_names_what_was_asked(c in caller(), o in operation(), p in phase(), d in declared()) {
        match decide(c, o, p, d) {
            Ok(permit) => {
                let named = |permit: &Permit| (permit.caller(), permit.operation(), permit.phase());
                prop_assert_eq!(named(&permit), (c, o, p));
            }
            Err(denial) => {
                prop_assert_eq!((denial.caller(), denial.operation(), denial.phase()), (c, o, p));
                prop_assert!(!denial.to_string().is_empty());
            }
        }
    }

    #[test]
    fn the_host_never_touches_the_workload(
        o in prop::sample::select(TOUCHING.to_vec()), p in phase(), d in declared()
    ) {
        let denial = decide(Caller::Host, o, p, d).unwrap_err();
        prop_assert_eq!(denial.reason(), Reason::HostNever);
    }

    #[test]
    fn released_starts_nothing(c in caller(), o in prop::sample::select(STARTING.to_vec()), d in declared()) {
        prop_assert!(!granted(c, o, Phase::Released, d));
    }

    #[test]
    fn owned_freezes_what_the_host_set_up(d in declared()) {
        for o in [OperationKind::CreateSandbox, OperationKind::ConfigureNetwork, OperationKind::Pause] {
            prop_assert!(!granted(Caller::Host, o, Phase::Owned, d));
        }
    }

    #[test]
    fn no_workload_before_handover(c in caller(), o in prop::sample::select(STARTING.to_vec()), d in declared()) {
        let set_up = matches!(o, OperationKind::CreateSandbox | OperationKind::Pause | OperationKind::Handover);
        for p in [Phase::Booting, Phase::Ready] {
            prop_assert!(set_up || !granted(c, o, p, d));
        }
    }

    #[test]
    fn a_declaration_matters_to_triggers_alone(c in caller(), o in operation(), p in phase()) {
        let changes = granted(c, o, p, Declared::Yes) != granted(c, o, p, Declared::No);
        prop_assert_eq!(changes, (c, o, p) == (Caller::Host, OperationKind::Trigger, Phase::Owned));
    }

    #[test]
    fn an_admin_may_what_any_role_may(o in operation(), p in phase(), d in declared()) {
        for role in Role::ALL {
            if granted(Caller::Owner(role), o, p, d) {
                prop_assert!(granted(Caller::Owner(Role::Admin), o, p, d));
            }
        }
        if granted(Caller::Owner(Role::Viewer), o, p, d) {
            prop_assert!(granted(Caller::Owner(Role::Operator), o, p, d));
        }
    }
}

#[test]
fn every_operation_is_somebodys() {
    for &operation in OperationKind::ALL {
        let used = Caller::ALL
            .into_iter()
            .any(|c| Phase::ALL.into_iter().any(|p| granted(c, operation, p, Declared::Yes)));
        assert!(used, "{operation} is granted to nobody in any phase");
    }
}
