//! The distribution's kernel for virtual machines, by its own package tools: resolved with apt-cache, downloaded with
//! apt-get into a cache, unpacked with dpkg-deb. Needs no root and installs nothing.
//!
//! apt checks the download against the signed lists of the distribution; the digest is checked again whenever the
//! cached file is used.

use std::{
    env, fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use postern_launch::image::digest_file;
use postern_model::Sha256;

use super::{Kernel, KernelError};
use crate::lock::Package;

/// Why the kernel package could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(
        "{program} is not installed; on another system than Debian or Ubuntu give --kernel and --modules"
    )]
    NoProgram { program: &'static str },
    #[error("starting {program}")]
    Start { program: &'static str, source: io::Error },
    #[error("{program} failed: {message}")]
    Program { program: &'static str, message: String },
    #[error(
        "apt-get cannot download {name} {version}: {message}; if its package lists are old, run `apt-get update`"
    )]
    Download { name: String, version: String, message: String },
    #[error(
        "package {name} is not in apt's lists; run `apt-get update`, or give --package, or --kernel and --modules"
    )]
    NotFound { name: String },
    #[error("package {name} does not depend on a kernel (linux-image-VERSION)")]
    NoKernel { name: String },
    #[error("apt's answer about {name} has no usable {field}")]
    Answer { name: String, field: &'static str },
    #[error("{} has digest {found} where {expected} was expected", path.display())]
    Digest { path: PathBuf, expected: Sha256, found: Sha256 },
    #[error("neither XDG_CACHE_HOME nor HOME is set: no place for downloaded packages")]
    NoCache,
    #[error("{action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the unpacked package is no kernel")]
    Kernel(#[from] KernelError),
}

/// Where downloaded packages are kept: `$XDG_CACHE_HOME/postern/kernel`.
pub fn cache_directory() -> Result<PathBuf, FetchError> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    Ok(base.ok_or(FetchError::NoCache)?.join("postern/kernel"))
}

/// The packages of one kernel: the image, and on Ubuntu its modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelPackages {
    packages: Vec<Package>,
}

impl KernelPackages {
    /// The newest kernel that `package` (by default the distribution's for clouds) stands for.
    pub fn resolve(package: Option<&str>) -> Result<Self, FetchError> {
        let named = match package {
            Some(name) => name.to_owned(),
            None => default_package().to_owned(),
        };
        let mut record = Record::ask(&named)?;
        if !is_kernel(&record.name) {
            let kernel = record.depends.into_iter().find(|name| is_kernel(name));
            record = Record::ask(&kernel.ok_or(FetchError::NoKernel { name: named })?)?;
        }
        let mut packages = vec![record.package()?];
        for name in record.depends.iter().filter(|name| is_modules(name)) {
            packages.push(Record::ask(name)?.package()?);
        }
        Ok(Self { packages })
    }

    /// Exactly these.
    pub fn locked(packages: &[Package]) -> Self {
        Self { packages: packages.to_vec() }
    }

    pub fn packages(&self) -> &[Package] {
        &self.packages
    }

    /// Downloads what is not in `cache`, and unpacks.
    pub fn fetch(&self, cache: &Path) -> Result<Kernel, FetchError> {
        let io = |action| move |path: &Path, source| FetchError::Io { action, path: path.into(), source };
        fs::create_dir_all(cache).map_err(|e| io("making")(cache, e))?;
        // In the cache, not in /tmp: the tree takes 100 MB and /tmp is often memory.
        let tree = tempfile::Builder::new().prefix(".unpacked-").tempdir_in(cache);
        let tree = tree.map_err(|e| io("making a directory in")(cache, e))?;
        for package in &self.packages {
            let file = cached(package, cache)?;
            let mut command = Command::new("dpkg-deb");
            command.arg("--extract").arg(&file).arg(tree.path());
            run("dpkg-deb", command)?;
        }
        Ok(Kernel::from_tree(tree, self.packages.clone())?)
    }
}

fn default_package() -> &'static str {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let is_ubuntu = |line: &str| {
        let line = line.replace('"', "");
        let ids = line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE="));
        ids.is_some_and(|ids| ids.split(' ').any(|id| id == "ubuntu"))
    };
    if release.lines().any(is_ubuntu) { "linux-image-virtual" } else { "linux-image-cloud-amd64" }
}

/// A kernel itself (`linux-image-6.1.0-1-cloud-amd64`), not a name that stands for the newest.
fn is_kernel(name: &str) -> bool {
    name.strip_prefix("linux-image-").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn is_modules(name: &str) -> bool {
    name.strip_prefix("linux-modules-").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// What apt knows of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    name: String,
    version: Option<String>,
    sha256: Option<Sha256>,
    depends: Vec<String>,
}

impl Record {
    pub(super) fn ask(name: &str) -> Result<Self, FetchError> {
        // A name from the command line or from apt: nothing that apt would take for an option or a pattern.
        let is_plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"+-.".contains(&c);
        let not_found = || FetchError::NotFound { name: name.to_owned() };
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.bytes().all(is_plain) {
            return Err(not_found());
        }
        let mut command = Command::new("apt-cache");
        command.args(["show", "--quiet", "--no-all-versions", name]);
        match run("apt-cache", command) {
            Ok(output) => Self::parse(&String::from_utf8_lossy(&output.stdout)).ok_or_else(not_found),
            // It says so by failing.
            Err(FetchError::Program { .. }) => Err(not_found()),
            Err(error) => Err(error),
        }
    }

    /// The first stanza of a package list (deb-control(5)).
    fn parse(text: &str) -> Option<Self> {
        let stanza = text.split("\n\n").next()?;
        let field = |name: &str| {
            stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let depends = field("Depends").unwrap_or_default().split([',', '|']);
        Some(Self {
            name: field("Package")?.to_owned(),
            version: field("Version").map(str::to_owned),
            sha256: field("SHA256").and_then(|hex| Sha256::from_hex(hex).ok()),
            depends: depends.filter_map(|d| d.split_whitespace().next()).map(str::to_owned).collect(),
        })
    }

    pub(super) fn package(&self) -> Result<Package, FetchError> {
        let lacks = |field| FetchError::Answer { name: self.name.clone(), field };
        Ok(Package {
            name: self.name.clone(),
            version: self.version.clone().ok_or_else(|| lacks("Version"))?,
            sha256: self.sha256.ok_or_else(|| lacks("SHA256"))?,
        })
    }
}

/// The package's file in the cache, downloaded when it is not there.
pub(super) fn cached(package: &Package, cache: &Path) -> Result<PathBuf, FetchError> {
    let file = cache.join(format!("{}_{}.deb", package.name, package.sha256.to_hex()));
    match check(&file, package.sha256) {
        Ok(()) => return Ok(file),
        // What a full disk or a hand has left: replaced below.
        Err(FetchError::Digest { .. }) => {}
        Err(FetchError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let io = |action| move |path: &Path, source| FetchError::Io { action, path: path.into(), source };
    let download = tempfile::Builder::new().prefix(".download-").tempdir_in(cache);
    let download = download.map_err(|e| io("making a directory in")(cache, e))?;
    let mut command = Command::new("apt-get");
    // As root apt would drop to a user of its own, which cannot write here, and warn.
    command.args(["download", "--quiet", "--option", "APT::Sandbox::User="]);
    command.arg(format!("{}={}", package.name, package.version)).current_dir(download.path());
    run("apt-get", command).map_err(|error| match error {
        FetchError::Program { message, .. } => {
            FetchError::Download { name: package.name.clone(), version: package.version.clone(), message }
        }
        error => error,
    })?;
    let entries = fs::read_dir(download.path()).map_err(|e| io("listing")(download.path(), e))?;
    let is_package = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let downloaded = entries.filter_map(|entry| Some(entry.ok()?.path())).find(is_package);
    let message = || "it reported success and left no package".to_owned();
    let downloaded =
        downloaded.ok_or_else(|| FetchError::Program { program: "apt-get", message: message() })?;
    check(&downloaded, package.sha256)?;
    fs::rename(&downloaded, &file).map_err(|e| io("renaming")(&downloaded, e))?;
    Ok(file)
}

/// Whether the first version comes after the second, by the distribution's own rules.
pub(super) fn is_newer(version: &str, than: &str) -> bool {
    let mut command = Command::new("dpkg");
    command.args(["--compare-versions", version, "gt", than]);
    run("dpkg", command).is_ok()
}

fn check(file: &Path, expected: Sha256) -> Result<(), FetchError> {
    let read = |source| FetchError::Io { action: "reading", path: file.into(), source };
    let (found, _) = digest_file(file).map_err(read)?;
    if found == expected {
        return Ok(());
    }
    Err(FetchError::Digest { path: file.into(), expected, found })
}

fn run(program: &'static str, mut command: Command) -> Result<Output, FetchError> {
    // Answers are parsed, so they are in one language.
    let output =
        command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null()).output().map_err(|source| {
            match source.kind() {
                ErrorKind::NotFound => FetchError::NoProgram { program },
                _ => FetchError::Start { program, source },
            }
        })?;
    if output.status.success() {
        return Ok(output);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(4).collect();
    let message = if lines.is_empty() { output.status.to_string() } else { lines.join("; ") };
    Err(FetchError::Program { program, message })
}

#[cfg(test)]
mod tests;
