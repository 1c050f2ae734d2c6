//! What the guest knows of its own machine.

use std::fs;

/// Bytes of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    pub total_bytes: u64,
    pub available_bytes: u64,
}

/// Zeros where the kernel does not tell.
pub fn memory() -> Memory {
    fs::read_to_string("/proc/meminfo").map(|text| parse_meminfo(&text)).unwrap_or_default()
}

/// Bytes of memory that the kernel manages: what [`memory`] says, without a look at everything else.
pub fn total_memory() -> u64 {
    let info = rustix::system::sysinfo();
    u64::from(info.mem_unit).saturating_mul(info.totalram)
}

pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Processors this process may use.
pub fn cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX))
}

/// Lines such as `MemTotal:  247584 kB` (proc_meminfo(5)).
fn parse_meminfo(text: &str) -> Memory {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kibibytes = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kibibytes.unwrap_or(0).saturating_mul(1024)
    };
    Memory { total_bytes: field("MemTotal"), available_bytes: field("MemAvailable") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_ask_agree() {
        assert_eq!(total_memory(), memory().total_bytes);
    }

    #[test]
    fn reads_meminfo() {
        let text = "MemTotal:         247584 kB\nMemFree:  1 kB\nMemAvailable:     200000 kB\n";
        assert_eq!(
            parse_meminfo(text),
            Memory { total_bytes: 247_584 * 1024, available_bytes: 200_000 * 1024 }
        );
        assert_eq!(parse_meminfo("nonsense"), Memory::default());
    }
}
