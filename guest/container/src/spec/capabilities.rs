//! Capabilities: what a container has by default, what an owner may add, and their numbers.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder};

use super::SpecError;

/// Capabilities in the order of their numbers (linux/capability.h).
const BY_NUMBER: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// What docker gives by default.
const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// What an owner may add: power over the container and over the network that the pod's containers share, not over
/// the guest. The rest (mounting, modules, raw memory, clocks, bpf, file handles) reaches the agent or the platform's
/// device, and with them what a container must never have: the guest's keys and evidence in its name.
const GRANTABLE: [Capability; 11] = [
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::Lease,
    Capability::LinuxImmutable,
    Capability::NetAdmin,
    Capability::NetBroadcast,
    Capability::SysNice,
    Capability::SysPacct,
    Capability::SysPtrace,
    Capability::SysResource,
    Capability::SysTtyConfig,
];

/// The default set with `add` and without `drop`. Names are as docker takes them: `NET_ADMIN`, `CAP_NET_ADMIN`, any
/// case; `ALL` in `drop` drops what `add` does not name.
pub(super) fn choose(add: &[String], drop: &[String]) -> Result<LinuxCapabilities, SpecError> {
    let all = drop.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let mut chosen: Capabilities = if all { Capabilities::new() } else { DEFAULT.into_iter().collect() };
    for name in drop.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
        chosen.remove(&parse(name)?);
    }
    for name in add {
        let capability = parse(name)?;
        if !DEFAULT.contains(&capability) && !GRANTABLE.contains(&capability) {
            return Err(SpecError::CapabilityNotGrantable(name.clone()));
        }
        chosen.insert(capability);
    }
    LinuxCapabilitiesBuilder::default()
        .bounding(chosen.clone())
        .effective(chosen.clone())
        .permitted(chosen)
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()
        .map_err(SpecError::Build)
}

fn parse(name: &str) -> Result<Capability, SpecError> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let known = BY_NUMBER.into_iter().find(|capability| capability.to_string() == bare);
    known.ok_or_else(|| SpecError::UnknownCapability(name.into()))
}

/// The set as the kernel has it: bit n for capability n.
pub(crate) fn bits(capabilities: Option<&Capabilities>) -> u64 {
    let has = |capability: &Capability| capabilities.is_some_and(|set| set.contains(capability));
    BY_NUMBER
        .iter()
        .enumerate()
        .filter(|(_, capability)| has(capability))
        .map(|(number, _)| 1 << number)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(add: &[&str], drop: &[&str]) -> Result<u64, SpecError> {
        let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        choose(&strings(add), &strings(drop)).map(|sets| bits(sets.bounding().as_ref()))
    }

    #[test]
    fn numbers_are_the_kernels() {
        for (capability, number) in
            [(Capability::SysAdmin, 21), (Capability::Setfcap, 31), (Capability::Bpf, 39)]
        {
            assert_eq!(bits(Some(&[capability].into())), 1 << number);
        }
    }

    #[test]
    fn default_is_dockers() {
        assert_eq!(chosen(&[], &[]).unwrap(), 0x0000_0000_a804_25fb);
    }

    #[test]
    fn adds_and_drops() {
        assert_eq!(chosen(&["net_admin"], &["ALL"]).unwrap(), 1 << 12);
        assert_eq!(chosen(&[], &["all"]).unwrap(), 0);
        assert_eq!(chosen(&["CAP_CHOWN"], &["cap_chown", "KILL"]).unwrap(), 0xa804_25fb & !(1 << 5));
    }

    #[test]
    fn refuses_what_reaches_the_guest() {
        for name in
            ["SYS_ADMIN", "CAP_SYS_MODULE", "sys_rawio", "BPF", "DAC_READ_SEARCH", "SYS_BOOT", "ALL", "", "X"]
        {
            assert!(chosen(&[name], &[]).is_err(), "{name}");
        }
    }
}
