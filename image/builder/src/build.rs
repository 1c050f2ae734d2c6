//! Puts an image together: kernel, initramfs, `image.json` and `image.lock` in one directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use postern_launch::{
    ImageError, ImageManifest,
    image::{FORMAT, ImageFile, MANIFEST_FILE, WITHOUT_ACPI},
};

use crate::{
    cpio::CpioError,
    elf::{self, ProgramError},
    initramfs::Initramfs,
    kernel::Kernel,
    lock::{Input, KernelInput, LOCK_FILE, Lock, LockError, ModuleInput, Package},
    modules::{self, Module, ModulesError},
    sha256,
};

const KERNEL_FILE: &str = "vmlinuz";
/// The resolved configuration of a kernel that was specialised to a profile.
pub const KERNEL_CONFIG_FILE: &str = "kernel.config";
/// Which drivers such a kernel has built in, a path a line.
pub const DRIVERS_FILE: &str = "modules.builtin";
const INITRAMFS_FILE: &str = "initramfs.cpio.lz4";

/// The measured command line that every launch shares. In words: the console, quiet until the agent says otherwise; a
/// reset at once, in a way that every machine has, when the kernel panics; no self-tests of the kernel's cryptography
/// (a seventh of the boot under emulation); grace periods that end sooner, which is what ending a container waits for;
/// one processor until the agent wakes the others (a quarter of the boot of two).
const CMDLINE: &str =
    "console=ttyS0 quiet panic=-1 reboot=t cryptomgr.notests=1 rcupdate.rcu_expedited=1 maxcpus=1";

/// What the agent may take in the image, stripped (a kata-agent takes 26 MB).
pub const AGENT_BUDGET: u64 = 8 << 20;
/// The largest agent that is read at all.
const MAX_AGENT: u64 = 256 << 20;

/// Why an image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("{action} {}{}", path.display(), advice(source))]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} cannot be the agent of an image", path.display())]
    Agent { path: PathBuf, source: ProgramError },
    #[error("{} has {size} bytes; that is no agent", path.display())]
    AgentSize { path: PathBuf, size: u64 },
    #[error("collecting kernel modules")]
    Modules(#[from] ModulesError),
    #[error("making the initramfs")]
    Archive(#[from] CpioError),
    #[error("compressing the initramfs")]
    Compress(#[source] io::Error),
    #[error("describing the image")]
    Image(#[from] ImageError),
    #[error("writing the image's description")]
    Serialise(#[source] serde_json::Error),
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": no space left there; free some, or choose another directory with --out"
        }
        _ => "",
    }
}

/// The program that becomes process 1.
#[derive(Debug)]
pub struct Agent {
    bytes: Vec<u8>,
    has_symbols: bool,
    made_by: Vec<(&'static str, String)>,
}

impl Agent {
    pub fn read(path: &Path) -> Result<Self, BuildError> {
        let failed = |source| BuildError::Io { action: "reading the agent", path: path.into(), source };
        let size = fs::metadata(path).map_err(failed)?.len();
        if size > MAX_AGENT {
            return Err(BuildError::AgentSize { path: path.into(), size });
        }
        let bytes = fs::read(path).map_err(failed)?;
        elf::check_static_program(&bytes)
            .map_err(|source| BuildError::Agent { path: path.into(), source })?;
        let (has_symbols, made_by) = (elf::has_symbols(&bytes), elf::made_by(&bytes));
        Ok(Self { bytes, has_symbols, made_by })
    }

    pub fn input(&self) -> Input {
        Input::of(&self.bytes)
    }

    /// Whether it holds symbols that the guest would carry around for nothing.
    pub fn has_symbols(&self) -> bool {
        self.has_symbols
    }

    /// The compilers that made it, as (name, version).
    pub fn made_by(&self) -> &[(&'static str, String)] {
        &self.made_by
    }
}

/// An image that was built, or was there already.
#[derive(Debug)]
pub struct Image {
    pub manifest: ImageManifest,
    pub lock: Lock,
}

impl Image {
    /// The image in `directory`, if it is whole and was built from exactly these inputs.
    pub fn up_to_date(directory: &Path, agent: &Agent, packages: &[Package]) -> Option<Self> {
        let lock = Lock::read(&directory.join(LOCK_FILE)).ok()?;
        if !lock.describes(&agent.input(), packages) {
            return None;
        }
        let manifest = ImageManifest::load(directory).ok()?;
        Some(Self { manifest, lock })
    }

    /// The image in `directory`, every file checked against its digest.
    pub fn load(directory: &Path) -> Result<Self, LoadError> {
        let manifest = ImageManifest::load(directory)?;
        let lock = Lock::read(&directory.join(LOCK_FILE))?;
        if lock.kernel.sha256 != manifest.kernel.sha256 || lock.kernel.release != manifest.kernel_release {
            return Err(LoadError::AnotherLock);
        }
        Ok(Self { manifest, lock })
    }
}

/// An image that is not whole.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the image is not what its manifest says")]
    Image(#[from] ImageError),
    #[error("the image's list of inputs cannot be read")]
    Lock(#[from] LockError),
    #[error("{LOCK_FILE} lists another kernel than {MANIFEST_FILE}")]
    AnotherLock,
}

/// Builds an image into `directory`, replacing what was there file by file, the manifest last.
pub fn build(agent: &Agent, kernel: &Kernel, directory: &Path) -> Result<Image, BuildError> {
    let modules = match &kernel.modules {
        Some(modules) => modules::collect(modules, &kernel.release)?,
        None => Vec::new(),
    };
    let mut initramfs = Initramfs::new(agent.bytes.clone(), &modules)?;
    if let Some(specialised) = &kernel.specialised {
        initramfs = initramfs.with_kernel_options(&specialised.config)?;
    }
    let initramfs = initramfs.to_bytes().map_err(BuildError::Compress)?;
    let lock = lock(agent, kernel, &modules);

    fs::create_dir_all(directory).map_err(|source| BuildError::Io {
        action: "making",
        path: directory.into(),
        source,
    })?;
    // Without a manifest there is no image: one that is half replaced cannot be taken for a whole one.
    remove(&directory.join(MANIFEST_FILE))?;
    write(directory, KERNEL_FILE, &kernel.image)?;
    write(directory, INITRAMFS_FILE, &initramfs)?;
    write(directory, LOCK_FILE, &json(&lock)?)?;
    match &kernel.specialised {
        Some(specialised) => {
            write(directory, KERNEL_CONFIG_FILE, &specialised.config)?;
            write(directory, DRIVERS_FILE, &specialised.drivers)?;
        }
        None => {
            remove(&directory.join(KERNEL_CONFIG_FILE))?;
            remove(&directory.join(DRIVERS_FILE))?;
        }
    }
    let manifest = ImageManifest {
        format: FORMAT,
        kernel: ImageFile::describe(directory, KERNEL_FILE)?,
        initramfs: ImageFile::describe(directory, INITRAMFS_FILE)?,
        cmdline: cmdline(kernel),
        agent_version: env!("CARGO_PKG_VERSION").into(),
        kernel_release: kernel.release.clone(),
        kernel_profile: kernel.specialised.as_ref().map(|specialised| specialised.profile.clone()),
    };
    write(directory, MANIFEST_FILE, &json(&manifest)?)?;
    Ok(Image { manifest, lock })
}

/// What every launch shares, and whether the kernel has ACPI: QEMU makes a machine without it then.
fn cmdline(kernel: &Kernel) -> String {
    let has = |config: &[u8]| config.split(|byte| *byte == b'\n').any(|line| line == b"CONFIG_ACPI=y");
    match &kernel.specialised {
        Some(specialised) if !has(&specialised.config) => format!("{CMDLINE} {WITHOUT_ACPI}"),
        _ => CMDLINE.to_owned(),
    }
}

fn lock(agent: &Agent, kernel: &Kernel, modules: &[Module]) -> Lock {
    let kernel_input = KernelInput {
        release: kernel.release.clone(),
        profile: kernel.specialised.as_ref().map(|specialised| specialised.profile.clone()),
        sha256: sha256(&kernel.image),
        packages: kernel.packages.clone(),
    };
    let input = |module: &Module| ModuleInput {
        file: module.file.clone(),
        class: module.class,
        sha256: sha256(&module.content),
    };
    Lock::new(agent.input(), kernel_input, modules.iter().map(input).collect())
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, BuildError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(BuildError::Serialise)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn remove(path: &Path) -> Result<(), BuildError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(BuildError::Io { action: "replacing", path: path.into(), source })
        }
        _ => Ok(()),
    }
}

/// A reader sees the old file or the new one, never a part.
fn write(directory: &Path, file: &str, bytes: &[u8]) -> Result<(), BuildError> {
    use std::{io::Write, os::unix::fs::PermissionsExt};
    let path = directory.join(file);
    let failed = |source| BuildError::Io { action: "writing", path: path.clone(), source };
    let mut temporary = tempfile::Builder::new().prefix(".new-").tempfile_in(directory).map_err(failed)?;
    temporary.write_all(bytes).map_err(failed)?;
    temporary.as_file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(failed)?;
    temporary.persist(&path).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests;
