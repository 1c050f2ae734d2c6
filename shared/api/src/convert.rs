//! Wire <-> model, field by field. A broken field is named in the error.

use std::path::PathBuf;

use postern_model::{
    ContainerName, ContainerSpec, ExitStatus, IdError, Resources, RunUser,
    container::{MountKind, MountSpec},
};

use crate::owner as wire;

/// A field that could not be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    #[error("field {field} is missing")]
    Missing { field: &'static str },
    #[error("field {field} is not a valid name")]
    Name { field: &'static str, source: IdError },
    #[error("field {field}: {value:?} is not an absolute path without '..'")]
    Path { field: &'static str, value: String },
    #[error("field {field}: {why}")]
    Invalid { field: &'static str, why: &'static str },
}

/// Most arguments, environment variables or mounts a specification may have.
const MAX_ITEMS: usize = 4096;

fn name(field: &'static str, text: String) -> Result<ContainerName, ConvertError> {
    ContainerName::new(text).map_err(|source| ConvertError::Name { field, source })
}

fn absolute_path(field: &'static str, text: String) -> Result<PathBuf, ConvertError> {
    let path = PathBuf::from(&text);
    let plain = path
        .components()
        .all(|part| matches!(part, std::path::Component::RootDir | std::path::Component::Normal(_)));
    if !path.is_absolute() || !plain || text.contains('\0') {
        return Err(ConvertError::Path { field, value: text });
    }
    Ok(path)
}

fn limit(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

impl TryFrom<wire::ContainerSpec> for ContainerSpec {
    type Error = ConvertError;

    fn try_from(wire: wire::ContainerSpec) -> Result<Self, ConvertError> {
        if wire.image.is_empty() {
            return Err(ConvertError::Missing { field: "spec.image" });
        }
        if wire.args.len() > MAX_ITEMS || wire.env.len() > MAX_ITEMS || wire.mounts.len() > MAX_ITEMS {
            return Err(ConvertError::Invalid {
                field: "spec",
                why: "more than 4096 arguments, variables or mounts",
            });
        }
        if wire.env.keys().any(|key| key.is_empty() || key.contains(['=', '\0'])) {
            return Err(ConvertError::Invalid {
                field: "spec.env",
                why: "a key is empty or contains '=' or NUL",
            });
        }
        Ok(Self {
            name: name("spec.name", wire.name)?,
            image: wire.image,
            entrypoint: wire.entrypoint.map(|list| list.values),
            args: wire.args,
            env: wire.env.into_iter().collect(),
            working_dir: match wire.working_dir.is_empty() {
                true => None,
                false => Some(absolute_path("spec.working_dir", wire.working_dir)?),
            },
            user: user(wire.user),
            hostname: Some(wire.hostname).filter(|name| !name.is_empty()),
            terminal: wire.terminal,
            stdin: wire.stdin,
            read_only_rootfs: wire.read_only_rootfs,
            mounts: wire.mounts.into_iter().map(MountSpec::try_from).collect::<Result<_, _>>()?,
            resources: wire.resources.map(Resources::from).unwrap_or_default(),
            add_capabilities: wire.add_capabilities,
            drop_capabilities: wire.drop_capabilities,
            auto_remove: wire.auto_remove,
            host_may_start: wire.host_may_start,
            labels: wire.labels.into_iter().collect(),
        })
    }
}

/// `user[:group]` as it stands on the wire; empty is the image's.
pub fn user(text: String) -> RunUser {
    match text.is_empty() {
        true => RunUser::Image,
        false => RunUser::Named(text),
    }
}

impl From<ContainerSpec> for wire::ContainerSpec {
    fn from(spec: ContainerSpec) -> Self {
        Self {
            name: spec.name.into(),
            image: spec.image,
            entrypoint: spec.entrypoint.map(|values| wire::StringList { values }),
            args: spec.args,
            env: spec.env.into_iter().collect(),
            working_dir: spec.working_dir.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
            user: match spec.user {
                RunUser::Image => String::new(),
                RunUser::Named(user) => user,
            },
            hostname: spec.hostname.unwrap_or_default(),
            terminal: spec.terminal,
            stdin: spec.stdin,
            read_only_rootfs: spec.read_only_rootfs,
            mounts: spec.mounts.into_iter().map(wire::Mount::from).collect(),
            resources: Some(spec.resources.into()),
            add_capabilities: spec.add_capabilities,
            drop_capabilities: spec.drop_capabilities,
            auto_remove: spec.auto_remove,
            host_may_start: spec.host_may_start,
            labels: spec.labels.into_iter().collect(),
        }
    }
}

impl TryFrom<wire::Mount> for MountSpec {
    type Error = ConvertError;

    fn try_from(wire: wire::Mount) -> Result<Self, ConvertError> {
        let kind = match wire.kind.ok_or(ConvertError::Missing { field: "mount.kind" })? {
            wire::mount::Kind::Tmpfs(tmpfs) => MountKind::Tmpfs { size: limit(tmpfs.size_bytes) },
            wire::mount::Kind::Volume(volume) => MountKind::Volume { name: name("mount.volume", volume)? },
        };
        Ok(Self {
            destination: absolute_path("mount.destination", wire.destination)?,
            kind,
            read_only: wire.read_only,
        })
    }
}

impl From<MountSpec> for wire::Mount {
    fn from(mount: MountSpec) -> Self {
        let kind = match mount.kind {
            MountKind::Tmpfs { size } => {
                wire::mount::Kind::Tmpfs(wire::Tmpfs { size_bytes: size.unwrap_or_default() })
            }
            MountKind::Volume { name } => wire::mount::Kind::Volume(name.into()),
        };
        Self {
            destination: mount.destination.to_string_lossy().into_owned(),
            read_only: mount.read_only,
            kind: Some(kind),
        }
    }
}

impl From<wire::Resources> for Resources {
    fn from(wire: wire::Resources) -> Self {
        Self { memory: limit(wire.memory_bytes), cpu_millis: limit(wire.cpu_millis), pids: limit(wire.pids) }
    }
}

impl From<Resources> for wire::Resources {
    fn from(resources: Resources) -> Self {
        Self {
            memory_bytes: resources.memory.unwrap_or_default(),
            cpu_millis: resources.cpu_millis.unwrap_or_default(),
            pids: resources.pids.unwrap_or_default(),
        }
    }
}

impl From<ExitStatus> for wire::Exit {
    fn from(status: ExitStatus) -> Self {
        let signal = match status {
            ExitStatus::Exited(_) => 0,
            ExitStatus::Signalled(signal) => u32::from(signal),
        };
        Self { code: status.code(), signal, oom_killed: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> wire::ContainerSpec {
        wire::ContainerSpec { name: "web".into(), image: "busybox".into(), ..Default::default() }
    }

    #[test]
    fn a_specification_survives_the_wire() {
        let mut spec = ContainerSpec::new("web".parse().unwrap(), "busybox");
        spec.env.insert("A".into(), "1".into());
        spec.resources.memory = Some(1 << 20);
        spec.mounts.push(MountSpec {
            destination: "/data".into(),
            kind: MountKind::Volume { name: "v".parse().unwrap() },
            read_only: true,
        });
        assert_eq!(ContainerSpec::try_from(wire::ContainerSpec::from(spec.clone())), Ok(spec));
    }

    #[test]
    fn names_the_broken_field() {
        let broken = |change: fn(&mut wire::ContainerSpec)| {
            let mut wire = valid();
            change(&mut wire);
            ContainerSpec::try_from(wire).unwrap_err().to_string()
        };
        assert!(broken(|wire| wire.name = "../x".into()).contains("spec.name"));
        assert!(broken(|wire| wire.image.clear()).contains("spec.image"));
        assert!(broken(|wire| wire.working_dir = "/a/../b".into()).contains("spec.working_dir"));
        assert!(broken(|wire| wire.mounts.push(wire::Mount::default())).contains("mount.kind"));
        assert!(broken(|wire| drop(wire.env.insert("A=B".into(), String::new()))).contains("spec.env"));
    }
}
