//! How large what is trusted is: the agent, the initramfs, and an idle agent's memory.

use std::time::Duration;

use postern_tests::{agent::Agent, programs};

use crate::figures::{Budget, Report, Samples, millis};

const MEGABYTE: f64 = 1e6;
/// Starts of the agent that are timed.
const STARTS: usize = 9;

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    report.section("size and start");
    let agent = std::fs::metadata(programs::program("postern-agent")?)?.len() as f64 / MEGABYTE;
    report.value("agent, stripped", "MB", agent, Budget::AtMost(8.0));
    let image: serde_json::Value =
        serde_json::from_slice(&std::fs::read(programs::image()?.join("image.json"))?)?;
    for (name, key) in [("kernel", "kernel"), ("initramfs, modules included", "initramfs")] {
        if let Some(size) = image[key]["size"].as_f64() {
            report.value(name, "MB", size / MEGABYTE, Budget::None);
        }
    }
    let agent_compressed = zstd_size(&std::fs::read(programs::program("postern-agent")?)?)?;
    report.value(
        "initramfs without modules (agent, zstd -19)",
        "MB",
        agent_compressed / MEGABYTE,
        Budget::AtMost(4.0),
    );
    let mut starts = Samples::default();
    let mut resident = Samples::default();
    for _ in 0..STARTS {
        let agent = Agent::ready()?;
        starts.push(millis(agent.start));
        resident.push(resident_mib(agent.pid())?);
    }
    report.samples("agent, exec to serving (evidence included)", "ms", &starts, Budget::AtMost(5.0));
    report.samples("agent, resident, idle", "MiB", &resident, Budget::AtMost(6.0));
    Ok(())
}

fn zstd_size(bytes: &[u8]) -> anyhow::Result<f64> {
    use std::io::Write as _;
    let zstd = programs::system("zstd", "zstd")?;
    let mut child = std::process::Command::new(zstd)
        .args(["-19", "-c", "-q"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take();
    let input = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.as_mut().map(|stdin| stdin.write_all(&input)));
    let output = child.wait_with_output()?;
    let _ = writer.join();
    Ok(output.stdout.len() as f64)
}

/// VmRSS of a process.
pub(crate) fn resident_mib(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.map(|kib| kib / 1024.0).ok_or_else(|| anyhow::anyhow!("/proc/{pid}/status has no VmRSS"))
}

/// Open descriptors of a process.
pub(crate) fn descriptors(pid: u32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Gives the kernel and the allocator a moment to settle before memory is read; not a synchronisation.
pub(crate) fn settle() {
    std::thread::park_timeout(Duration::from_millis(200));
}
