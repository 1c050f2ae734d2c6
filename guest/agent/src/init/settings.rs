//! Kernel settings of a pod: what containers expect, and what neither they nor the host shall be able to use.

use std::{fs, io, path::Path};

/// A setting the kernel has and did not take.
#[derive(Debug, thiserror::Error)]
#[error("setting {name} to {value:?}")]
pub struct SettingError {
    name: &'static str,
    value: &'static str,
    source: io::Error,
}

/// In this order: the last one ends the loading of modules for good.
const SYSCTLS: &[(&str, &str)] = &[
    // The host reads the console. Kernel messages name processes, so from here on it gets none: at level 0 a panic
    // does not raise it either (console_verbose, kernel/printk/printk.c).
    ("kernel/printk", "0"),
    // A break on the serial line would give the host the kernel's debugging keys.
    ("kernel/sysrq", "0"),
    // Reset at once: the VMM ends, and whoever watches it knows.
    ("kernel/panic", "-1"),
    ("kernel/panic_on_oops", "1"),
    // A file in the container, if the container asks for core dumps; never a helper in the guest's root.
    ("kernel/core_pattern", "core"),
    ("fs/suid_dumpable", "0"),
    ("kernel/kptr_restrict", "2"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/kexec_load_disabled", "1"),
    ("kernel/yama/ptrace_scope", "1"),
    // Containers of a pod share its network and need no privilege for ports below 1024, nor for ping.
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
    // The network's word changes neither routes nor addresses.
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    ("net/ipv4/conf/all/accept_source_route", "0"),
    ("net/ipv6/conf/all/accept_redirects", "0"),
    ("net/ipv6/conf/default/accept_redirects", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("vm/max_map_count", "262144"),
    ("kernel/modules_disabled", "1"),
];

/// Pages that a processor keeps for itself when they are freed, as a part of all: by itself it keeps up to an eighth, which
/// nobody else can have.
const OWN_PAGES: (&str, &str) = ("vm/percpu_pagelist_high_fraction", "1024");
/// Memory that only those get who cannot wait for it, in KiB.
const LAST_RESERVE: &str = "vm/min_free_kbytes";
/// At least so much of it, and so large a part of all memory. The kernel takes the square root, which is much of a small pod;
/// what cannot wait here is one network card, and a card has some 200 KiB of buffers.
const RESERVE_KIB: u64 = 768;
const RESERVE_PART: u64 = 256;

/// Gives containers what the kernel would keep from them. It works without, so failures are nobody's business.
pub(super) fn spare_memory() {
    let sysctls = Path::new("/proc/sys");
    let (name, value) = OWN_PAGES;
    let _ = fs::write(sysctls.join(name), value);
    let path = sysctls.join(LAST_RESERVE);
    let now = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
    let total = crate::system::total_memory() / 1024;
    if let Some(less) = now.and_then(|now| reserve(now, total)) {
        let _ = fs::write(path, less.to_string());
    }
}

/// What to keep instead of `now`, if less will do.
fn reserve(now: u64, total_kib: u64) -> Option<u64> {
    let enough = (total_kib / RESERVE_PART).max(RESERVE_KIB);
    (enough < now).then_some(enough)
}

pub(super) fn apply() -> Result<(), SettingError> {
    for &(name, value) in SYSCTLS {
        match fs::write(Path::new("/proc/sys").join(name), value) {
            Ok(()) => {}
            // A kernel built without the feature has nothing to set.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(SettingError { name, value, source }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_pod_keeps_less_back_and_a_large_one_what_its_kernel_wants() {
        assert_eq!(reserve(680, 35_000), None);
        assert_eq!(reserve(1_956, 246_000), Some(960));
        assert_eq!(reserve(1_300, 110_000), Some(768));
        assert_eq!(reserve(4_006, 1_003_000), Some(3_917));
        assert_eq!(reserve(16_000, 16_000_000), None);
    }
}
