//! Documents that must move together with code: a page for every .proto that records the hash of the file it
//! describes, so that nobody edits one without looking at the other.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, bail};

/// A .proto file and the page that describes it.
const PAGES: [(&str, &str); 2] = [
    ("shared/api/proto/owner.proto", "docs/owner-api.md"),
    ("shared/api/proto/host.proto", "docs/host-api.md"),
];
/// What stands before the hash in a page.
const MARK: &str = "<!-- git hash of the .proto: ";
/// Documents that a reader looks for by name.
const EXPECTED: [&str; 9] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "LICENSE",
    "deny.toml",
    "docs/threat-model.md",
    "docs/known-gaps.md",
];

pub(crate) fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    for (proto, page) in PAGES {
        let text = fs::read_to_string(root.join(page)).unwrap_or_default();
        if !text.contains(&mark(root, proto)?) {
            complaints.push(format!("{page} does not describe {proto} as it is now"));
        }
    }
    let missing = EXPECTED.iter().filter(|name| !root.join(name).is_file());
    complaints.extend(missing.map(|name| format!("{name} is missing")));
    Ok(complaints)
}

pub(crate) fn bless(root: &Path) -> anyhow::Result<()> {
    for (proto, page) in PAGES {
        let path = root.join(page);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {page}"))?;
        let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with(MARK)).collect();
        fs::write(&path, format!("{}\n{}\n", kept.join("\n").trim_end(), mark(root, proto)?))?;
    }
    Ok(())
}

fn mark(root: &Path, proto: &str) -> anyhow::Result<String> {
    let output = Command::new("git").current_dir(root).args(["hash-object", proto]).output()?;
    if !output.status.success() {
        bail!("git hash-object {proto} failed");
    }
    Ok(format!("{MARK}{} -->", String::from_utf8_lossy(&output.stdout).trim()))
}
