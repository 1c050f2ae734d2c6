//! Every method of Kata's agent protocol by name, and what it is to this guest.
//!
//! The list is closed and compiled in. A method that is not here does not exist; one that is `Never` is refused in every
//! phase before its body is read; one that is `Served` still has to pass the policy.

use postern_model::OperationKind;

/// A method that the guest can carry out in some form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Check,
    Version,
    CreateSandbox,
    DestroySandbox,
    OnlineCpuMem,
    GetGuestDetails,
    GetMetrics,
    GetOomEvent,
    UpdateInterface,
    UpdateRoutes,
    AddArpNeighbors,
    ListInterfaces,
    ListRoutes,
    CreateContainer,
    StartContainer,
    RemoveContainer,
    SignalProcess,
    WaitProcess,
    StatsContainer,
    ReadStdout,
    ReadStderr,
    CloseStdin,
    TtyWinResize,
}

impl Method {
    /// The operations of the policy that this method may come to. Refusing all of them refuses the method unread.
    pub(super) fn operations(self) -> &'static [OperationKind] {
        use OperationKind as Op;
        match self {
            Self::Check | Self::Version => &[Op::Health],
            Self::CreateSandbox => &[Op::CreateSandbox],
            Self::DestroySandbox => &[Op::DestroySandbox],
            Self::OnlineCpuMem => &[Op::OnlineResources],
            Self::GetGuestDetails => &[Op::GuestDetails],
            Self::GetMetrics => &[Op::Metrics],
            Self::GetOomEvent => &[Op::OomEvents],
            Self::UpdateInterface | Self::UpdateRoutes | Self::AddArpNeighbors => &[Op::ConfigureNetwork],
            Self::ListInterfaces | Self::ListRoutes => &[Op::ListNetwork],
            Self::CreateContainer | Self::StartContainer => &[Op::Pause, Op::Trigger],
            Self::RemoveContainer | Self::SignalProcess => &[Op::RequestStop],
            Self::WaitProcess => &[Op::WaitSanitised],
            Self::StatsContainer => &[Op::StatsSanitised],
            Self::ReadStdout | Self::ReadStderr | Self::CloseStdin | Self::TtyWinResize => &[Op::StdioIdle],
        }
    }

    /// Whether a request of more than one buffer is worth keeping. Only OCI specifications grow that large.
    fn may_be_large(self) -> bool {
        self == Self::CreateContainer
    }
}

/// What a method is to this guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The policy is asked.
    Served(Method),
    /// The host may not ask for this, whatever the phase.
    Never,
}

/// One method of the protocol.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) service: &'static str,
    pub(super) name: &'static str,
    pub(super) class: Class,
}

/// What the table says about a name.
#[derive(Debug)]
pub(super) enum Lookup {
    Known(&'static Entry),
    UnknownMethod,
    UnknownService,
}

pub(super) const AGENT: &str = "grpc.AgentService";
pub(super) const HEALTH: &str = "grpc.Health";

const fn served(service: &'static str, name: &'static str, method: Method) -> Entry {
    Entry { service, name, class: Class::Served(method) }
}

const fn never(name: &'static str) -> Entry {
    Entry { service: AGENT, name, class: Class::Never }
}

pub(super) const TABLE: &[Entry] = &[
    served(HEALTH, "Check", Method::Check),
    served(HEALTH, "Version", Method::Version),
    // sandbox
    served(AGENT, "CreateSandbox", Method::CreateSandbox),
    served(AGENT, "DestroySandbox", Method::DestroySandbox),
    served(AGENT, "OnlineCPUMem", Method::OnlineCpuMem),
    served(AGENT, "GetGuestDetails", Method::GetGuestDetails),
    served(AGENT, "GetMetrics", Method::GetMetrics),
    served(AGENT, "GetOOMEvent", Method::GetOomEvent),
    // network
    served(AGENT, "UpdateInterface", Method::UpdateInterface),
    served(AGENT, "UpdateRoutes", Method::UpdateRoutes),
    served(AGENT, "AddARPNeighbors", Method::AddArpNeighbors),
    served(AGENT, "ListInterfaces", Method::ListInterfaces),
    served(AGENT, "ListRoutes", Method::ListRoutes),
    // containers: the measured pause container, triggers for what the owner has declared, wishes
    served(AGENT, "CreateContainer", Method::CreateContainer),
    served(AGENT, "StartContainer", Method::StartContainer),
    served(AGENT, "RemoveContainer", Method::RemoveContainer),
    served(AGENT, "SignalProcess", Method::SignalProcess),
    served(AGENT, "WaitProcess", Method::WaitProcess),
    served(AGENT, "StatsContainer", Method::StatsContainer),
    // stdio: looks idle, touches nothing
    served(AGENT, "ReadStdout", Method::ReadStdout),
    served(AGENT, "ReadStderr", Method::ReadStderr),
    served(AGENT, "CloseStdin", Method::CloseStdin),
    served(AGENT, "TtyWinResize", Method::TtyWinResize),
    // runs or changes what is the owner's
    never("ExecProcess"),
    never("WriteStdin"),
    never("UpdateContainer"),
    never("PauseContainer"),
    never("ResumeContainer"),
    never("CopyFile"),
    never("SetPolicy"),
    // reads what is the owner's
    never("GetDiagnosticData"),
    never("GetVolumeStats"),
    never("GetIPTables"),
    // changes the guest under its feet: file systems, packet filter, swap, memory, entropy, time
    never("UpdateEphemeralMounts"),
    never("RemoveStaleVirtiofsShareMounts"),
    never("ResizeVolume"),
    never("SetIPTables"),
    never("AddSwap"),
    never("AddSwapPath"),
    never("MemHotplugByProbe"),
    never("MemAgentMemcgSet"),
    never("MemAgentCompactSet"),
    never("ReseedRandomDev"),
    never("SetGuestDateTime"),
];

/// Looks a name up, case and all.
pub(super) fn look_up(service: &str, method: &str) -> Lookup {
    if service != AGENT && service != HEALTH {
        return Lookup::UnknownService;
    }
    TABLE
        .iter()
        .find(|entry| entry.service == service && entry.name == method)
        .map_or(Lookup::UnknownMethod, Lookup::Known)
}

/// Whether a large request of this name is read whole. All others are read past, so that they cost no memory.
pub(super) fn may_be_large(service: &str, method: &str) -> bool {
    match look_up(service, method) {
        Lookup::Known(Entry { class: Class::Served(method), .. }) => method.may_be_large(),
        Lookup::Known(Entry { class: Class::Never, .. }) | Lookup::UnknownMethod | Lookup::UnknownService => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The methods of Kata's agent.proto and health.proto, as of release 4.1.
    const KATA: &str = "
        Check Version
        CreateContainer StartContainer RemoveContainer ExecProcess SignalProcess WaitProcess UpdateContainer
        UpdateEphemeralMounts StatsContainer PauseContainer ResumeContainer RemoveStaleVirtiofsShareMounts WriteStdin
        ReadStdout ReadStderr CloseStdin TtyWinResize UpdateInterface UpdateRoutes ListInterfaces ListRoutes
        AddARPNeighbors GetIPTables SetIPTables GetMetrics MemAgentMemcgSet MemAgentCompactSet CreateSandbox
        DestroySandbox OnlineCPUMem ReseedRandomDev GetGuestDetails MemHotplugByProbe SetGuestDateTime CopyFile
        GetOOMEvent AddSwap AddSwapPath GetVolumeStats ResizeVolume SetPolicy GetDiagnosticData";

    #[test]
    fn every_method_of_the_protocol_is_classified_once() {
        let ours: Vec<_> = TABLE.iter().map(|entry| entry.name).collect();
        assert_eq!(ours.len(), 44);
        assert_eq!(BTreeSet::from_iter(ours), KATA.split_whitespace().collect());
    }

    #[test]
    fn names_are_exact() {
        assert!(matches!(look_up(AGENT, "ExecProcess"), Lookup::Known(Entry { class: Class::Never, .. })));
        for (service, method) in [
            (AGENT, "execprocess"),
            (AGENT, "ExecProcess "),
            (AGENT, ""),
            (AGENT, "Check"),
            (HEALTH, "CreateContainer"),
            (AGENT, "Handover"),
        ] {
            assert!(matches!(look_up(service, method), Lookup::UnknownMethod), "{service}/{method}");
        }
        for service in ["", "grpc.agentservice", "grpc.AgentService/", "postern.v1.Pod", "grpc.Image"] {
            assert!(matches!(look_up(service, "Check"), Lookup::UnknownService), "{service}");
        }
    }

    #[test]
    fn only_specifications_may_be_large() {
        let large: Vec<_> = TABLE
            .iter()
            .filter(|entry| may_be_large(entry.service, entry.name))
            .map(|entry| entry.name)
            .collect();
        assert_eq!(large, ["CreateContainer"]);
    }
}
