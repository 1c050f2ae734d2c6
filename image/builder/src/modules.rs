//! Which kernel modules go into an image: those the agent's machine needs, what they depend on, and nothing else.
//!
//! Distribution packages come without `modules.dep` (it is made when they are installed), so dependencies are read
//! from the modules themselves. What the kernel has built in needs no file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::elf::{ModuleFormatError, module_info};

/// What a module is for; the agent leaves out what its machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    Always,
    /// Virtio devices on the platform bus, as microvm has them.
    Mmio,
    /// Virtio devices on PCI, as q35 has them.
    Pci,
    /// Reports of a real TEE.
    Tee,
    /// Image disks: loaded where the machine has a disk beside the one with init data.
    Disk,
}

/// What a pod's machine needs, in the order of loading; a dependency comes before who needs it.
const WANTED: &[(&str, Class, Need)] = &[
    ("virtio_mmio", Class::Mmio, Need::Required),
    ("virtio_pci", Class::Pci, Need::Required),
    ("virtio_blk", Class::Always, Need::Required), // the init-data device
    ("vmw_vsock_virtio_transport", Class::Always, Need::Required), // the host endpoint
    ("virtio_net", Class::Always, Need::Required), // the owner endpoint, and the pod's network
    ("overlay", Class::Always, Need::Required),    // containers' root file systems
    ("tsm", Class::Tee, Need::IfThere),            // configfs-tsm; part of the kernel from 6.7 on
    ("sev-guest", Class::Tee, Need::IfThere),
    ("tdx-guest", Class::Tee, Need::IfThere),
    // After the disks' own driver, which shows whether there are any.
    ("dm-verity", Class::Disk, Need::IfThere),
    ("erofs", Class::Disk, Need::IfThere),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Required,
    IfThere,
}

/// The largest module file that is read, unpacked.
const MAX_MODULE: u64 = 64 << 20;

/// Why the modules could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    #[error("{action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("kernel module {name} is neither among the modules in {} nor built into the kernel", directory.display())]
    Missing { name: String, directory: PathBuf },
    #[error("{} is not a kernel module", path.display())]
    Format { path: PathBuf, source: ModuleFormatError },
    #[error("{} is for kernel {found}, not {expected}", path.display())]
    Release { path: PathBuf, expected: String, found: String },
    #[error("kernel module {0} depends on itself")]
    Cycle(String),
    #[error("{} is larger than {MAX_MODULE} bytes when unpacked", .0.display())]
    TooLarge(PathBuf),
}

/// A module to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its file name in the image, always `.ko`.
    pub file: String,
    pub class: Class,
    pub content: Vec<u8>,
}

/// Collects what a guest needs from `directory` (a `lib/modules/RELEASE`), in the order of loading.
pub fn collect(directory: &Path, release: &str) -> Result<Vec<Module>, ModulesError> {
    let mut collector = Collector {
        directory,
        release,
        files: find_files(directory)?,
        built_in: built_in(directory)?,
        loaded: Vec::new(),
        classes: BTreeMap::new(),
    };
    for &(name, class, need) in WANTED {
        let name = normal(name);
        if need == Need::IfThere && !collector.files.contains_key(&name) {
            continue;
        }
        collector.visit(&name, class, &mut BTreeSet::new())?;
    }
    let classes = collector.classes;
    let class = |name: &String| classes.get(name).copied().unwrap_or(Class::Always);
    Ok(collector
        .loaded
        .into_iter()
        .map(|(name, content)| Module { file: format!("{name}.ko"), class: class(&name), content })
        .collect())
}

struct Collector<'a> {
    directory: &'a Path,
    release: &'a str,
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
    /// Name and content, dependencies first.
    loaded: Vec<(String, Vec<u8>)>,
    classes: BTreeMap<String, Class>,
}

impl Collector<'_> {
    fn visit(&mut self, name: &str, class: Class, above: &mut BTreeSet<String>) -> Result<(), ModulesError> {
        if self.built_in.contains(name) {
            return Ok(());
        }
        if !above.insert(name.to_owned()) {
            return Err(ModulesError::Cycle(name.to_owned()));
        }
        let path = self.files.get(name).cloned().ok_or_else(|| ModulesError::Missing {
            name: name.to_owned(),
            directory: self.directory.into(),
        })?;
        let content = read_module(&path)?;
        let info =
            module_info(&content).map_err(|source| ModulesError::Format { path: path.clone(), source })?;
        if info.release != self.release {
            return Err(ModulesError::Release { path, expected: self.release.into(), found: info.release });
        }
        for dependency in &info.depends {
            self.visit(&normal(dependency), class, above)?;
        }
        above.remove(name);
        if !self.loaded.iter().any(|(loaded, _)| loaded == name) {
            self.loaded.push((name.to_owned(), content));
        }
        // What two purposes need is needed always.
        self.classes
            .entry(name.to_owned())
            .and_modify(|known| {
                if *known != class {
                    *known = Class::Always;
                }
            })
            .or_insert(class);
        Ok(())
    }
}

/// A module's name is the same with `-` and `_`; the kernel uses `_`.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// Name of the module in a file such as `sev-guest.ko.xz`.
fn module_name(file: &str) -> Option<String> {
    let stem = [".ko", ".ko.xz", ".ko.zst"].iter().find_map(|suffix| file.strip_suffix(suffix))?;
    (!stem.is_empty()).then(|| normal(stem))
}

fn find_files(directory: &Path) -> Result<BTreeMap<String, PathBuf>, ModulesError> {
    let mut found = BTreeMap::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(directory) = pending.pop() {
        let failed = |source| ModulesError::Io { action: "listing", path: directory.clone(), source };
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Links are not followed: `build` and `source` of an installed kernel lead out of the tree.
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                pending.push(entry.path());
            } else if let Some(name) = entry.file_name().to_str().and_then(module_name) {
                found.insert(name, entry.path());
            }
        }
    }
    Ok(found)
}

fn built_in(directory: &Path) -> Result<BTreeSet<String>, ModulesError> {
    let path = directory.join("modules.builtin");
    match fs::read_to_string(&path) {
        Ok(list) => Ok(list.lines().filter_map(|line| module_name(line.rsplit('/').next()?)).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(source) => Err(ModulesError::Io { action: "reading", path, source }),
    }
}

fn read_module(path: &Path) -> Result<Vec<u8>, ModulesError> {
    let failed = |source| ModulesError::Io { action: "reading", path: path.into(), source };
    let file = io::BufReader::new(fs::File::open(path).map_err(failed)?);
    let mut reader: Box<dyn Read> = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => Box::new(lzma_rust2::XzReader::new(file, true)),
        Some("zst") => Box::new(zstd::Decoder::with_buffer(file).map_err(failed)?),
        _ => Box::new(file),
    };
    let mut content = Vec::new();
    let read = reader.by_ref().take(MAX_MODULE + 1).read_to_end(&mut content).map_err(failed)?;
    if read as u64 > MAX_MODULE {
        return Err(ModulesError::TooLarge(path.into()));
    }
    Ok(content)
}

#[cfg(test)]
mod tests;
