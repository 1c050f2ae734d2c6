//! What the compiler does not check: who may depend on whom, how long things get, what every file must say, and
//! which lists are committed on purpose. One file per kind of rule; each returns the complaints it has.

mod dependencies;
mod documents;
mod sources;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let files = tracked_files(root)?;
    let mut complaints = Vec::new();
    complaints.extend(dependencies::check(root)?);
    complaints.extend(sources::check(root, &files)?);
    complaints.extend(documents::check(root)?);
    for complaint in &complaints {
        eprintln!("tidy: {complaint}");
    }
    match complaints.len() {
        0 => {
            println!("tidy: {} files, nothing to complain about", files.len());
            Ok(())
        }
        count => bail!("{count} complaints; `cargo xtask bless` rewrites the committed lists after review"),
    }
}

/// Rewrites the committed lists. The diff is what a reviewer reads.
pub(crate) fn bless(root: &Path) -> anyhow::Result<()> {
    fs::write(root.join(dependencies::AGENT_LIST), dependencies::agent_list(root)?)?;
    documents::bless(root)
}

/// Files that git knows or would add, relative to the root.
fn tracked_files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("cannot run git")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    Ok(text.lines().map(PathBuf::from).filter(|path| root.join(path).is_file()).collect())
}
