//! From what an owner asks for and what an image says to an OCI runtime specification.
//!
//! Everything that confines a container is decided here, once, and read back from the specification by whoever runs a
//! process in it: name spaces, capabilities, seccomp, no-new-privileges, limits, mounts, masked paths.

mod capabilities;
pub(crate) mod kernel;
mod mounts;
mod process;
mod rootfs;
mod seccomp;
pub(crate) mod user;

use std::{io, path::PathBuf};

use oci_spec::{
    OciSpecError,
    image::ImageConfiguration,
    runtime::{
        Linux, LinuxBuilder, LinuxCpuBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
        LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder,
        LinuxResources, LinuxResourcesBuilder, RootBuilder, Spec, SpecBuilder,
    },
};
use postern_model::{ContainerSpec, Resources};

pub(crate) use self::process::confinement;
pub use self::user::UserError;
use crate::cgroup::devices;

/// Smallest memory limit with which a process can start at all.
const MIN_MEMORY: u64 = 4 * 1024 * 1024;
/// The scheduler's usual period (cgroup v2, `cpu.max`).
const CPU_PERIOD_MICROS: u64 = 100_000;
/// The kernel's smallest quota.
const MIN_CPU_QUOTA_MICROS: u64 = 1000;

/// What the pod supplies to every container.
#[derive(Debug, Clone)]
pub struct SpecContext {
    /// The container's root file system, ready and mounted; nobody else writes to it.
    pub rootfs: PathBuf,
    /// Files to appear as `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`. Each must exist. A container may write
    /// to them, so each gets its own.
    pub hosts: PathBuf,
    pub hostname_file: PathBuf,
    pub resolv_conf: PathBuf,
    /// Host name where the owner asks for none.
    pub hostname: String,
    /// Directory with one directory per volume of the pod. Those that are asked for are made.
    pub volumes: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error("image names no command and none was given")]
    NoCommand,
    #[error("argument or environment variable {0:?} holds a NUL byte")]
    Nul(String),
    #[error("environment variable name {0:?} is empty or holds '='")]
    EnvironmentName(String),
    #[error("user of the container cannot be found")]
    User(#[source] UserError),
    #[error("working directory {path} cannot be used")]
    WorkingDirectory { path: PathBuf, source: io::Error },
    #[error("working directory {0} is not an absolute path outside of /proc, /sys and /dev")]
    WorkingDirectoryPlace(PathBuf),
    #[error("mount destination {0} is not an absolute path outside of /proc, /sys and /dev")]
    MountDestination(PathBuf),
    #[error("mount destination {0} is given twice")]
    MountTwice(PathBuf),
    #[error("volume {name} cannot be used")]
    Volume { name: String, source: io::Error },
    #[error("path {0:?} is not UTF-8")]
    NotText(PathBuf),
    #[error("{0:?} is no capability")]
    UnknownCapability(String),
    #[error("capability {0} reaches beyond the container into the guest and is not granted")]
    CapabilityNotGrantable(String),
    #[error("memory limit of {0} bytes is too small to start a process; at least {MIN_MEMORY} are needed")]
    Memory(u64),
    #[error("{0} limit is out of range")]
    Limit(&'static str),
    #[error("host name {0:?} is longer than 64 bytes or holds a NUL byte")]
    Hostname(String),
    #[error("root file system {path} cannot be used")]
    Rootfs { path: PathBuf, source: io::Error },
    #[error("specification could not be built")]
    Build(#[source] OciSpecError),
}

/// Builds the specification. Reads the root file system (users, working directory) and makes what the container
/// expects to find in it (working directory, directories of volumes); blocking.
pub fn build(
    spec: &ContainerSpec,
    image: &ImageConfiguration,
    context: &SpecContext,
) -> Result<Spec, SpecError> {
    let no_config = oci_spec::image::Config::default();
    let config = image.config().as_ref().unwrap_or(&no_config);
    let open = |source| SpecError::Rootfs { path: context.rootfs.clone(), source };
    let root = rootfs::Root::open(&context.rootfs).map_err(open)?;
    let hostname = spec.hostname.clone().unwrap_or_else(|| context.hostname.clone());
    let process = process::build(spec, config, &hostname, &root)?;
    let mut mounts = mounts::standard(context, spec.read_only_rootfs)?;
    let volumes = config.volumes().as_deref().unwrap_or_default();
    mounts.extend(mounts::images(volumes, &spec.mounts, &root, spec.read_only_rootfs)?);
    mounts.extend(mounts::owners(&spec.mounts, context, &root)?);
    assemble(
        context,
        hostname,
        Parts { process, mounts, resources: spec.resources, read_only: spec.read_only_rootfs },
    )
}

/// The specification of the pod's pause container, which runs no program of any image
/// ([`Init::Pause`](crate::Init::Pause)) and has no capability. Its root file system may be an empty directory.
pub fn pause(context: &SpecContext) -> Result<Spec, SpecError> {
    let process = process::pause()?;
    let resources = Resources { pids: Some(16), ..Resources::default() };
    let mounts = mounts::standard(context, true)?;
    let mounts = mounts.into_iter().filter(|mount| !mount.destination().starts_with("/etc")).collect();
    assemble(context, context.hostname.clone(), Parts { process, mounts, resources, read_only: true })
}

struct Parts {
    process: oci_spec::runtime::Process,
    mounts: Vec<oci_spec::runtime::Mount>,
    resources: Resources,
    read_only: bool,
}

fn assemble(context: &SpecContext, hostname: String, parts: Parts) -> Result<Spec, SpecError> {
    if hostname.len() > 64 || hostname.contains('\0') {
        return Err(SpecError::Hostname(hostname));
    }
    let root = RootBuilder::default().path(&context.rootfs).readonly(parts.read_only).build();
    SpecBuilder::default()
        .version("1.2.0")
        .root(root.map_err(SpecError::Build)?)
        .hostname(hostname)
        .process(parts.process)
        .mounts(parts.mounts)
        .linux(linux(&parts.resources)?)
        .build()
        .map_err(SpecError::Build)
}

fn linux(resources: &Resources) -> Result<Linux, SpecError> {
    let paths = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
    LinuxBuilder::default()
        .namespaces(name_spaces()?)
        .resources(limits(resources)?)
        .seccomp(seccomp::profile().map_err(SpecError::Build)?)
        .masked_paths(paths(&mounts::MASKED))
        .readonly_paths(paths(&mounts::READ_ONLY))
        .rootfs_propagation("private")
        .build()
        .map_err(SpecError::Build)
}

/// All but the network, which is the pod's, and the user name space, which the whole guest shares.
fn name_spaces() -> Result<Vec<LinuxNamespace>, SpecError> {
    let kinds = [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Cgroup,
    ];
    kinds
        .into_iter()
        .filter(|kind| *kind != LinuxNamespaceType::Ipc || kernel::has_ipc())
        .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build().map_err(SpecError::Build))
        .collect()
}

fn limits(resources: &Resources) -> Result<LinuxResources, SpecError> {
    let signed = |what, number: u64| i64::try_from(number).map_err(|_| SpecError::Limit(what));
    let mut limits = LinuxResourcesBuilder::default().devices(device_rules()?);
    if let Some(memory) = resources.memory {
        if memory < MIN_MEMORY {
            return Err(SpecError::Memory(memory));
        }
        let memory = LinuxMemoryBuilder::default().limit(signed("memory", memory)?).build();
        limits = limits.memory(memory.map_err(SpecError::Build)?);
    }
    if let Some(millis) = resources.cpu_millis {
        let quota =
            millis.checked_mul(CPU_PERIOD_MICROS / 1000).filter(|quota| *quota >= MIN_CPU_QUOTA_MICROS);
        let quota = signed("CPU", quota.ok_or(SpecError::Limit("CPU"))?)?;
        let cpu = LinuxCpuBuilder::default().quota(quota).period(CPU_PERIOD_MICROS).build();
        limits = limits.cpu(cpu.map_err(SpecError::Build)?);
    }
    if let Some(pids) = resources.pids {
        if pids == 0 {
            return Err(SpecError::Limit("process"));
        }
        let pids = LinuxPidsBuilder::default().limit(signed("process", pids)?).build();
        limits = limits.pids(pids.map_err(SpecError::Build)?);
    }
    limits.build().map_err(SpecError::Build)
}

/// Refuse all, then allow the few: what a v1 hierarchy enforces, and what the filter of a v2 one is made from too.
fn device_rules() -> Result<Vec<LinuxDeviceCgroup>, SpecError> {
    let refuse_all =
        LinuxDeviceCgroupBuilder::default().allow(false).typ(LinuxDeviceType::A).access("rwm").build();
    let mut rules = vec![refuse_all.map_err(SpecError::Build)?];
    for (major, minor) in devices::ALLOWED {
        let rule = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(LinuxDeviceType::C)
            .major(i64::from(major))
            .access("rwm");
        let rule = match minor {
            Some(minor) => rule.minor(i64::from(minor)),
            None => rule,
        };
        rules.push(rule.build().map_err(SpecError::Build)?);
    }
    Ok(rules)
}

#[cfg(test)]
mod tests;
