//! Reading counters from control group files, of both versions.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::runtime::Stats;

/// v1 writes "no limit" as the largest number of whole pages; anything near it is none.
const LEGACY_NO_LIMIT: u64 = 1 << 62;

pub(super) fn unified(directory: &Path) -> io::Result<Stats> {
    let text = |file: &str| fs::read_to_string(directory.join(file));
    // A controller may be absent from a kernel; its counters are then zero.
    let number = |file: &str| text(file).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let memory = number("memory.current").unwrap_or(0);
    let cache = text("memory.stat").ok().and_then(|text| keyed(&text, "inactive_file")).unwrap_or(0);
    Ok(Stats {
        cpu_usage_nanos: keyed(&text("cpu.stat")?, "usage_usec").unwrap_or(0).saturating_mul(1000),
        memory_bytes: memory.saturating_sub(cache),
        memory_limit: number("memory.max"),
        pids: number("pids.current").unwrap_or(0),
        pids_limit: number("pids.max"),
        oom_kills: text("memory.events").ok().and_then(|text| keyed(&text, "oom_kill")).unwrap_or(0),
    })
}

pub(super) fn legacy(locate: impl Fn(&str) -> io::Result<PathBuf>) -> io::Result<Stats> {
    let text = |file: &str| locate(file).and_then(fs::read_to_string);
    let number = |file: &str| text(file).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let memory = number("memory.usage_in_bytes").unwrap_or(0);
    let cache = text("memory.stat").ok().and_then(|text| keyed(&text, "total_inactive_file")).unwrap_or(0);
    Ok(Stats {
        cpu_usage_nanos: text("cpuacct.usage")?.trim().parse().unwrap_or(0),
        memory_bytes: memory.saturating_sub(cache),
        memory_limit: number("memory.limit_in_bytes").filter(|limit| *limit < LEGACY_NO_LIMIT),
        pids: number("pids.current").unwrap_or(0),
        pids_limit: number("pids.max"),
        oom_kills: text("memory.oom_control").ok().and_then(|text| keyed(&text, "oom_kill")).unwrap_or(0),
    })
}

/// The number after `key` in a file of lines `key number`.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_whole_keys() {
        let text = "oom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(keyed(text, "oom_kill"), Some(2));
        assert_eq!(keyed(text, "oom"), Some(3));
        assert_eq!(keyed(text, "kill"), None);
    }
}
