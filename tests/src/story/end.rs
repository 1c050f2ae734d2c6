//! The end: nothing is left behind.

use std::path::Path;

use anyhow::ensure;

use super::{POD, Stage};

pub(super) fn remove(stage: &mut Stage) -> anyhow::Result<String> {
    let processes = processes_of(stage.folder.path());
    ensure!(!processes.is_empty(), "the search for processes finds none while the pod runs");
    stage.ok(&["pod", "rm", POD])?;
    let left = processes_of(stage.folder.path());
    ensure!(left.is_empty(), "processes left behind: {left:?}");
    let pods: Vec<_> = files_below(&stage.home.host_state().join("pods"));
    ensure!(pods.is_empty(), "files left behind: {pods:?}");
    let record = stage.home.root().join("state/postern/pods").join(POD);
    ensure!(!record.exists(), "{} left behind", record.display());
    Ok("no process, socket, cgroup or file left behind".into())
}

/// Takes down whatever a failed story left running.
pub(super) fn take_down(stage: &Stage) {
    let _ = stage.home.host(&["rm", "--stop", POD]);
}

/// Processes whose command line names something below `root`.
fn processes_of(root: &Path) -> Vec<(i32, String)> {
    let needle = root.display().to_string();
    let own = std::process::id().to_string();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy() != own)
        .filter_map(|entry| {
            let pid = entry.file_name().to_string_lossy().parse().ok()?;
            let command = std::fs::read(entry.path().join("cmdline")).ok()?;
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let is_ours = command.contains(&needle) && !command.starts_with("docker-registry");
            is_ours.then_some((pid, command))
        })
        .filter(|(_, command)| !command.contains("docker-registry"))
        .collect()
}

fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}
