//! Directions between crates: a path says who trusts the code, so it also says what that code may link.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// Every crate that the measured agent links; growing it is a reviewed diff.
pub(crate) const AGENT_LIST: &str = "guest/agent/dependencies.txt";
/// Longest path through `shared/`, counted in crates.
const MAX_CHAIN: usize = 4;
/// What code on the host must never link: it writes reports, it does not judge them.
const NOT_FOR_HOST: [&str; 3] = ["postern-evidence", "postern-tunnel", "postern-policy"];
/// One TLS stack, one crypto provider, one async runtime, maintained formats.
const BANNED: [&str; 8] =
    ["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys", "async-std", "smol", "serde_yaml"];

/// Workspace crate -> (folder, its normal dependencies within the workspace).
type Members = BTreeMap<String, (String, BTreeSet<String>)>;

pub(crate) fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let metadata = metadata(root)?;
    let members = members(root, &metadata)?;
    let mut complaints = Vec::new();
    for (name, (folder, dependencies)) in &members {
        for dependency in dependencies {
            if let Some((target, _)) = members.get(dependency)
                && !may_depend(folder, target)
            {
                complaints.push(format!("{name} ({folder}) must not depend on {dependency} ({target})"));
            }
        }
        if folder.starts_with("host/") {
            let linked = closure(&members, name);
            complaints.extend(
                NOT_FOR_HOST.iter().filter(|banned| linked.contains(**banned)).map(|banned| {
                    format!("{name} ({folder}) links {banned}, which the host must never link")
                }),
            );
        }
        if folder.starts_with("shared/") && chain(&members, name) > MAX_CHAIN {
            complaints.push(format!("{name} heads a chain of more than {MAX_CHAIN} crates"));
        }
    }
    complaints.extend(banned(&metadata));
    complaints.extend(agent_list_is_current(root)?);
    Ok(complaints)
}

/// `shared` depends on no side, sides never on each other; tests and chores may use everything.
fn may_depend(from: &str, to: &str) -> bool {
    let side = |folder: &str| folder.split('/').next().unwrap_or_default().to_owned();
    match side(from).as_str() {
        "tests" | "xtask" | "fuzz" => true,
        _ if to == "shared/model" => from != to,
        "shared" => side(to) == "shared" && from != "shared/model",
        side_from => side(to) == "shared" || side(to) == side_from,
    }
}

fn metadata(root: &Path) -> anyhow::Result<Value> {
    let output = Command::new("cargo")
        .current_dir(root)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")
}

fn members(root: &Path, metadata: &Value) -> anyhow::Result<Members> {
    let workspace: BTreeSet<&str> = strings(&metadata["workspace_members"]).collect();
    let mut members = Members::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        if !package["id"].as_str().is_some_and(|id| workspace.contains(id)) {
            continue;
        }
        let name = package["name"].as_str().context("package without a name")?;
        let manifest = package["manifest_path"].as_str().context("package without a manifest")?;
        let folder = Path::new(manifest).parent().and_then(|folder| folder.strip_prefix(root).ok());
        let folder = folder.context("package outside the workspace")?.to_string_lossy().into_owned();
        let dependencies = package["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|dependency| dependency["kind"].is_null())
            .filter_map(|dependency| dependency["name"].as_str())
            .map(str::to_owned)
            .collect();
        members.insert(name.to_owned(), (folder, dependencies));
    }
    Ok(members)
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn closure<'a>(members: &'a Members, name: &'a str) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut todo = vec![name];
    while let Some(name) = todo.pop() {
        if let Some((_, dependencies)) = members.get(name) {
            todo.extend(
                dependencies.iter().map(String::as_str).filter(|dependency| seen.insert(*dependency)),
            );
        }
    }
    seen
}

fn chain(members: &Members, name: &str) -> usize {
    match members.get(name) {
        Some((_, dependencies)) => {
            1 + dependencies.iter().map(|next| chain(members, next)).max().unwrap_or(0)
        }
        None => 0,
    }
}

fn banned(metadata: &Value) -> Vec<String> {
    let names =
        metadata["packages"].as_array().into_iter().flatten().filter_map(|package| package["name"].as_str());
    names.filter(|name| BANNED.contains(name)).map(|name| format!("dependency {name} is banned")).collect()
}

/// Names and versions of what the agent links, sorted.
pub(crate) fn agent_list(root: &Path) -> anyhow::Result<String> {
    let output = Command::new("cargo")
        .current_dir(root)
        .args([
            "tree",
            "--locked",
            "-p",
            "postern-agent",
            "-e",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .output()
        .context("cannot run cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8(output.stdout)?;
    let crates: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.contains("(proc-macro)"))
        .map(|line| line.split(" (").next().unwrap_or(line).trim())
        .filter(|line| !line.is_empty())
        .collect();
    Ok(crates.into_iter().map(|name| format!("{name}\n")).collect())
}

fn agent_list_is_current(root: &Path) -> anyhow::Result<Option<String>> {
    let committed = std::fs::read_to_string(root.join(AGENT_LIST)).unwrap_or_default();
    let complaint = || format!("{AGENT_LIST} is not what the agent links now");
    Ok((committed != agent_list(root)?).then(complaint))
}

#[cfg(test)]
mod tests {
    use super::may_depend;

    #[test]
    fn directions() {
        for (from, to, allowed) in [
            ("guest/agent", "shared/tunnel", true),
            ("guest/agent", "guest/container", true),
            ("guest/agent", "host/sandbox", false),
            ("host/sandbox", "owner/ctl", false),
            ("image/builder", "guest/agent", false),
            ("shared/tunnel", "shared/evidence", true),
            ("shared/tunnel", "guest/agent", false),
            ("shared/model", "shared/api", false),
            ("tests", "host/simtee", true),
        ] {
            assert_eq!(may_depend(from, to), allowed, "{from} -> {to}");
        }
    }
}
