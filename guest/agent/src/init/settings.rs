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
    // Freed pages go back to where anybody can have them, instead of waiting, up to an eighth of a small pod, on a list of
    // the processor that freed them.
    ("vm/percpu_pagelist_high_fraction", "128"),
    ("kernel/modules_disabled", "1"),
];

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
