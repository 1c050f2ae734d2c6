//! The process of a container: command, environment, user, directory, limits; and how those are read back.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use oci_spec::{
    image::Config,
    runtime::{
        LinuxCapabilities, LinuxCapabilitiesBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
        Process, ProcessBuilder, Spec, User, UserBuilder,
    },
};
use postern_model::{ContainerSpec, RunUser};
use rustix::process::{Resource, getrlimit};

use super::{
    SpecError, capabilities, mounts,
    rootfs::Root,
    user::{Accounts, Identity},
};
use crate::worker::{DEFAULT_PATH, protocol::Confinement};

/// Open files: soft as programs that use select(2) expect it, hard as containerd has it.
const OPEN_FILES_SOFT: u64 = 1024;
const OPEN_FILES_HARD: u64 = 524_288;
/// What a process may not change about files it makes, unless it says otherwise.
const UMASK: u32 = 0o022;

pub(super) fn build(
    spec: &ContainerSpec,
    config: &Config,
    hostname: &str,
    root: &Root,
) -> Result<Process, SpecError> {
    let args = command(spec, config)?;
    let user = match &spec.user {
        RunUser::Image => config.user().clone().unwrap_or_default(),
        RunUser::Named(user) => user.clone(),
    };
    let identity = Accounts::read(root.descriptor())
        .and_then(|accounts| accounts.identify(&user))
        .map_err(SpecError::User)?;
    let env = environment(spec, config, hostname, &identity)?;
    ProcessBuilder::default()
        .terminal(spec.terminal)
        .user(os_user(&identity)?)
        .args(args)
        .env(env)
        .cwd(working_directory(spec, config, root)?)
        .capabilities(capabilities::choose(&spec.add_capabilities, &spec.drop_capabilities)?)
        .rlimits(resource_limits()?)
        .no_new_privileges(true)
        .build()
        .map_err(SpecError::Build)
}

pub(super) fn pause() -> Result<Process, SpecError> {
    let nobody = Identity { uid: 65534, gid: 65534, groups: Vec::new(), home: String::new() };
    ProcessBuilder::default()
        .terminal(false)
        .user(os_user(&nobody)?)
        .args(vec!["pause".to_owned()])
        .env(vec![format!("PATH={DEFAULT_PATH}")])
        .cwd("/")
        .capabilities(no_capabilities()?)
        .rlimits(resource_limits()?)
        .no_new_privileges(true)
        .build()
        .map_err(SpecError::Build)
}

fn no_capabilities() -> Result<LinuxCapabilities, SpecError> {
    let none = oci_spec::runtime::Capabilities::new;
    LinuxCapabilitiesBuilder::default()
        .bounding(none())
        .effective(none())
        .permitted(none())
        .inheritable(none())
        .ambient(none())
        .build()
        .map_err(SpecError::Build)
}

/// As docker combines them: a new entry point discards the image's command.
fn command(spec: &ContainerSpec, config: &Config) -> Result<Vec<String>, SpecError> {
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let (mut command, args) = match &spec.entrypoint {
        Some(entrypoint) => (entrypoint.clone(), spec.args.clone()),
        None if spec.args.is_empty() => (list(config.entrypoint()), list(config.cmd())),
        None => (list(config.entrypoint()), spec.args.clone()),
    };
    command.extend(args);
    if command.first().is_none_or(String::is_empty) {
        return Err(SpecError::NoCommand);
    }
    match command.iter().find(|argument| argument.contains('\0')) {
        Some(argument) => Err(SpecError::Nul(argument.clone())),
        None => Ok(command),
    }
}

fn environment(
    spec: &ContainerSpec,
    config: &Config,
    hostname: &str,
    identity: &Identity,
) -> Result<Vec<String>, SpecError> {
    let mut env = BTreeMap::from([("PATH", DEFAULT_PATH), ("HOSTNAME", hostname), ("HOME", &identity.home)]);
    if spec.terminal {
        env.insert("TERM", "xterm");
    }
    // A pair of the image without '=' is what it is: nothing to set.
    env.extend(config.env().iter().flatten().filter_map(|pair| pair.split_once('=')));
    env.extend(spec.env.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    pairs(env.into_iter())
}

/// `KEY=value`, checked.
fn pairs<'a>(env: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Vec<String>, SpecError> {
    let pair = |(key, value): (&str, &str)| {
        if key.is_empty() || key.contains('=') {
            return Err(SpecError::EnvironmentName(key.into()));
        }
        match key.contains('\0') || value.contains('\0') {
            true => Err(SpecError::Nul(key.into())),
            false => Ok(format!("{key}={value}")),
        }
    };
    env.map(pair).collect()
}

/// The directory, made if missing, and where it really is: at run time no link is left to follow. What leads below
/// `/proc` (a WORKDIR of `/proc/self/fd/7`, by itself or through a link) would be resolved by the runtime's own
/// process, so it is refused.
fn working_directory(spec: &ContainerSpec, config: &Config, root: &Root) -> Result<PathBuf, SpecError> {
    let from_image = config.working_dir().as_deref().filter(|path| !path.is_empty()).map(PathBuf::from);
    let path = spec.working_dir.clone().or(from_image).unwrap_or_else(|| PathBuf::from("/"));
    let climbs = path.components().any(|part| part == Component::ParentDir);
    if !path.is_absolute() || climbs || mounts::is_kernels(&path) {
        return Err(SpecError::WorkingDirectoryPlace(path));
    }
    if let Some(mount) = spec.mounts.iter().find(|mount| path.starts_with(&mount.destination)) {
        return match path == mount.destination {
            true => Ok(path),
            // Below a mount that is not there yet: the process finds out.
            false => {
                Ok(mount.destination.join(path.strip_prefix(&mount.destination).unwrap_or(Path::new(""))))
            }
        };
    }
    let place = root
        .make_directories(&path)
        .map_err(|source| SpecError::WorkingDirectory { path: path.clone(), source })?;
    match mounts::is_kernels(&place) {
        true => Err(SpecError::WorkingDirectoryPlace(path)),
        false => Ok(place),
    }
}

fn os_user(identity: &Identity) -> Result<User, SpecError> {
    UserBuilder::default()
        .uid(identity.uid)
        .gid(identity.gid)
        .additional_gids(identity.groups.clone())
        .umask(UMASK)
        .build()
        .map_err(SpecError::Build)
}

/// No core files, which hold secrets; open files as usual, as far as this process may grant them.
fn resource_limits() -> Result<Vec<PosixRlimit>, SpecError> {
    let ours = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let hard = OPEN_FILES_HARD.min(ours);
    let limit = |kind, soft, hard| PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build();
    let limits = [
        limit(PosixRlimitType::RlimitNofile, OPEN_FILES_SOFT.min(hard), hard),
        limit(PosixRlimitType::RlimitCore, 0, 0),
    ];
    limits.into_iter().map(|limit| limit.map_err(SpecError::Build)).collect()
}

/// What confines the container's init, for every other process of the container.
pub(crate) fn confinement(spec: &Spec) -> Confinement {
    let Some(process) = spec.process() else { return Confinement::default() };
    let sets = process.capabilities().as_ref();
    let rlimits = process.rlimits().iter().flatten();
    Confinement {
        bounding: capabilities::bits(sets.and_then(|sets| sets.bounding().as_ref())),
        effective: capabilities::bits(sets.and_then(|sets| sets.effective().as_ref())),
        permitted: capabilities::bits(sets.and_then(|sets| sets.permitted().as_ref())),
        inheritable: capabilities::bits(sets.and_then(|sets| sets.inheritable().as_ref())),
        rlimits: rlimits
            .filter_map(|limit| {
                resource_number(limit.typ()).map(|number| (number, limit.soft(), limit.hard()))
            })
            .collect(),
        umask: process.user().umask().unwrap_or(UMASK),
    }
}

/// As in getrlimit(2).
fn resource_number(kind: PosixRlimitType) -> Option<u32> {
    match kind {
        PosixRlimitType::RlimitCore => Some(4),
        PosixRlimitType::RlimitNproc => Some(6),
        PosixRlimitType::RlimitNofile => Some(7),
        _ => None,
    }
}
