//! How much has to be trusted: the figures of an image, each with a name that `image/budgets.toml` can hold it to.
//!
//! What an image's directory alone tells is always there. The rest needs the workspace that the agent was built from (its
//! crates, the profiles' groups, the recorded system calls) or the kernel's configuration, and is absent without it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use postern_launch::{AGENT_VSOCK_PORT, OWNER_TCP_PORT};
use serde::Serialize;

mod budgets;
mod kernel;

pub use budgets::{Budgets, BudgetsError, Verdict};
pub use kernel::Options;

use crate::{
    build::Image,
    sources::{self, Crate, Lines, Origin, SourcesError},
};

/// The kernel's resolved configuration, beside `image.json` when the kernel is ours.
pub const KERNEL_CONFIG: &str = "kernel.config";
/// The kernel's list of what could have been a module and is built in.
const BUILT_IN: &str = "modules.builtin";
/// System calls that QEMU makes for a pod under its own sandbox, recorded; in the workspace.
pub const HOST_SYSCALLS: &str = "image/host-syscalls.txt";
/// Sockets that listen in a guest before an owner runs anything. A test holds that a real guest has no others.
const LISTENERS: [(&str, &str); 2] =
    [("tcp", "the owner's door, mutual TLS"), ("vsock", "the host's closed list")];

/// Figures that could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum FiguresError {
    #[error("reading {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not a kernel profile", path.display())]
    Profile { path: PathBuf, source: Box<toml::de::Error> },
    #[error("the kernel has no payload where its header says")]
    NoPayload,
    #[error("the kernel is packed in a way that this program does not know")]
    Compression,
    #[error("unpacking the kernel")]
    Unpack(#[source] io::Error),
    #[error("the kernel is not an ELF file inside")]
    Elf(#[source] object::read::Error),
    #[error("the kernel has no text section")]
    NoText,
    #[error(transparent)]
    Sources(#[from] SourcesError),
}

/// A socket that listens in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listener {
    pub family: &'static str,
    pub port: u32,
    pub what: &'static str,
}

/// One crate's part in the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CrateLines {
    pub name: String,
    pub version: String,
    pub ours: bool,
    /// False for what only runs while the agent is built.
    pub linked: bool,
    #[serde(flatten)]
    pub lines: Lines,
}

/// All figures of one image.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    pub kernel_profile: Option<String>,
    pub kernel_release: String,
    pub kernel_image: u64,
    pub kernel_text: u64,
    /// Absent where the kernel came without its configuration.
    pub kernel_options: Option<Options>,
    /// Absent where the kernel came without its list.
    pub kernel_drivers: Option<Vec<String>>,
    /// Loaded from the initramfs; none in a specialised kernel.
    pub kernel_modules: u64,
    pub agent: u64,
    pub initramfs: u64,
    pub listeners: Vec<Listener>,
    /// Absent without the workspace, as are the system calls.
    pub crates: Option<Vec<CrateLines>>,
    pub host_syscalls: Option<Vec<String>>,
}

impl Figures {
    /// The figures of the image in `directory`, which has been checked, and of `workspace` if it is given.
    pub fn take(directory: &Path, image: &Image, workspace: Option<&Path>) -> Result<Self, FiguresError> {
        let manifest = &image.manifest;
        let path = directory.join(&manifest.kernel.file);
        let kernel_image = fs::read(&path).map_err(|source| FiguresError::Read { path, source })?;
        let groups = match workspace {
            Some(workspace) => kernel::groups(&workspace.join("image/kernel"))?,
            None => BTreeMap::new(),
        };
        let beside = |file: &str| Some(directory.join(file)).filter(|path| path.is_file());
        Ok(Self {
            kernel_profile: manifest.kernel_profile.clone(),
            kernel_release: manifest.kernel_release.clone(),
            kernel_image: manifest.kernel.size,
            kernel_text: kernel::text_bytes(&kernel_image)?,
            kernel_options: beside(KERNEL_CONFIG).map(|path| kernel::options(&path, &groups)).transpose()?,
            kernel_drivers: beside(BUILT_IN).map(|path| kernel::drivers(&path)).transpose()?,
            kernel_modules: image.lock.modules.len() as u64,
            agent: image.lock.agent.size,
            initramfs: manifest.initramfs.size,
            listeners: listeners(),
            crates: workspace
                .map(|path| Ok::<_, SourcesError>(crates(&sources::agent_crates(path)?)))
                .transpose()?,
            host_syscalls: workspace.map(|path| host_syscalls(&path.join(HOST_SYSCALLS))).transpose()?,
        })
    }

    /// Every figure that a budget can name, and its value where it could be taken.
    pub fn named(&self) -> Vec<(&'static str, Option<u64>)> {
        let mut named = vec![
            ("kernel.options", self.kernel_options.as_ref().map(|options| options.total)),
            ("kernel.image", Some(self.kernel_image)),
            ("kernel.text", Some(self.kernel_text)),
            ("kernel.drivers", self.kernel_drivers.as_ref().map(|drivers| drivers.len() as u64)),
            ("kernel.modules", Some(self.kernel_modules)),
            ("agent.size", Some(self.agent)),
            ("initramfs.size", Some(self.initramfs)),
            ("guest.size", Some(self.kernel_image + self.initramfs)),
            ("guest.listeners", Some(self.listeners.len() as u64)),
        ];
        named.extend(named_of_sources(self.crates.as_deref(), self.host_syscalls.as_deref()));
        named
    }
}

/// The figures that the sources alone tell, without an image.
fn named_of_sources(
    crates: Option<&[CrateLines]>,
    host_syscalls: Option<&[String]>,
) -> [(&'static str, Option<u64>); 5] {
    let count = |counts: fn(&CrateLines) -> bool| {
        crates.map(|crates| crates.iter().filter(|krate| counts(krate)).count() as u64)
    };
    let lines = |counts: fn(&CrateLines) -> bool| {
        let counted = |crates: &[CrateLines]| {
            crates.iter().filter(|krate| counts(krate)).map(|krate| krate.lines.all()).sum()
        };
        crates.map(counted)
    };
    [
        ("agent.crates", count(|krate| krate.linked)),
        ("agent.crates.build", count(|krate| !krate.linked)),
        ("agent.lines.ours", lines(|krate| krate.linked && krate.ours)),
        ("agent.lines.others", lines(|krate| krate.linked && !krate.ours)),
        ("host.syscalls", host_syscalls.map(|calls| calls.len() as u64)),
    ]
}

fn listeners() -> Vec<Listener> {
    let port = |family: &str| if family == "tcp" { u32::from(OWNER_TCP_PORT) } else { AGENT_VSOCK_PORT };
    LISTENERS.iter().map(|&(family, what)| Listener { family, port: port(family), what }).collect()
}

/// The crates with the most lines first.
fn crates(all: &[Crate]) -> Vec<CrateLines> {
    let mut crates: Vec<CrateLines> = all
        .iter()
        .map(|krate| CrateLines {
            name: krate.name.clone(),
            version: krate.version.clone(),
            ours: krate.origin == Origin::Workspace,
            linked: krate.linked,
            lines: krate.lines,
        })
        .collect();
    crates.sort_by_key(|krate| std::cmp::Reverse(krate.lines.all()));
    crates
}

/// Names, one a line; `#` begins a comment.
fn host_syscalls(path: &Path) -> Result<Vec<String>, FiguresError> {
    let text = kernel::read_text(path)?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    Ok(lines.filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_links_keeps_its_budgets() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let crates = crates(&sources::agent_crates(&workspace).unwrap());
        let calls = host_syscalls(&workspace.join(HOST_SYSCALLS)).unwrap();
        let named = named_of_sources(Some(&crates), Some(&calls));
        let budgets = Budgets::read(&workspace.join("image/budgets.toml")).unwrap();
        let verdicts = budgets.hold_named(&named, None);
        // Each of these figures has a budget, and none is over it.
        let held: Vec<&str> = verdicts.iter().map(|verdict| verdict.figure.as_str()).collect();
        assert!(named.iter().all(|(name, _)| held.contains(name)), "{held:?}");
        let complaints: Vec<String> = verdicts.iter().filter_map(Verdict::complaint).collect();
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }
}
