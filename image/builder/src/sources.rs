//! What the agent is made of: every crate it links, where each came from, and how many lines of source that is.
//!
//! Which crates these are stands in the workspace's committed list, `guest/agent/dependencies.txt`, which `cargo xtask
//! tidy` compares with what cargo resolves; cargo's metadata adds where their sources are, `Cargo.lock` their digests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};
use postern_model::Sha256;
use serde::Deserialize;

mod lines;

pub use lines::Lines;

/// The committed list of what the agent links.
const AGENT_LIST: &str = "guest/agent/dependencies.txt";
/// Package of the agent.
pub const AGENT_PACKAGE: &str = "postern-agent";

/// Sources that do not say what the agent is made of.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    #[error("reading {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not this project's workspace: it has no {AGENT_LIST}", .0.display())]
    NotTheWorkspace(PathBuf),
    #[error("asking cargo about {}", path.display())]
    Cargo { path: PathBuf, source: Box<cargo_metadata::Error> },
    #[error("{} is not a cargo lock file", path.display())]
    Lock { path: PathBuf, source: Box<toml::de::Error> },
    #[error("{AGENT_LIST} names {0}, which cargo does not know; `cargo xtask bless` writes the list anew")]
    Unknown(String),
}

/// One crate that the agent links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crate {
    pub name: String,
    pub version: String,
    /// SPDX expression, as its author wrote it.
    pub license: Option<String>,
    /// Of the archive in the registry; none for the workspace's own.
    pub checksum: Option<Sha256>,
    pub origin: Origin,
    /// Whether code of it can be in the program. What only macros use runs while the agent is built and is not in it.
    pub linked: bool,
    pub lines: Lines,
    /// Crates of the same list that it links itself.
    pub dependencies: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Workspace,
    Registry,
}

impl Crate {
    /// Unique in a list: a crate can be linked in two versions.
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

/// The crates of the agent, by name and version.
pub fn agent_crates(workspace: &Path) -> Result<Vec<Crate>, SourcesError> {
    let listed = listed(workspace)?;
    let checksums = checksums(&workspace.join("Cargo.lock"))?;
    let manifest = workspace.join("Cargo.toml");
    let metadata = MetadataCommand::new()
        .manifest_path(&manifest)
        .other_options(["--locked", "--filter-platform", "x86_64-unknown-linux-gnu"].map(str::to_owned))
        .exec()
        .map_err(|source| SourcesError::Cargo { path: manifest, source: Box::new(source) })?;
    let names: Names<'_> = metadata
        .packages
        .iter()
        .map(|package| (&package.id, (package.name.to_string(), package.version.to_string())))
        .filter(|(_, key)| listed.contains(key))
        .collect();
    if let Some((name, version)) = listed.iter().find(|key| !names.values().any(|known| known == *key)) {
        return Err(SourcesError::Unknown(format!("{name} {version}")));
    }
    let links = links(&metadata, &names);
    let linked = linked(&metadata, &names, &links);
    let id = |id: &&PackageId| names.get(*id).map(|(name, version)| format!("{name}@{version}"));
    let mut crates = Vec::new();
    for package in &metadata.packages {
        let Some(key) = names.get(&package.id) else { continue };
        let folder = package.manifest_path.parent().map(|folder| folder.as_std_path());
        let folder = folder.unwrap_or(workspace);
        let mut dependencies: Vec<String> =
            links.get(&package.id).into_iter().flatten().filter_map(id).collect();
        dependencies.sort();
        crates.push(Crate {
            name: key.0.clone(),
            version: key.1.clone(),
            license: package.license.clone(),
            checksum: checksums.get(key).copied(),
            origin: if package.source.is_some() { Origin::Registry } else { Origin::Workspace },
            linked: linked.contains(&package.id),
            lines: lines::count(folder)
                .map_err(|source| SourcesError::Read { path: folder.to_owned(), source })?,
            dependencies,
        });
    }
    crates.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(crates)
}

type Names<'a> = BTreeMap<&'a PackageId, (String, String)>;
type Links<'a> = BTreeMap<&'a PackageId, Vec<&'a PackageId>>;

/// What each listed package links itself.
fn links<'a>(metadata: &'a Metadata, names: &Names<'_>) -> Links<'a> {
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    let normal = |node: &'a cargo_metadata::Node| {
        let dependencies = node
            .deps
            .iter()
            .filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
        let listed = dependencies.map(|dependency| &dependency.pkg).filter(|id| names.contains_key(id));
        (&node.id, listed.collect())
    };
    nodes.map(normal).collect()
}

/// Packages that the agent reaches without passing a procedural macro, whose own dependencies run with the compiler.
fn linked<'a>(metadata: &'a Metadata, names: &Names<'a>, links: &Links<'a>) -> BTreeSet<&'a PackageId> {
    let macros: BTreeSet<&PackageId> = metadata
        .packages
        .iter()
        .filter(|package| package.targets.iter().any(cargo_metadata::Target::is_proc_macro))
        .map(|package| &package.id)
        .collect();
    let mut linked = BTreeSet::new();
    let mut pending: Vec<&PackageId> =
        names.iter().filter(|(_, (name, _))| name == AGENT_PACKAGE).map(|(id, _)| *id).collect();
    while let Some(id) = pending.pop() {
        if !macros.contains(id) && linked.insert(id) {
            pending.extend(links.get(id).into_iter().flatten());
        }
    }
    linked
}

/// Names and versions of the committed list: `NAME vVERSION`, a line each.
fn listed(workspace: &Path) -> Result<BTreeSet<(String, String)>, SourcesError> {
    let path = workspace.join(AGENT_LIST);
    let text = fs::read_to_string(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => SourcesError::NotTheWorkspace(workspace.to_owned()),
        _ => SourcesError::Read { path, source },
    })?;
    let entry = |line: &str| {
        let (name, version) = line.trim().split_once(" v")?;
        Some((name.to_owned(), version.to_owned()))
    };
    Ok(text.lines().filter_map(entry).collect())
}

#[derive(Deserialize)]
struct CargoLock {
    #[serde(default)]
    package: Vec<LockedPackage>,
}

#[derive(Deserialize)]
struct LockedPackage {
    name: String,
    version: String,
    checksum: Option<String>,
}

fn checksums(path: &Path) -> Result<BTreeMap<(String, String), Sha256>, SourcesError> {
    let text =
        fs::read_to_string(path).map_err(|source| SourcesError::Read { path: path.to_owned(), source })?;
    let lock: CargoLock = toml::from_str(&text)
        .map_err(|source| SourcesError::Lock { path: path.to_owned(), source: Box::new(source) })?;
    let entry = |package: LockedPackage| {
        let checksum = Sha256::from_hex(&package.checksum?).ok()?;
        Some(((package.name, package.version), checksum))
    };
    Ok(lock.package.into_iter().filter_map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn the_agent_is_made_of_what_its_list_says() {
        let crates = agent_crates(&workspace()).unwrap();
        let agent = crates.iter().find(|krate| krate.name == AGENT_PACKAGE).unwrap();
        assert_eq!((agent.origin, agent.checksum), (Origin::Workspace, None));
        assert!(agent.lines.rust > 1000, "{:?}", agent.lines);
        assert!(agent.dependencies.iter().any(|id| id.starts_with("ring@")), "{:?}", agent.dependencies);
        let ring = crates.iter().find(|krate| krate.name == "ring").unwrap();
        assert_eq!((ring.origin, ring.linked), (Origin::Registry, true));
        let syn = crates.iter().find(|krate| krate.name == "syn").unwrap();
        assert!(!syn.linked, "syn is the macros'");
        assert!(ring.checksum.is_some() && ring.license.is_some());
        assert!(ring.lines.other > 1000, "ring's assembly counts: {:?}", ring.lines);
        let ids: BTreeSet<String> = crates.iter().map(Crate::id).collect();
        assert_eq!(ids.len(), crates.len());
        let dangling = crates.iter().flat_map(|krate| &krate.dependencies).find(|id| !ids.contains(*id));
        assert_eq!(dangling, None);
    }

    #[test]
    fn another_folder_is_no_workspace() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(agent_crates(folder.path()), Err(SourcesError::NotTheWorkspace(_))));
    }
}
